"""The space of given images: what their cohort or their file names state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import is_mni152, parse_entities
from xai_brain.study.given.images import GivenImage

OWN = "T1w"  # the space of each participant


def space_of(images: Sequence[GivenImage], stated: str | None) -> str:
    """The one space of all images.

    Parameters
    ----------
    images : sequence of GivenImage
    stated : str or None
        By the caller. None: the entity ``space`` of the file names, MNI152 for a prepared cohort, else
        ``T1w``.

    Raises
    ------
    ConfigError
        The images are in several spaces, or not in the stated one.
    """
    if stated is not None and not (stated.isascii() and stated.isalnum()):
        raise ConfigError(
            f"space={stated}: letters and digits only, as the name of the space is in file names"
        )
    known = {name: image for image in images for name in _names(image)}
    if len(known) > 1:
        raise ConfigError(
            f"images: are in several spaces ({', '.join(sorted(known))}); give those of one space"
        )
    for name, image in known.items():
        if stated is not None and not _agree(name, stated):
            raise ConfigError(f"space={stated}: {image.path} is in {name} by its name")
    return stated or next(iter(known), OWN)


def _names(image: GivenImage) -> set[str]:
    if image.prepared is not None:
        return {"MNI152"}
    files = [channel for channel in image.channels if isinstance(channel, str | Path)]
    return {parse_entities(file).get("space", OWN) for file in files}


def _agree(name: str, stated: str) -> bool:
    """Whether a file name allows a stated space: it may be silent, or less precise."""
    silent = name == OWN
    unspecific = is_mni152(name) and is_mni152(stated) and "MNI152" in (name, stated)
    return silent or unspecific or name == stated

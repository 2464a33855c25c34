"""Opening maps from their folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xai_brain.runs.directory import RunDirectory
from xai_brain.study.maps.maps import Maps


def open_maps(folder: str | Path, *, trusted_modules: Sequence[str] = ()) -> Maps:
    """Open the maps of a study, or maps imported by ``xai-brain import-maps``, from their folder.

    Parameters
    ----------
    folder : str or Path
        Folder of the study, or its subfolder ``attributions``.
    trusted_modules : sequence of str, optional
        See `xai_brain.open_study`.

    Returns
    -------
    Maps

    Raises
    ------
    ConfigError
        The folder contains no maps.

    Examples
    --------
    >>> open_maps(run_dir)
    Maps(24 participants x 3 methods: GradCAM, GuidedBackprop, MeaningfulPerturbation; space MNI152)
    """
    folder = Path(folder).expanduser()
    if folder.name == "attributions" and not RunDirectory(folder).config.exists():
        folder = folder.parent
    return Maps(folder, trusted_modules=trusted_modules)

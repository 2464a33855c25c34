"""Group maps of a run: how they are written, and a list of those that exist. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from xai_brain.io.nifti import save_img
from xai_brain.runs.derivatives import spatial_reference, uris_of_maps, write_group_dataset
from xai_brain.runs.directory import SPACE, RunDirectory, read_json, sidecar, write_json

GROUP_MAPS = "group/tpl-*/anat/*_statmap.*"  # files of the group maps of a run
DIMENSIONLESS = {"t", "logpfwe", "logptfce", "logpcluster", "share"}  # statistics without a unit


@dataclass(frozen=True)
class GroupMap:
    """A group map of a run, as its sidecar describes it.

    Parameters
    ----------
    method : str
        Method of the maps; ``image`` or ``truth`` for maps of images and of planted effects.
    quantity : str
        Such as ``class-male``, ``male-minus-female``, ``contrast-age`` or ``variance-model``.
    statistic : str
        Such as ``mean`` or ``t``.
    path : Path
    """

    method: str
    quantity: str
    statistic: str
    path: Path

    @property
    def files(self) -> list[Path]:
        """The map and its sidecar."""
        return [self.path, sidecar(self.path)]

    def remove(self) -> None:
        for path in self.files:
            path.unlink(missing_ok=True)


def write_group_map(
    run: RunDirectory,
    method: str,
    quantity: str,
    statistic: str,
    volume: np.ndarray,
    affine: np.ndarray,
    about: Mapping[str, Any],
    sources: Iterable[Path] = (),
) -> GroupMap:
    """Write a group map and its sidecar; the first one also describes the dataset of the group maps.

    Parameters
    ----------
    run : RunDirectory
    method, quantity, statistic : str
        See `GroupMap`.
    volume : ndarray of shape (X, Y, Z)
    affine : ndarray of shape (4, 4)
    about : mapping
        Further content of the sidecar.
    sources : iterable of Path
        Maps in attributions/ from which the map was made.
    """
    made = GroupMap(method, quantity, statistic, run.group_map(method, quantity, statistic))
    if not (run.path / "group" / "dataset_description.json").exists():
        write_group_dataset(run)
    sidecar(made.path).unlink(missing_ok=True)  # a map without sidecar counts as missing
    save_img(volume, affine, made.path, space=SPACE)
    uris = uris_of_maps(run, sources)
    record = {
        "Description": f"{statistic} of {quantity}, {method}",
        **({"Sources": uris} if uris else {}),
        **spatial_reference(SPACE),
        "SkullStripped": not quantity.startswith("class-"),  # all other maps are 0 outside the brain
        "Units": "1" if statistic in DIMENSIONLESS else "arbitrary",
        **about,
        "Method": method,
        "Quantity": quantity,
        "Statistic": statistic,
    }
    write_json(record, sidecar(made.path))
    return made


def find_group_maps(
    run: RunDirectory, method: str = "*", quantities: Sequence[str] = ("*",), statistic: str = "*"
) -> list[GroupMap]:
    """Group maps whose sidecars have these values, in the order of their file names.

    Parameters
    ----------
    run : RunDirectory
    method, statistic : str, default "*"
        Patterns with ``*``.
    quantities : sequence of str, default ("*",)
        Patterns, of which one fits.
    """
    found = []
    for path in sorted(run.path.glob(GROUP_MAPS.replace("_statmap.*", "_statmap.nii.gz"))):
        try:
            about = read_json(sidecar(path))
            made = GroupMap(about["Method"], about["Quantity"], about["Statistic"], path)
        except (OSError, ValueError, KeyError, TypeError):  # damaged, thus no map
            continue
        fits = fnmatchcase(made.method, method) and fnmatchcase(made.statistic, statistic)
        if fits and any(fnmatchcase(made.quantity, each) for each in quantities):
            found.append(made)
    return found

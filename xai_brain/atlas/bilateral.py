"""Regions of an atlas with left and right merged or separate."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np

from xai_brain.atlas.atlas import SIDES, Atlas, side_of
from xai_brain.atlas.lookup_tables import AtlasError
from xai_brain.io.nifti import Grid

MARKS = {mark for marks in SIDES.values() for mark in marks}


def name_without_side(name: str) -> str:
    """Name of a region without the word that states its side.

    Examples
    --------
    >>> [name_without_side(name) for name in ("Hippocampus_L", "Left-Amygdala", "ctx-rh-insula", "Vermis")]
    ['Hippocampus', 'Amygdala', 'ctx-insula', 'Vermis']
    """
    if side_of(name) is None:
        return name
    spaced = re.sub(r"(?<=[a-z0-9])(?=Left|Right)|(?<=Left)(?=[A-Z])|(?<=Right)(?=[A-Z])", " ", name)
    parts = re.split(r"([\W_]+)", spaced)  # words and what separates them, in turn
    words = [(word, "".join(parts[2 * i + 1 : 2 * i + 2])) for i, word in enumerate(parts[::2])]
    kept = [(word, separator) for word, separator in words if word.lower() not in MARKS]
    return "".join(word + separator for word, separator in kept).strip(" _-.")


def labels_of_regions(atlas: Atlas, regions: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Labels of regions that are named with their side (one label) or without it (left and right).

    Parameters
    ----------
    atlas : Atlas
    regions : sequence of str
        ``Hippocampus_L`` is one side, ``Hippocampus`` both; case-insensitive.

    Returns
    -------
    dict
        Name to labels.

    Raises
    ------
    AtlasError
        A region does not exist, or a label would belong to two of the regions.
    """
    found: dict[str, tuple[int, ...]] = {}
    bases = [name_without_side(name).lower() for name in atlas.lut["name"]]
    for region in regions:
        wanted = region.strip().lower()
        chosen = atlas.lut["name"].str.lower() == wanted
        if not chosen.any():
            chosen = np.array([base == wanted for base in bases])
        if not chosen.any():
            known = list(dict.fromkeys(name_without_side(name) for name in atlas.lut["name"]))
            near = difflib.get_close_matches(region, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "; Atlas.lut lists the names"
            raise AtlasError(f"{atlas.name}: has no region {region!r}{hint}")
        labels = tuple(int(index) for index in atlas.lut.loc[chosen, "index"])
        for other, taken in found.items():
            if set(labels) & set(taken):
                raise AtlasError(f"{atlas.name}: {other} and {region} share a label; leave one of them out")
        found[region.strip()] = labels
    return found


def regions_with_rest(atlas: Atlas, chosen: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The chosen regions, followed by all other regions of the atlas with left and right merged."""
    taken = {label for labels in chosen.values() for label in labels}
    regions = dict(chosen)
    for row in atlas.lut.itertuples():
        if int(row.index) not in taken:
            name = name_without_side(str(row.name))
            name = f"{name} (other part)" if name in chosen else name
            regions[name] = (*regions.get(name, ()), int(row.index))
    return regions


def numbered_regions(atlas: Atlas, regions: dict[str, tuple[int, ...]], grid: Grid) -> np.ndarray:
    """Regions on a grid as one label image: 1 for the first region, 0 for voxels of none.

    Returns
    -------
    int ndarray of the shape of the grid
    """
    labels = atlas.on_grid(grid)
    numbered = np.zeros(labels.shape, int)
    for number, own in enumerate(regions.values(), 1):
        numbered[np.isin(labels, own)] = number
    return numbered

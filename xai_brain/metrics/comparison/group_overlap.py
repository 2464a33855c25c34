"""Overlap of group maps with the voxel-wise test of the images, and with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.integrate import trapezoid

from xai_brain.metrics.comparison.agreement import agreement, compare, rank_map

PERCENTS = tuple(range(1, 51))


def group_overlap(
    group_map: np.ndarray, reference: np.ndarray, random_state: int = 0
) -> list[dict[str, Any]]:
    """Dice of the strongest voxels of two group maps, the area under its curve, and Spearman's rho.

    Parameters
    ----------
    group_map, reference : ndarray of shape (n_brain,)
        Compared by absolute value.
    random_state : int, default 0
        Order of equal values.

    Returns
    -------
    list of dict
        metric (``dice`` at 1, 2, ..., 50 %, ``dice_auc``, ``spearman``), top_percent, value, and chance,
        the expected value for a random map. ``dice_auc`` is the mean of the curve from 1 to 50 % (trapezoidal
        rule). The list is empty if one of the maps is empty.

    Notes
    -----
    The values of two unrelated smooth maps vary around the chance level much more than those of two maps
    with independent voxels.

    References
    ----------
    Wang D, Honnorat N, Fox PT, et al. Deep neural network heatmaps capture Alzheimer's disease patterns
    reported in a large meta-analysis of neuroimaging studies. NeuroImage 2023;269:119929.
    """
    found = [
        row
        for row in agreement(group_map, reference, len(group_map), PERCENTS, random_state)
        if row["metric"] in ("dice", "spearman")
    ]
    if not found:
        return []
    curve = np.array([(r["top_percent"], r["value"], r["chance"]) for r in found if r["metric"] == "dice"])
    span = curve[-1, 0] - curve[0, 0]
    value, chance = (float(trapezoid(curve[:, i], curve[:, 0]) / span) for i in (1, 2))
    return [*found, {"metric": "dice_auc", "top_percent": None, "value": value, "chance": chance}]


def group_agreement(
    group_maps: Mapping[str, np.ndarray], n_voxels: int, top_percents: Sequence[float], random_state: int = 0
) -> list[dict[str, Any]]:
    """Agreement of the group maps of two methods, for every pair of methods.

    Parameters
    ----------
    group_maps : mapping of method to ndarray of shape (n_brain,)
        E.g. the t maps of one difference of classes.
    n_voxels : int
        Voxels of the whole image.
    top_percents : sequence of float
    random_state : int, default 0
        Order of equal values.

    Returns
    -------
    list of dict
        method_a, method_b and the columns of `xai_brain.metrics.comparison.agreement.compare`.
        Empty maps are excluded.
    """
    maps = {name: rank_map(values, random_state + i) for i, (name, values) in enumerate(group_maps.items())}
    return [
        {"method_a": a, "method_b": b, **found}
        for a, b in combinations(maps, 2)
        for found in compare(maps[a], maps[b], n_voxels, top_percents)
    ]

"""Agreement of two maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from xai_brain.metrics.localization import ranked


@dataclass(frozen=True)
class RankedMap:
    """Ranks of the absolute values of a map, computed once for all comparisons.

    Parameters
    ----------
    place : int ndarray of shape (n_brain,)
        Position in the order of |value|, 0 for the highest voxel; equal values in random order.
    ranks : ndarray of shape (n_brain,)
        Mid-ranks with mean 0 and norm 1; NaN for a constant map.
    direction : ndarray of shape (n_brain,)
        The signed values with norm 1; 0 for an empty map.
    empty : bool
    """

    place: np.ndarray
    ranks: np.ndarray
    direction: np.ndarray
    empty: bool


def rank_map(values: np.ndarray, random_state: int = 0) -> RankedMap:
    """Rank one map.

    Parameters
    ----------
    values : ndarray of shape (n_brain,)
        Raw, signed values; all results except the direction use absolute values.
    random_state : int, default 0
        Order of equal values; use different seeds for two maps that are compared.
    """
    signed = values.astype(np.float64)
    values = np.abs(signed)
    signed /= values.max() or 1  # squares of small gradients would be 0
    direction = signed / (np.linalg.norm(signed) or 1)
    place = np.empty(len(values), np.int64)
    place[ranked(values, random_state)] = np.arange(len(values))
    ranks = rankdata(values)
    ranks -= ranks.mean()
    norm = np.linalg.norm(ranks)
    ranks = ranks / norm if norm > 0 else np.full(len(values), np.nan)
    return RankedMap(place, ranks, direction, not values.any())


def agreement(
    a: np.ndarray, b: np.ndarray, n_voxels: int, top_percents: Sequence[float], random_state: int = 0
) -> Iterator[dict[str, Any]]:
    """Compare two maps inside the brain; see `compare`.

    Parameters
    ----------
    a, b : ndarray of shape (n_brain,)
        Values of the two maps at the voxels of the brain.
    n_voxels : int
        Voxels of the whole image.
    top_percents : sequence of float
    random_state : int, default 0
    """
    yield from compare(rank_map(a, random_state), rank_map(b, random_state + 1), n_voxels, top_percents)


def compare(
    a: RankedMap, b: RankedMap, n_voxels: int, top_percents: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """Overlap of the highest voxels of two maps; no value for an empty map.

    Parameters
    ----------
    a, b : RankedMap
        Maps of the same voxels.
    n_voxels : int
        Voxels of the whole image; only ``voxel_agreement`` counts those outside the brain.
    top_percents : sequence of float
        Percentages k; each map is thresholded at its highest k % of the brain.

    Yields
    ------
    dict
        metric, top_percent (None for spearman and cosine), value, chance (expectation for random maps).

    Notes
    -----
    All metrics use absolute values except ``cosine``, which is -1 for maps of opposite sign. The chance level
    of the cosine is the exact expectation if the voxels of one map are permuted in the brain; it is above 0
    for maps without negative values.

    ``voxel_agreement``, called Dice by Kan et al. 2020, is the share of all voxels of the image, including
    the background, in which two binary maps agree. It is high even for maps that do not overlap.
    """
    if a.empty or b.empty:
        return
    n = len(a.place)
    worse = np.maximum(a.place, b.place)  # below k if a voxel is among the first k of both maps
    for percent in top_percents:
        k = max(round(n * percent / 100), 1)
        share = k / n
        common = int(np.count_nonzero(worse < k))
        # 2 #(x == y) / 2N, with x and y 1 at their k highest voxels
        same = 1 - 2 * (k - common) / n_voxels
        expected_same = 1 - 2 * (k - k * share) / n_voxels
        yield {"metric": "dice", "top_percent": percent, "value": common / k, "chance": share}
        iou, expected_iou = common / (2 * k - common), share / (2 - share)
        yield {"metric": "iou", "top_percent": percent, "value": iou, "chance": expected_iou}
        yield {"metric": "voxel_agreement", "top_percent": percent, "value": same, "chance": expected_same}
    yield {"metric": "spearman", "top_percent": None, "value": float(a.ranks @ b.ranks), "chance": 0.0}
    by_chance = n * float(a.direction.mean() * b.direction.mean())
    cosine = float(a.direction @ b.direction)
    yield {"metric": "cosine", "top_percent": None, "value": cosine, "chance": by_chance}


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; NaN if a map is constant."""
    rank_a, rank_b = rankdata(a), rankdata(b)
    if rank_a.std() == 0 or rank_b.std() == 0:
        return float("nan")
    return float(np.corrcoef(rank_a, rank_b)[0, 1])

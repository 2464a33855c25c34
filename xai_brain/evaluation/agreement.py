"""Whether two maps say the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from xai_brain.evaluation.localization import ranked


def agreement(
    a: np.ndarray, b: np.ndarray, n_voxels: int, top_percents: Sequence[float], random_state: int = 0
) -> Iterator[dict[str, Any]]:
    """Compare two maps inside the brain, by absolute value.

    Parameters
    ----------
    a, b : ndarray of shape (n_brain,)
        Values of the two maps at the voxels of the brain.
    n_voxels : int
        Voxels of the whole image; only ``voxel_agreement`` counts those outside the brain.
    top_percents : sequence of float
        Both maps are cut at their own highest k % of the brain.
    random_state : int, default 0
        Order of equal values; different for the two maps.

    Yields
    ------
    dict
        metric, top_percent (None for spearman), value, chance (expectation of two random maps).

    Notes
    -----
    ``voxel_agreement`` is what Kan et al. 2020 call Dice: the share of voxels of the image, background
    included, on which two binary maps agree. It is high for maps without a voxel in common.
    """
    a, b = np.abs(a).astype(np.float64), np.abs(b).astype(np.float64)
    if not a.any() or not b.any():
        return
    n = len(a)
    order_a, order_b = ranked(a, random_state), ranked(b, random_state + 1)
    for percent in top_percents:
        k = max(round(n * percent / 100), 1)
        share = k / n
        common = np.intersect1d(order_a[:k], order_b[:k], assume_unique=True).size
        # 2 #(x == y) / 2N, with x and y 1 at their k highest voxels
        same = 1 - 2 * (k - common) / n_voxels
        expected_same = 1 - 2 * (k - k * share) / n_voxels
        yield {"metric": "dice", "top_percent": percent, "value": common / k, "chance": share}
        iou, expected_iou = common / (2 * k - common), share / (2 - share)
        yield {"metric": "iou", "top_percent": percent, "value": iou, "chance": expected_iou}
        yield {"metric": "voxel_agreement", "top_percent": percent, "value": same, "chance": expected_same}
    yield {"metric": "spearman", "top_percent": None, "value": spearman(a, b), "chance": 0.0}


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; NaN when a map is constant."""
    rank_a, rank_b = rankdata(a), rankdata(b)
    if rank_a.std() == 0 or rank_b.std() == 0:
        return float("nan")
    return float(np.corrcoef(rank_a, rank_b)[0, 1])

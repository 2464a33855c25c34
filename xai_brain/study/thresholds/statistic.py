"""Maximum statistics of maps, and thresholds that control the family-wise error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

STATISTICS = {
    "max": "|map| / root mean square",
    "extent": "mm³ of the largest cluster",
    "mass": "excess of the heaviest cluster × mm³",
}
NEIGHBOURS = np.ones((3, 3, 3))  # faces, edges and corners


def voxel_mm3(affine: np.ndarray) -> float:
    """Volume of a voxel, mm³, from the matrix (4, 4) of voxels to mm."""
    return abs(float(np.linalg.det(affine[:3, :3])))


def normalised(values: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """|map| divided by its root mean square in the brain; 0 outside, and for an empty map.

    The maximum is not used as the divisor: it would be 1 in every map.

    Parameters
    ----------
    values : ndarray of shape (X, Y, Z)
    brain : ndarray of shape (X, Y, Z), bool
    """
    sizes = np.where(brain, np.abs(values.astype(np.float64)), 0.0)
    peak = sizes.max()
    if peak == 0:
        return sizes
    sizes /= peak  # squares of very small values would be 0
    return sizes / np.sqrt((sizes[brain] ** 2).mean())


def map_statistics(
    values: np.ndarray, brain: np.ndarray, voxel_mm3: float, cluster_forming: float
) -> dict[str, float]:
    """Maximum over the brain, and extent and mass of the largest clusters, of a normalised map.

    Parameters
    ----------
    values : ndarray of shape (X, Y, Z)
        Raw map.
    brain : ndarray of shape (X, Y, Z), bool
    voxel_mm3 : float
        Volume of a voxel.
    cluster_forming : float
        Clusters are connected voxels (26 neighbours) whose normalised value exceeds this.

    Returns
    -------
    dict of str to float
        The names of `STATISTICS`.
    """
    sizes = normalised(values, brain)
    labels, n = ndimage.label(sizes > cluster_forming, NEIGHBOURS)
    if not n:
        return {"max": float(sizes.max()), "extent": 0.0, "mass": 0.0}
    numbers = np.arange(1, n + 1)
    extent = ndimage.sum_labels(np.ones_like(sizes), labels, numbers)
    mass = ndimage.sum_labels(sizes - cluster_forming, labels, numbers)
    return {
        "max": float(sizes.max()),
        "extent": float(extent.max() * voxel_mm3),
        "mass": float(mass.max() * voxel_mm3),
    }


def above_threshold(
    values: np.ndarray,
    brain: np.ndarray,
    voxel_mm3: float,
    cluster_forming: float,
    statistic: str,
    threshold: float,
) -> np.ndarray:
    """Voxels of a map whose value, or whose cluster, exceeds a threshold; (X, Y, Z) bool."""
    sizes = normalised(values, brain)
    if statistic == "max":
        return sizes > threshold
    labels, n = ndimage.label(sizes > cluster_forming, NEIGHBOURS)
    of_voxel = np.ones_like(sizes) if statistic == "extent" else sizes - cluster_forming
    size = ndimage.sum_labels(of_voxel, labels, np.arange(n + 1)) * voxel_mm3
    size[0] = 0
    return (size > threshold)[labels]


def corrected_threshold(of_networks: Sequence[np.ndarray], alpha: float) -> float:
    """Value that the maximum statistic of a map exceeds with a probability of at most alpha under the null.

    The exchangeable units are the K networks that were trained on permuted labels and the network itself.
    Therefore every permuted network has the weight 1 / (K + 1), divided among its maps, and the remaining
    weight lies at infinity.

    Parameters
    ----------
    of_networks : sequence of ndarray
        The statistic of the maps of each permuted network.
    alpha : float

    Raises
    ------
    ValueError
        There are fewer than 1 / alpha - 1 networks.
    """
    n = len(of_networks) + 1
    if 1 / n > alpha * (1 + 1e-9):
        raise ValueError(f"{n - 1} permuted networks cannot control an error of {alpha:g}")
    values = np.concatenate(of_networks)
    weights = np.concatenate([np.full(len(each), 1 / (n * len(each))) for each in of_networks])
    order = np.argsort(values)[::-1]
    values, weights = values[order], weights[order]
    first = np.r_[True, values[1:] < values[:-1]]  # of equal values
    beyond = 1 / n + np.r_[0.0, np.cumsum(weights)[:-1]]  # weight of all larger values, and of infinity
    allowed = first & (beyond <= alpha * (1 + 1e-9))
    return float(values[allowed][-1])


def corrected_p(value: float, of_networks: Sequence[np.ndarray]) -> float:
    """Weight of permuted networks whose statistic is at least as large, with that at infinity."""
    n = len(of_networks) + 1
    return 1 / n + sum(float((each >= value).mean()) for each in of_networks) / n

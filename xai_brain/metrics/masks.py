"""Masks of a given size: top-ranked voxels of a map, random masks of the same smoothness, regions."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

from xai_brain.metrics.comparison.regions import region_means
from xai_brain.metrics.localization import ranked

MOST_CORRELATED = 0.9999  # of neighbours: a Gaussian of 50 voxels


def rank_voxels(values: np.ndarray, brain_mask: np.ndarray, random_state: int = 0) -> np.ndarray:
    """Rank of each voxel of the brain in a map.

    Parameters
    ----------
    values : ndarray of shape (X, Y, Z)
        Raw, signed values; their absolute values are ranked.
    brain_mask : bool ndarray of shape (X, Y, Z)
    random_state : int, default 0
        Order of equal values.

    Returns
    -------
    int32 ndarray of shape (X, Y, Z)
        1 for the highest voxel; 0 outside of the brain.
    """
    order = ranked(np.abs(values[brain_mask]).astype(np.float64), random_state)
    return _numbered(order, brain_mask)


def region_places(
    values: np.ndarray, labels: np.ndarray, brain_mask: np.ndarray, random_state: int = 0
) -> np.ndarray:
    """Rank of each voxel by regions, starting with the region with the highest mean absolute value.

    Inside a region, voxels are ordered by their distance from its centre, so that a mask that ends within a
    region is compact and does not depend on the map there. Voxels without a region have no rank.

    Parameters
    ----------
    values : ndarray of shape (X, Y, Z)
    labels : int ndarray of shape (X, Y, Z)
        Region of each voxel; 0 is no region.
    brain_mask : bool ndarray of shape (X, Y, Z)
    random_state : int, default 0
        Order of regions with equal means.

    Returns
    -------
    int32 ndarray of shape (X, Y, Z)
        1 for the first voxel; 0 outside of all regions and of the brain.
    """
    inside = brain_mask & (labels != 0)
    regions, means = region_means(np.abs(values[inside]).astype(np.float64), labels[inside])
    turn = np.empty(len(regions), np.int64)
    turn[ranked(means, random_state)] = np.arange(len(regions))
    number = np.searchsorted(regions, labels[inside])
    voxels = np.argwhere(inside).astype(np.float64)
    sizes = np.bincount(number, minlength=len(regions))
    centres = np.stack([np.bincount(number, axis, len(regions)) / sizes for axis in voxels.T], 1)
    distance = ((voxels - centres[number]) ** 2).sum(1)
    return _numbered(np.lexsort((distance, turn[number])), inside)


def _numbered(order: np.ndarray, inside: np.ndarray) -> np.ndarray:
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(1, len(order) + 1)
    found = np.zeros(inside.shape, np.int32)
    found[inside] = number
    return found


def top_k_mask(place: np.ndarray, n_voxels: int) -> np.ndarray:
    """Mask of the voxels with the first ranks, (X, Y, Z) bool."""
    return (place > 0) & (place <= n_voxels)


def voxels_of(area_percent: float, brain_mask: np.ndarray) -> int:
    """Number of voxels of a mask with a given area in percent of the brain; at least one."""
    return max(round(int(brain_mask.sum()) * area_percent / 100), 1)


def mask_smoothness(mask: np.ndarray, brain_mask: np.ndarray) -> tuple[float, float, float]:
    """Smoothness of the random field whose highest voxels form masks with the same surface.

    Parameters
    ----------
    mask, brain_mask : bool ndarray of shape (X, Y, Z)

    Returns
    -------
    tuple of 3 float
        Standard deviation in voxels along each axis of the Gaussian that smooths white noise to such a
        field; 0 where neighbours are independent. FWHM is 2.355 times that.

    Notes
    -----
    The model is a normal field that exceeds a threshold inside the mask. The share of neighbouring pairs in
    the mask gives the tetrachoric correlation r of neighbours; white noise that is smoothed with standard
    deviation s has r = exp(-1 / 4 s²) at a distance of one voxel. Masks of the field therefore have the size
    and surface of the given mask, for any distribution of the values of the map.

    References
    ----------
    Pearson, "On the correlation of characters not quantitatively measurable", Phil. Trans. R. Soc. A
    195:1-47, 1900.
    """
    found = []
    for axis in range(3):
        here = tuple(slice(None, -1) if k == axis else slice(None) for k in range(3))
        there = tuple(slice(1, None) if k == axis else slice(None) for k in range(3))
        pair = brain_mask[here] & brain_mask[there]
        first, second = mask[here][pair], mask[there][pair]
        correlation = _tetrachoric((first.mean() + second.mean()) / 2, (first & second).mean())
        found.append(np.sqrt(-1 / (4 * np.log(correlation))) if correlation > 0 else 0.0)
    x, y, z = map(float, found)
    return x, y, z


def _tetrachoric(share: float, both: float) -> float:
    """Correlation of two normal variables with probabilities `share` and `both` of exceeding a threshold."""
    if not 0 < share < 1 or both <= share**2:
        return 0.0
    u = norm.isf(share)

    def excess(r: float) -> float:
        return float(multivariate_normal.cdf([-u, -u], cov=[[1, r], [r, 1]])) - both

    return MOST_CORRELATED if excess(MOST_CORRELATED) <= 0 else float(brentq(excess, 0, MOST_CORRELATED))


def random_mask(
    brain_mask: np.ndarray, n_voxels: int, sigma_voxels: tuple[float, float, float], seed: int | list[int]
) -> np.ndarray:
    """The highest voxels of smooth noise in the brain: the mask of a map without information.

    Parameters
    ----------
    brain_mask : bool ndarray of shape (X, Y, Z)
    n_voxels : int
    sigma_voxels : tuple of 3 float
        From `mask_smoothness`.
    seed : int or list of int

    Returns
    -------
    bool ndarray of shape (X, Y, Z)
        With exactly `n_voxels` voxels, all of them in the brain.
    """
    noise = np.random.default_rng(seed).standard_normal(brain_mask.shape)
    field = gaussian_filter(noise, sigma_voxels, mode="wrap")  # the variance is the same at the edges
    order = np.argsort(-field[brain_mask], kind="stable")
    return top_k_mask(_numbered(order, brain_mask), n_voxels)

"""Similarity of two maps of one participant: ranks and structure."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from xai_brain.metrics.comparison.agreement import spearman

SIGMA_VOXELS, TRUNCATE = 1.5, 3.5  # of the Gaussian window: 11 voxels wide, as published
K1, K2 = 0.01, 0.03
SCALE_QUANTILE = 0.995


def similarity(original: np.ndarray, other: np.ndarray, brain_mask: np.ndarray) -> dict[str, float]:
    """Compare the absolute values of two maps in the brain.

    Parameters
    ----------
    original, other : ndarray of shape (X, Y, Z)
    brain_mask : bool ndarray of shape (X, Y, Z)

    Returns
    -------
    dict
        ``spearman`` and ``ssim``, the mean over the brain of `ssim_map` of the maps scaled by `scaled`. 1 for
        equal maps and for multiples of each other. NaN if `original` is constant in the brain. If only
        `other` is constant, Spearman is 0.
    """
    by_rank = rank_similarity(original, other, brain_mask)
    if np.isnan(by_rank):
        return {"spearman": np.nan, "ssim": np.nan}
    structure = ssim_map(scaled(original, brain_mask), scaled(other, brain_mask))
    return {"spearman": by_rank, "ssim": float(structure[brain_mask].mean())}


def rank_similarity(original: np.ndarray, other: np.ndarray, brain_mask: np.ndarray) -> float:
    """The ``spearman`` of `similarity`."""
    a, b = np.abs(original[brain_mask]), np.abs(other[brain_mask])
    if np.ptp(a) == 0:
        return float("nan")
    return spearman(a, b) if np.ptp(b) > 0 else 0.0


def scaled(attribution: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    """Absolute value divided by its own 99.5th percentile in the brain, at most 1; 0 outside of the brain.

    Single voxels of gradient maps exceed all others by far, so that the maximum is not a suitable scale. The
    maximum is used if less than 0.5 % of the brain is not 0.
    """
    values = np.where(brain_mask, np.abs(attribution), 0).astype(np.float64)
    high = np.quantile(values[brain_mask], SCALE_QUANTILE) or values.max()
    return np.minimum(values / high, 1) if high > 0 else values


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity around each voxel of two images with values from 0 to 1.

    Parameters
    ----------
    a, b : ndarray of shape (X, Y, Z)

    Returns
    -------
    ndarray of shape (X, Y, Z)
        At most 1.

    References
    ----------
    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004.
    """

    def local_mean(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, SIGMA_VOXELS, truncate=TRUNCATE)

    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a, variance_b = local_mean(a * a) - mean_a**2, local_mean(b * b) - mean_b**2
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = K1**2, K2**2
    same_brightness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return same_brightness * (2 * covariance + c2) / (variance_a + variance_b + c2)


def ssim_of_chance(original: np.ndarray, brain_mask: np.ndarray, random_state: int = 0) -> float:
    """Chance level of SSIM: a map compared with the same values at random voxels of the brain.

    It is above 0 in regions where both maps are nearly empty, and therefore higher for sparse maps.

    Parameters
    ----------
    original : ndarray of shape (X, Y, Z)
    brain_mask : bool ndarray of shape (X, Y, Z)
    random_state : int, default 0
    """
    shuffled = np.zeros(original.shape)
    shuffled[brain_mask] = np.random.default_rng(random_state).permutation(original[brain_mask])
    return similarity(original, shuffled, brain_mask)["ssim"]

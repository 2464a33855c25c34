"""Features from prepared volumes: means of blocks of voxels inside the brain."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted, validate_data


def block_means(volume: np.ndarray, block_voxels: int) -> np.ndarray:
    """Means of cubes of voxels; blocks at the upper ends of the axes may be smaller.

    Parameters
    ----------
    volume : ndarray of shape (X, Y, Z)
    block_voxels : int
        Edge of a cube.

    Returns
    -------
    ndarray of shape (ceil(X / block_voxels), ceil(Y / block_voxels), ceil(Z / block_voxels))
    """
    total, count = np.asarray(volume, np.float64), np.ones((1, 1, 1))
    for axis, length in enumerate(volume.shape):
        starts = np.arange(0, length, block_voxels)
        total = np.add.reduceat(total, starts, axis=axis)
        sizes = np.diff(np.append(starts, length))
        count = count * sizes.reshape([-1 if k == axis else 1 for k in range(3)])
    return total / count


def voxel_features(volume_paths: Iterable[str | Path], block_voxels: int = 2) -> np.ndarray:
    """Block means of prepared volumes, float32 (n_images, n_blocks)."""
    rows = [block_means(np.load(path), block_voxels).astype(np.float32).ravel() for path in volume_paths]
    return np.stack(rows)


class BrainVoxels(SelectorMixin, BaseEstimator):
    """Select the features inside the brain of at least a share of the training participants.

    Prepared volumes are exactly 0 outside the brain.

    Parameters
    ----------
    min_share : float, default 0.5
    """

    def __init__(self, min_share: float = 0.5):
        self.min_share = min_share

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> BrainVoxels:
        X = validate_data(self, X)
        self.support_ = ((X != 0).mean(0) >= self.min_share) & (np.ptp(X, axis=0) > 0)
        if not self.support_.any():
            raise ValueError("no voxel lies in the brain of enough training subjects and varies among them")
        return self

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self)
        return self.support_

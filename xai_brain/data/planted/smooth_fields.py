"""Smooth random fields on a grid, reproducible between machines."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from xai_brain.io.nifti import Grid


def smooth_fields(rng: np.random.Generator, grid: Grid, spacing_mm: float, n_fields: int) -> np.ndarray:
    """Random C2 fields of about unit variance.

    Parameters
    ----------
    rng : numpy.random.Generator
    grid : Grid
    spacing_mm : float
        Distance of the control points of the cubic B-splines.
    n_fields : int

    Returns
    -------
    ndarray of shape (n_fields, X, Y, Z), float32
    """
    x, y, z = _spline_bases(grid.shape, tuple(grid.spacing_mm), spacing_mm)
    control = rng.standard_normal((n_fields, x.shape[1], y.shape[1], z.shape[1]), np.float32)
    # pairwise einsum without BLAS, whose threads may change the last digits
    fields = np.einsum("ia,nabc->nibc", x, control)
    fields = np.einsum("jb,nibc->nijc", y, fields)
    fields = np.einsum("kc,nijc->nijk", z, fields)
    return fields / 0.479**1.5  # 0.479: sum of squared weights of one axis, mean over positions


@lru_cache(maxsize=8)
def _spline_bases(
    shape: tuple[int, ...], spacings_mm: tuple[float, ...], spacing_mm: float
) -> list[np.ndarray]:
    """Cubic B-splines at the voxels of each axis, (n_voxels, n_control_points)."""
    bases = []
    for n_voxels, voxel_mm in zip(shape, spacings_mm, strict=True):
        position = np.arange(n_voxels) * voxel_mm / spacing_mm
        control = np.arange(-1, np.ceil(position[-1]) + 2)
        x = np.abs(position[:, None] - control)
        weights = np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, np.clip(2 - x, 0, None) ** 3 / 6)
        bases.append(weights.astype(np.float32))
    return bases

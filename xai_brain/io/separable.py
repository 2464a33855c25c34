"""Resampling between grids whose axes are parallel: one small banded matrix per axis.

Smoothing, interpolation and the zeros outside the image are linear and act on each axis separately, so that a
row of a matrix contains all weights of one target voxel. The products are computed in slabs that fit into the
processor cache. No torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

OFF_AXIS_VOXELS = 1e-3  # smaller displacements over the whole grid are rounding errors of a header
SLAB_BYTES = 2**21
BLOCK = 16  # target voxels per dense block; larger blocks contain more zeros


class Band(NamedTuple):
    """A block of neighbouring target voxels and the source voxels that they depend on."""

    target: slice
    source: slice
    weights: np.ndarray  # (n_target, n_source) float32


class AxisMap(NamedTuple):
    """Resampling of one axis of the image to an axis of the grid."""

    grid_axis: int
    n_target: int
    bands: list[Band]


def parallel_axes(
    to_img: np.ndarray, shape: tuple[int, ...], grid_shape: tuple[int, ...], sigma_voxels: np.ndarray
) -> list[AxisMap] | None:
    """Matrices of the three axes of an image, or None if its axes are oblique to those of the grid.

    Parameters
    ----------
    to_img : ndarray of shape (4, 4)
        Grid voxel to image voxel.
    shape, grid_shape : tuple of 3 int
    sigma_voxels : ndarray of shape (3,)
        Standard deviation of the Gaussian before interpolation, per image axis; 0: no smoothing.
    """
    reach = np.abs(to_img[:3, :3]) * (np.array(grid_shape) - 1)  # (image axis, grid axis)
    grid_axes = np.abs(to_img[:3, :3]).argmax(1)
    reach[np.arange(3), grid_axes] = 0
    if len(set(grid_axes)) < 3 or reach.sum(1).max() > OFF_AXIS_VOXELS:
        return None
    maps = []
    for axis, grid_axis in enumerate(grid_axes):
        positions = to_img[axis, grid_axis] * np.arange(grid_shape[grid_axis]) + to_img[axis, 3]
        matrix = _axis_matrix(positions, shape[axis], float(sigma_voxels[axis]))
        maps.append(AxisMap(int(grid_axis), grid_shape[grid_axis], _bands(matrix)))
    return maps


def _axis_matrix(positions: np.ndarray, n_source: int, sigma: float) -> np.ndarray:
    """Gaussian smoothing, then linear interpolation along one axis; 0 outside the image."""
    source = np.arange(n_source)
    matrix = np.clip(1 - np.abs(positions[:, None] - source), 0, None)  # (n_target, n_source)
    if sigma > 0:
        distance = np.abs(source[:, None] - source)
        radius = int(4 * sigma + 0.5)  # as scipy.ndimage.gaussian_filter
        norm = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).sum()
        matrix = matrix @ np.where(distance <= radius, np.exp(-0.5 * (distance / sigma) ** 2) / norm, 0)
    return matrix.astype(np.float32)


def _bands(matrix: np.ndarray) -> list[Band]:
    bands = []
    for start in range(0, len(matrix), BLOCK):
        target = slice(start, min(start + BLOCK, len(matrix)))
        used = np.flatnonzero(matrix[target].any(0))
        if used.size:
            source = slice(int(used[0]), int(used[-1]) + 1)
            bands.append(Band(target, source, np.ascontiguousarray(matrix[target, source])))
    return bands


def resample(data: np.ndarray, maps: list[AxisMap]) -> np.ndarray:
    """Resample a volume with the matrices of its axes.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z)
        Numbers or bool.
    maps : list of AxisMap
        From `parallel_axes`.

    Returns
    -------
    ndarray of the shape of the grid, float32
    """
    order = np.argsort(np.abs(data.strides))[::-1]  # slowest axis in memory first
    slow, middle, fast = (maps[axis] for axis in order)
    memory = data.transpose(order)
    rows = np.zeros((len(memory), middle.n_target, fast.n_target), np.float32)
    thickness = max(1, SLAB_BYTES // (4 * memory[0].size))
    for start in range(0, len(memory), thickness):
        slab = memory[start : start + thickness]
        rows[start : start + len(slab)] = _along_middle(_along_fast(slab, fast), middle)
    result = _product(rows.reshape(len(rows), -1), slow).reshape(slow.n_target, *rows.shape[1:])
    axes = [slow.grid_axis, middle.grid_axis, fast.grid_axis]
    return np.ascontiguousarray(result.transpose(np.argsort(axes)))


def _along_fast(slab: np.ndarray, axis: AxisMap) -> np.ndarray:
    slab = slab.astype(np.float32, copy=False)
    flat = slab.reshape(-1, slab.shape[-1])  # (n x Y, X)
    out = np.zeros((len(flat), axis.n_target), np.float32)
    for band in axis.bands:
        np.matmul(flat[:, band.source], band.weights.T, out=out[:, band.target])
    return out.reshape(*slab.shape[:2], axis.n_target)


def _along_middle(slab: np.ndarray, axis: AxisMap) -> np.ndarray:
    out = np.zeros((len(slab), axis.n_target, slab.shape[-1]), np.float32)
    for band in axis.bands:
        np.matmul(band.weights, slab[:, band.source], out=out[:, band.target])
    return out


def _product(rows: np.ndarray, axis: AxisMap) -> np.ndarray:
    out = np.zeros((axis.n_target, rows.shape[-1]), np.float32)
    for band in axis.bands:
        np.matmul(band.weights, rows[band.source], out=out[band.target])
    return out

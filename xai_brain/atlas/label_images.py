"""Label images: exact reading, centroids of labels, and resampling to another grid. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from xai_brain.io.nifti_header import ImageError, cannot_be_read, open_img, refuse_unknown_orientation

FOUR_D = (
    "is probabilistic (one volume per region), a single 3-D image of labels is needed; use the "
    "maximum-probability image of the atlas (FSL: ...-maxprob-thr25-2mm)"
)


def read_labels(
    labels_img: str | Path | nib.Nifti1Image, name: str = "atlas", orientation: str | None = None
) -> nib.Nifti1Image:
    """Read a label image as integers of any size; float32 would round labels above 2^24.

    Parameters
    ----------
    labels_img : path or image
        3-D, whole numbers; NaN is background.
    name : str, default "atlas"
        For messages about an image without a path.
    orientation : str, optional
        Orientation of a file that states none, see `xai_brain.io.nifti_header.open_img`.

    Returns
    -------
    nibabel.Nifti1Image
        int32, or int64 for larger labels.

    Raises
    ------
    ImageError
        The file cannot be read, is probabilistic (4-D), contains fractions or negative numbers, or states
        no orientation and none is given.
    """
    where = labels_img if isinstance(labels_img, str | Path) else name
    try:
        if isinstance(labels_img, str | Path):
            img: Any = open_img(labels_img, orientation)
        else:
            img = labels_img
            refuse_unknown_orientation(img, name)
    except ImageError as error:
        if "3-D volume" in error.reason:
            raise ImageError(where, FOUR_D) from error
        raise
    try:
        values = np.asanyarray(img.dataobj)
    except Exception as error:  # nibabel, zlib and the OS raise different errors for a damaged file
        raise ImageError(where, cannot_be_read(error)) from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise ImageError(where, FOUR_D)
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), 0, values)
        if (broken := values[~(np.isfinite(values) & (values == np.round(values)))]).size:
            raise ImageError(
                where,
                f"contains {broken[0]:g}, which is not a label; if it was resampled, use nearest neighbour",
            )
    lowest, highest = values.min(), values.max()
    if lowest < 0 or highest >= 2**53:
        reason = "labels begin at 1, 0 is background" if lowest < 0 else "which is too large"
        label = lowest if lowest < 0 else highest
        raise ImageError(where, f"contains the label {label:g}; {reason}: renumber the labels")
    dtype = np.int32 if highest < 2**31 else np.int64
    return nib.Nifti1Image(values.astype(dtype), img.affine, dtype=dtype)


def centroids(labels_img: nib.Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """Labels in an image and their centroids.

    Parameters
    ----------
    labels_img : nibabel.Nifti1Image
        From `read_labels`.

    Returns
    -------
    codes : ndarray of shape (n_labels,), int64
        Ascending, without 0.
    centroids_mm : ndarray of shape (n_labels, 3)
        Mean position of the voxels of each label, RAS+ mm.
    """
    labels = np.asanyarray(labels_img.dataobj)
    places = np.nonzero(labels)
    codes, which, counts = np.unique(labels[places], return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(which, place) for place in places], 1) / counts[:, None]
    return codes.astype(np.int64), nib.affines.apply_affine(labels_img.affine, means.reshape(-1, 3))


def labels_on_grid(
    labels_img: nib.Nifti1Image, shape: tuple[int, ...], grid_affine: np.ndarray
) -> np.ndarray:
    """Most frequent label in each voxel of a grid, sampled at points as dense as the voxels of the atlas.

    Parameters
    ----------
    labels_img : nibabel.Nifti1Image
        From `read_labels`.
    shape : tuple of 3 int
    grid_affine : ndarray of shape (4, 4)
        Voxel to world, RAS+ mm.

    Returns
    -------
    ndarray of `shape`, int64
        0 outside the image; the lowest of labels with equally many points.
    """
    labels = np.asanyarray(labels_img.dataobj)
    to_atlas = np.linalg.inv(labels_img.affine) @ grid_affine
    # number of sampling points along each axis of a grid voxel: the atlas voxels that it crosses
    n_points = np.ceil(np.abs(to_atlas[:3, :3]).max(0) - 1e-3).clip(1).astype(int)
    offsets = [(np.arange(n) + 0.5) / n - 0.5 for n in n_points]
    offsets_voxels = np.stack(np.meshgrid(*offsets, indexing="ij"), -1).reshape(-1, 3) @ to_atlas[:3, :3].T
    padded = np.pad(labels, 1)  # points outside the image lie in the padding
    codes, coded = np.unique(padded, return_inverse=True)
    coded = coded.reshape(padded.shape)
    n_plane = shape[1] * shape[2]
    plane = np.stack(np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij"), -1).reshape(-1, 2)
    result = np.empty((shape[0], n_plane), np.int64)
    for x in range(shape[0]):
        centres = to_atlas[:3, 0] * x + plane @ to_atlas[:3, 1:3].T + to_atlas[:3, 3]  # (n_plane, 3)
        points = np.floor(centres + offsets_voxels[:, None] + 0.5).astype(int) + 1  # (n_points, n_plane, 3)
        i, j, k = (points[..., a].clip(0, coded.shape[a] - 1) for a in range(3))
        found = coded[i, j, k]
        votes = np.bincount((found + len(codes) * np.arange(n_plane)).ravel(), minlength=len(codes) * n_plane)
        result[x] = codes[votes.reshape(n_plane, len(codes)).argmax(1)]
    return result.reshape(shape)

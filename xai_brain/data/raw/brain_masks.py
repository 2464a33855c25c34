"""Brain voxels of a T1-weighted image: its brain mask, or all voxels that are not background."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from xai_brain.io.nifti import ImageError, same_grid

MOST_BRAIN = 0.8  # an image with a larger share of other voxels than background is not skull-stripped
MIN_FACE_SHARE = 0.5  # smallest share of voxels on the outer faces with a background value
ROUNDING = 1e-6  # relative tolerance for interpolation and float32


def find_brain(
    data: np.ndarray, img: nib.Nifti1Image, brain_mask_img: nib.Nifti1Image | None, path: str | Path
) -> np.ndarray:
    """Voxels of the brain of a skull-stripped image, or of an image with a brain mask.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z)
        Finite intensities of the image.
    img : nibabel.Nifti1Image
        The image, for its grid.
    brain_mask_img : nibabel.Nifti1Image or None
        On the grid of the image. If None, the brain consists of all voxels that are not background.
    path : str or Path
        For messages.

    Returns
    -------
    bool ndarray of shape (X, Y, Z)

    Raises
    ------
    ImageError
        The mask is empty or has another grid, or there is no mask and the image is not skull-stripped.
    """
    if brain_mask_img is not None:
        if not same_grid(brain_mask_img, img):
            raise ImageError(
                path,
                f"its brain mask has another grid (shape {brain_mask_img.shape}, or affine)",
            )
        inside = np.asanyarray(brain_mask_img.dataobj) > 0.5
        if not inside.any():
            raise ImageError(path, "its brain mask is empty")
        return inside
    inside = _differs(data, background_values(data) or [0.0])
    if inside.mean() > MOST_BRAIN:
        raise ImageError(
            path,
            "is not skull-stripped and has no brain mask (a file ..._desc-brain_mask.nii.gz beside it); "
            "give it one, or set preprocessing.raw=true",
        )
    return inside


def background_values(data: np.ndarray) -> list[float]:
    """Constant intensities around the brain, from the outermost to the innermost.

    Brain extraction sets the background to 0. Rescaling the whole image afterwards (z-scores, -1 to 1, the
    slope and intercept of an integer file) turns it into another constant, and resampling or padding then
    surrounds it with zeros again. A constant is background if at least half of the voxels on the outer faces
    of the image, or of the box inside the background found so far, have it.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z)
        Finite intensities.

    Returns
    -------
    list of float
        Empty if no constant covers half of the faces.
    """
    values: list[float] = []
    box = data
    while True:
        faces = np.concatenate([np.take(box, index, axis).ravel() for axis in range(3) for index in (0, -1)])
        value = float(np.median(faces))  # if half of the voxels have one value, it is the median
        if _differs(faces, [value]).mean() > 1 - MIN_FACE_SHARE:
            break
        inside = _differs(box, [*values, value])
        if not _differs(np.array(value), values) or not inside.any():  # a constant object, not its background
            break
        values.append(value)
        box = box[_bounding_box(inside)]
    return values


def _differs(data: np.ndarray, values: list[float]) -> np.ndarray:
    """Voxels with none of these values."""
    differs = np.ones(data.shape, bool)
    for value in values:
        differs &= np.abs(data - np.float32(value)) > ROUNDING * abs(value)
    return differs


def _bounding_box(inside: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around the voxels that are True."""
    found = [np.flatnonzero(inside.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(indices[0]), int(indices[-1]) + 1) for indices in found)

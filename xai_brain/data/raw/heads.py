"""T1w images as acquired: brain extraction, bias field, alignment to MNI152 (extra ``raw``).

An alignment is a matrix between the coordinates of two spaces in mm. Images are transformed by changing their
affine, so that they are resampled only once, to the grid of the model; maps are transformed back by the same
matrix.
"""

from __future__ import annotations

import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from xai_brain.io.extras import install_command
from xai_brain.io.nifti import Grid, ImageError, resample_to_grid, same_grid

RIM_MM = 1.0  # the mask of deepbet ends at the dura; eroded by this rim it ends nearer to the cortex
# in MNI152: anterior commissure, posterior commissure, and a point of the midsagittal plane above them
ACPC_MM = np.array([[0.0, 3.0, -5.0], [0.0, -26.0, -2.0], [0.0, -9.0, 21.0]])
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from RAS+ to the world coordinates of ITK and ANTs


def extract_brain(head_img: nib.Nifti1Image, path: str | Path = "image") -> nib.Nifti1Image:
    """Compute the brain mask of an image of the whole head by deepbet.

    Parameters
    ----------
    head_img : nibabel.Nifti1Image
        T1w, any axes.
    path : str or Path
        For messages.

    Returns
    -------
    nibabel.Nifti1Image
        bool as uint8, on the grid of the image.

    Raises
    ------
    ImageError
        The extra ``raw`` is not installed, or no brain was found.

    References
    ----------
    Fisch et al., "deepbet: Fast brain extraction of T1-weighted MRI using Convolutional Neural Networks",
    Computers in Biology and Medicine 2024.
    """
    deepbet = _require_package("deepbet.bet", path)
    with warnings.catch_warnings():  # warnings of torch.jit, which stores the weights
        warnings.simplefilter("ignore")
        extraction = deepbet.BrainExtraction(no_gpu=True)
    try:
        _, mask_img, _ = extraction.run(head_img)
    except Exception as error:  # an empty bounding box raises different errors of torch
        raise ImageError(path, f"no brain was found in it ({error})") from error
    inside = np.asanyarray(mask_img.dataobj) > 0.5
    spacing = nib.affines.voxel_sizes(head_img.affine)
    inside &= ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing)[1:-1, 1:-1, 1:-1] > RIM_MM
    if not inside.any() or not same_grid(mask_img, head_img):
        raise ImageError(path, "no brain was found in it")
    return nib.Nifti1Image(inside.astype(np.uint8), head_img.affine)


def correct_bias(brain_img: nib.Nifti1Image, path: str | Path = "image") -> nib.Nifti1Image:
    """Correct the bias field of a brain by N4; the median intensity of the brain is kept.

    Intensities of 0 and below are set to 0.

    References
    ----------
    Tustison et al., "N4ITK: improved N3 bias correction", IEEE Transactions on Medical Imaging 2010.
    """
    ants = _require_package("ants", path)
    image, inside = _to_ants(ants, brain_img), np.asanyarray(brain_img.dataobj) > 0
    mask = _to_ants(ants, nib.Nifti1Image(inside.astype(np.float32), brain_img.affine))
    data = ants.n4_bias_field_correction(image, mask=mask).numpy()
    # N4 determines the field except for a factor, which drifts
    data *= np.median(np.asanyarray(brain_img.dataobj)[inside]) / np.median(data[inside])
    return nib.Nifti1Image(np.where(inside, data, 0).astype(np.float32), brain_img.affine)


def align_to_mni(brain_img: nib.Nifti1Image, path: str | Path = "image") -> np.ndarray:
    """Affine alignment (12 degrees of freedom) of a brain to the MNI152 template, by ANTs.

    Parameters
    ----------
    brain_img : nibabel.Nifti1Image
        Skull-stripped T1w, any axes, 0 outside the brain.
    path : str or Path
        For messages.

    Returns
    -------
    ndarray of shape (4, 4)
        From MNI152 mm to the image's mm, RAS+.

    Raises
    ------
    ImageError
        The extra ``raw`` is not installed, or the alignment failed.

    References
    ----------
    Avants et al., "A reproducible evaluation of ANTs similarity metric performance in brain image
    registration", NeuroImage 2011.
    """
    from nilearn.datasets import load_mni152_template

    ants = _require_package("ants", path)
    template, moving = _to_ants(ants, load_mni152_template(resolution=2)), _to_ants(ants, brain_img)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = ants.registration(
                template, moving, type_of_transform="Affine", random_seed=1, outprefix=f"{folder}/"
            )
            transform = ants.read_transform(found["fwdtransforms"][0])
        except Exception as error:  # ANTs raises RuntimeError, IndexError or ValueError
            raise ImageError(path, f"could not be aligned to MNI152 ({error})") from error
    # ITK: x -> A (x - c) + t + c from the fixed image to the moving one, in LPS
    linear, offset = np.reshape(transform.parameters[:9], (3, 3)), np.asarray(transform.parameters[9:])
    centre = np.asarray(transform.fixed_parameters)
    matrix = nib.affines.from_matvec(linear, offset + centre - linear @ centre)
    return LPS @ matrix @ LPS


def rigid_part(mni_to_native: np.ndarray) -> np.ndarray:
    """Rotation and translation of an affine alignment; the size of the brain is kept.

    As in the published data of the Human Connectome Project, the anterior commissure is at the same place
    as in MNI152, the posterior commissure lies behind it in the same direction, and the midsagittal plane is
    the same.

    Parameters
    ----------
    mni_to_native : ndarray of shape (4, 4)
        Affine from MNI152 mm to the image's mm, RAS+.

    Returns
    -------
    ndarray of shape (4, 4)
        From MNI152 mm to the image's mm; its linear part is a rotation.
    """
    native_mm = nib.affines.apply_affine(mni_to_native, ACPC_MM)
    rotation = _axes_of(native_mm) @ _axes_of(ACPC_MM).T
    return nib.affines.from_matvec(rotation, native_mm[0] - rotation @ ACPC_MM[0])


def _axes_of(points_mm: np.ndarray) -> np.ndarray:
    """Orthonormal axes (3, 3), in columns, of the plane through three points; the first along an edge."""
    along, across = points_mm[1] - points_mm[0], points_mm[2] - points_mm[0]
    normal = np.cross(along, across)
    axes = np.stack([along, np.cross(normal, along), normal], 1)
    return axes / np.linalg.norm(axes, axis=0)


def in_mni(img: nib.Nifti1Image, mni_to_native: np.ndarray) -> nib.Nifti1Image:
    """The same voxels with an affine in MNI152 coordinates."""
    return nib.Nifti1Image(img.dataobj, np.linalg.inv(mni_to_native) @ img.affine)


def in_native(map_img: nib.Nifti1Image, mni_to_native: np.ndarray, grid: Grid) -> np.ndarray:
    """A map in MNI152, resampled to the image of the participant.

    Parameters
    ----------
    map_img : nibabel.Nifti1Image
    mni_to_native : ndarray of shape (4, 4)
    grid : Grid
        Grid of the image of the participant.

    Returns
    -------
    ndarray of shape grid.shape, float32
    """
    moved = nib.Nifti1Image(map_img.dataobj, mni_to_native @ map_img.affine)
    return resample_to_grid(moved, grid)


def _to_ants(ants: Any, img: nib.Nifti1Image) -> Any:
    """The image in ITK coordinates, with the affine split into spacing and direction."""
    affine = LPS @ img.affine
    spacing = nib.affines.voxel_sizes(affine)
    # ITK needs direction cosines; for an affine with shear, those of the nearest rotation
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    return ants.from_numpy(
        np.asanyarray(img.dataobj).astype(np.float32),
        origin=affine[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=left @ right,
    )


def _require_package(module: str, path: str | Path) -> Any:
    try:
        return import_module(module)
    except ImportError:
        package = {"ants": "antspyx", "deepbet.bet": "deepbet"}[module]
        raise ImageError(path, f"{package} is needed: {install_command('raw')}") from None

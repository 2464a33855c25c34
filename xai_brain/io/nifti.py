"""Read, resample and write NIfTI images; grids and file names. No torch.

World coordinates are RAS+ millimetres throughout. A grid is a shape and an affine; resampling
uses affines only, so that locations do not depend on the order and direction of the axes of a file.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from xai_brain.io.atomic import write_atomic
from xai_brain.io.inflate import igzip, read_voxels
from xai_brain.io.nifti_header import ImageError as ImageError
from xai_brain.io.nifti_header import cannot_be_read, open_img
from xai_brain.io.separable import parallel_axes, resample

# A Gaussian of this many target voxels halves the amplitude at the new Nyquist frequency:
# exp(-2 (pi sigma f)^2) = 1/2 at f = 1 / (2 spacing).
NYQUIST_SIGMA = float(np.sqrt(2 * np.log(2)) / np.pi)

SEPARATORS = " -_.,;:/()'"  # left out of the values of entities
GZIP_LEVEL = 2  # higher levels take much longer and do not make maps smaller


@dataclass(frozen=True)
class Grid:
    """A voxel grid in world space.

    Parameters
    ----------
    name : str
    shape : tuple of 3 int
    affine : ndarray of shape (4, 4)
        Voxel to world, RAS+ mm.
    """

    name: str
    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def spacing_mm(self) -> np.ndarray:
        return nib.affines.voxel_sizes(self.affine)


def _isotropic(name: str, shape: tuple[int, int, int], spacing: float, origin: tuple[float, ...]) -> Grid:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(name, shape, affine)


def _kan2020() -> Grid:
    """Field of view of HCP images and their MNI template (260x311x260, 0.7 mm, LAS) as 58x70x58 voxels."""
    shape = (58, 70, 58)
    factor = np.array([260, 311, 260]) / shape
    affine = np.diag([*(factor * [-0.7, 0.7, 0.7]), 1.0])
    # voxel (0, 0, 0) of the fine grid has its centre at (90, -126, -72) mm; the outer edges coincide
    affine[:3, 3] = [90, -126, -72] + np.array([-0.7, 0.7, 0.7]) * (factor - 1) / 2
    return Grid("kan2020_58x70x58", shape, affine)


GRIDS = {
    grid.name: grid
    for grid in (
        _isotropic("t1w_58x70x58", (58, 70, 58), 3.125, (-89.0625, -125.8125, -71.0625)),
        _isotropic("t1w_2mm", (91, 109, 91), 2.0, (-90, -126, -72)),
        _isotropic("t1w_4mm", (46, 55, 46), 4.0, (-90, -126, -72)),
        _kan2020(),
    )
}


def get_grid(name: str) -> Grid:
    if name not in GRIDS:
        raise ValueError(f"unknown grid {name!r}; one of {', '.join(GRIDS)}")
    return GRIDS[name]


def load_img(path: str | Path, orientation: str | None = None) -> nib.Nifti1Image:
    """Read one 3-D image into memory as float32.

    A trailing axis of length 1 is dropped; header scaling is applied.

    Parameters
    ----------
    path : path of a NIfTI file
    orientation : str, optional
        See `xai_brain.io.nifti_header.open_img`.

    Returns
    -------
    nibabel.Nifti1Image
        float32, 3-D; NaN and infinities are kept.

    Raises
    ------
    ImageError
        The file is missing, truncated or not an image, contains several volumes or values that are not
        real numbers, has no usable affine or no orientation, or its header states more voxels than the file
        contains or than fit into 1 GB of memory.
    """
    img = open_img(path, orientation)
    try:
        with np.errstate(all="ignore"):
            data = read_voxels(img)
    except Exception as error:  # nibabel, zlib and the OS raise different errors for a damaged file
        raise ImageError(path, cannot_be_read(error)) from error
    while data.ndim > 3:
        data = data[..., 0]
    return nib.Nifti1Image(data, img.affine)


def resample_to_grid(
    img: nib.Nifti1Image, grid: Grid, *, order: int = 1, antialias: bool = True
) -> np.ndarray:
    """Sample an image at the voxel centres of a grid.

    Before downsampling, a Gaussian filter suppresses frequencies that the grid cannot represent: the
    amplitude response is one half at the new Nyquist frequency along each axis, including the smoothing that
    is already implied by the voxels of the image. If the axes of image and grid are parallel, a faster
    algorithm computes the same values.

    Parameters
    ----------
    img : nibabel.Nifti1Image
        Any axes, spacing and obliquity.
    grid : Grid
    order : int, default 1
        Spline order; 0 for labels and masks (never smoothed).
    antialias : bool, default True

    Returns
    -------
    ndarray of shape grid.shape, float32
        0 outside the field of view of the image.
    """
    data = np.asanyarray(img.dataobj)
    source_mm = nib.affines.voxel_sizes(img.affine)
    # spacing of the grid along each axis of the image
    target_mm = np.linalg.norm((img.affine[:3, :3] / source_mm).T @ grid.affine[:3, :3], axis=1).round(6)
    sigma_voxels = np.zeros(3)
    if antialias and order > 0:
        sigma_voxels = NYQUIST_SIGMA * np.sqrt(np.maximum(target_mm**2 - source_mm**2, 0)) / source_mm
    # grid voxel -> world -> image voxel
    to_img = np.linalg.inv(img.affine) @ grid.affine
    maps = parallel_axes(to_img, data.shape, grid.shape, sigma_voxels) if order == 1 else None
    if maps is not None:
        return resample(data, maps)
    data = data.astype(np.float32, copy=False)
    if sigma_voxels.any():
        data = ndimage.gaussian_filter(data, sigma_voxels, mode="constant")
    return ndimage.affine_transform(
        data, to_img[:3, :3], to_img[:3, 3], grid.shape, order=order, mode="grid-constant"
    ).astype(np.float32)


def same_grid(img: nib.Nifti1Image, other: nib.Nifti1Image | Grid, tolerance_mm: float = 1e-3) -> bool:
    return tuple(img.shape[:3]) == tuple(other.shape[:3]) and np.allclose(
        img.affine, other.affine, atol=tolerance_mm
    )


@lru_cache(maxsize=4)
def template_brain_mask(grid_name: str) -> np.ndarray:
    """Brain mask of the MNI152 template of nilearn on a named grid, bool."""
    from nilearn.datasets import load_mni152_brain_mask

    img = load_mni152_brain_mask(resolution=2)
    img = nib.Nifti1Image(np.asanyarray(img.dataobj).astype(np.float32), img.affine)
    return resample_to_grid(img, get_grid(grid_name), antialias=False) > 0.5


def bids_name(participant_id: str, session_id: str | None = None, *, suffix: str, **entities: str) -> str:
    """File stem according to BIDS.

    Examples
    --------
    >>> bids_name("sub-01", space="MNI152", desc="GradCAM", suffix="attribution")
    'sub-01_space-MNI152_desc-GradCAM_attribution'
    """
    parts = [participant_id] + ([session_id] if session_id else [])
    return "_".join([*parts, *(f"{key}-{value}" for key, value in entities.items()), suffix])


def bids_label(text: str) -> str:
    """Text as the value of an entity, for which BIDS allows letters and digits only.

    Separators such as spaces and hyphens are left out; other characters are replaced.

    Examples
    --------
    >>> bids_label("up-to 60"), bids_label("top2.5"), bids_label("señal"), bids_label(">9")
    ('upto60', 'top2p5', 'senal', 'x3e9')
    """
    text = re.sub(r"(?<=\d)\.(?=\d)", "p", unicodedata.normalize("NFKD", text))
    kept = (each for each in text if not unicodedata.combining(each) and each not in SEPARATORS)
    label = "".join(each if each.isascii() and each.isalnum() else f"x{ord(each):x}" for each in kept)
    return label or f"x{text.encode().hex()}"


def parse_entities(path: str | Path) -> dict[str, str]:
    """Entities of a BIDS file name, e.g. ``{"sub": "01", "space": "MNI152", "suffix": "T1w"}``."""
    stem = Path(path).name.split(".")[0]
    *pairs, suffix = stem.split("_")
    return {**dict(pair.split("-", 1) for pair in pairs if "-" in pair), "suffix": suffix}


def is_mni152(space: str) -> bool:
    """Whether the name of a space is that of an MNI152 template.

    Examples
    --------
    >>> [is_mni152(name) for name in ("MNI152NLin2009cAsym", "MNI", "MNIPediatricAsym", "MNI305", "T1w")]
    [True, True, False, False, False]
    """
    return space.upper() == "MNI" or space.upper().startswith("MNI152")


def save_img(data: np.ndarray, affine: np.ndarray, path: str | Path, *, space: str = "MNI152") -> Path:
    """Write a NIfTI image atomically; the xform codes state whether its space is MNI152.

    Parameters
    ----------
    data : ndarray of shape (X, Y, Z)
        Its dtype is kept; bool becomes uint8.
    affine : ndarray of shape (4, 4)
    path : str or Path
    space : str, default "MNI152"
    """
    data = data.astype(np.uint8) if data.dtype == bool else data
    img = nib.Nifti1Image(data, affine)
    code = "mni" if is_mni152(space) else "scanner"
    img.header.set_xyzt_units("mm")
    img.set_sform(affine, code)
    img.set_qform(affine, code)
    return write_atomic(path, lambda temporary: _write_nifti(img, temporary))


def _write_nifti(img: nib.Nifti1Image, path: Path) -> None:
    if path.suffix != ".gz":
        img.to_filename(path)
        return
    # no name and time in the gzip header, so that equal data give equal files
    path.write_bytes(igzip.compress(img.to_bytes(), GZIP_LEVEL, mtime=0))

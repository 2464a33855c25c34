"""Check by its header whether a file is a usable image, without reading the voxels. No torch."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from xai_brain.io.orientation import lacks_orientation, stated_affine
from xai_brain.io.paths import IMAGES, why_no_file

MAX_BYTES = 2**30  # maximum memory for reading one image
MAX_DEFLATE = 1040  # largest compression ratio of gzip
VOXEL_MM = (0.01, 100.0)
HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
BROKEN = (OSError, EOFError, zlib.error)
NO_ORIENTATION = (
    "the file contains no orientation (in NIfTI: sform_code and qform_code are 0), so left and right are "
    "unknown; store the right sform in the file, or state the directions in which its voxel indices increase "
    '(images of a cohort: data.orientation=LAS; in code: orientation="LAS")'
)

NO_VOXEL_SIZES = (
    "the file contains no orientation and no voxel sizes (goodRASFlag is 0); convert the original image again"
)


class ImageError(ValueError):
    """An image cannot be used; the message contains the file, the reason and what to do."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self) -> tuple[Any, ...]:  # for errors in worker processes
        return ImageError, (self.path, self.reason)


def require_file(path: str | Path) -> None:
    """Raise an error if a path is not a readable, non-empty file.

    Raises
    ------
    ImageError
        The file is missing, a broken link, a folder, empty or not readable.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        raise ImageError(
            path,
            f"is a link to {os.readlink(path)}, which does not exist; fetch the file, or repair the link",
        )
    try:
        with open(path, "rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise ImageError(path, "the file does not exist") from None
    except IsADirectoryError:
        raise ImageError(path, why_no_file(path, IMAGES)) from None
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror}); check its permissions") from error
    if empty:
        raise ImageError(path, "is empty (0 bytes); copy it again")


def open_img(path: str | Path, orientation: str | None = None) -> Any:
    """Open an image without reading its voxels, and check its header.

    Parameters
    ----------
    path : path of a NIfTI file, or of another format that nibabel reads
    orientation : str, optional
        Directions of the voxel axes, such as ``LAS``, of a file that does not contain them; no other file is
        affected.

    Returns
    -------
    nibabel image
        One 3-D volume (trailing axes of length 1 allowed) of real numbers with a usable affine.

    Raises
    ------
    ImageError
        The image cannot be used.
    """
    path = Path(path)
    require_file(path)
    if path.name.endswith((".nii", ".nii.gz")):
        _check_bytes(path)
    try:
        with np.errstate(all="ignore"):
            img: Any = nib.load(path)
            shape, dtype, affine = tuple(img.shape), img.get_data_dtype(), img.affine
            unknown = lacks_orientation(img)
    except Exception as error:  # nibabel, zlib and the OS raise different errors for a damaged file
        raise ImageError(path, cannot_be_read(error)) from error
    _check_shape(path, shape)
    _check_dtype(path, dtype)
    _check_size(path, shape, dtype.itemsize, offset=0)
    _check_affine(path, affine)
    if unknown:
        if isinstance(img, nib.MGHImage):
            raise ImageError(path, NO_VOXEL_SIZES)
        if orientation is None:
            raise ImageError(path, NO_ORIENTATION)
        img = type(img)(img.dataobj, stated_affine(img, orientation), img.header, file_map=img.file_map)
    return img


def refuse_unknown_orientation(img: Any, name: str | Path) -> None:
    """Raise an error for an image object whose affine was guessed because its file contains none.

    Raises
    ------
    ImageError
        Its orientation is unknown.
    """
    if getattr(img, "header", None) is not None and lacks_orientation(img):
        raise ImageError(name, NO_ORIENTATION)


def cannot_be_read(error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"cannot be read, is it truncated? ({reason}); copy it again"


def _check_bytes(path: Path) -> None:
    """Check the header as stored in the file, before nibabel repairs or interprets it."""
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if compressed else open(path, "rb") as file:
            block = file.read(540)
    except BROKEN as error:
        raise ImageError(path, cannot_be_read(error)) from error
    sizes = {int(np.frombuffer(block[:4], order)[0]) for order in ("<i4", ">i4") if len(block) >= 4}
    size = next((size for size in HEADERS if size in sizes), None)
    if size is None or len(block) < size:
        raise ImageError(
            path, "is not a NIfTI file (no NIfTI header, or it is cut short); copy or convert it again"
        )
    magic = block[344:348] if size == 348 else block[4:8]
    if magic[:3] not in (b"n+1", b"n+2"):
        raise ImageError(path, f"is not a NIfTI file (magic {magic!r}); convert it to NIfTI")
    if path.name.endswith(".gz") != compressed:
        kind = "compressed" if compressed else "not compressed"
        raise ImageError(
            path, f"is {kind}, unlike its name; rename it to {'.nii.gz' if compressed else '.nii'}"
        )
    order = "<" if int(np.frombuffer(block[:4], "<i4")[0]) == size else ">"
    header = HEADERS[size](block[:size], endianness=order, check=False)
    n_axes = int(header["dim"][0])
    if not 1 <= n_axes <= 7:
        raise ImageError(path, f"its header states {n_axes} axes; convert it again")
    shape = tuple(int(n) for n in header["dim"][1 : n_axes + 1])
    _check_shape(path, shape)
    try:
        dtype = header.get_data_dtype()
    except Exception as error:
        code = int(header["datatype"])
        raise ImageError(path, f"its header has an unknown data type ({code}); convert it again") from error
    _check_dtype(path, dtype)
    offset = float(header["vox_offset"])
    if not (np.isfinite(offset) and offset >= size + 4):
        raise ImageError(
            path,
            f"its header places the voxels at byte {offset:g}, inside the header itself, which ends at byte "
            f"{size + 4}; correct vox_offset in the header (mostly to {size + 4}), or convert it again",
        )
    _check_size(path, shape, dtype.itemsize, offset=int(offset), compressed=compressed)
    zooms = header["pixdim"][1:4]
    if (zooms < 0).any():
        text = " x ".join(f"{zoom:g}" for zoom in zooms)
        raise ImageError(path, f"has negative voxel sizes ({text} mm); correct pixdim in its header")
    _check_forms(path, header, shape)


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    text = " x ".join(map(str, shape))
    if any(n < 1 for n in shape):
        raise ImageError(path, f"its header states {text} voxels; convert it again")
    if len(shape) != 3 or min(shape) < 2:
        raise ImageError(path, f"has shape {shape}; a single 3-D volume is needed, extract one")


def _check_dtype(path: Path, dtype: np.dtype) -> None:
    if dtype.fields is not None:
        raise ImageError(path, "has colours (RGB) instead of intensities; use the T1w image itself")
    if dtype.kind == "c":
        raise ImageError(path, "has complex values; save their magnitude")
    if dtype.kind not in "iuf":
        raise ImageError(path, f"has values of type {dtype}; convert it again")


def _check_size(
    path: Path, shape: tuple[int, ...], itemsize: int, *, offset: int, compressed: bool | None = None
) -> None:
    """Raise an error if the voxels do not fit into memory, or the file is too small for them."""
    n_voxels = int(np.prod([int(n) for n in shape], dtype=object))
    needed = n_voxels * (itemsize + 4)  # as stored, and as float32
    if needed > MAX_BYTES:
        text = " x ".join(map(str, shape))
        raise ImageError(
            path,
            f"its header states {text} voxels ({needed / 2**30:.3g} GB of memory, at most "
            f"{MAX_BYTES / 2**30:g} is allowed); resample it, or convert it again if the size is wrong",
        )
    if compressed is None:
        return
    held = path.stat().st_size
    claimed = offset + n_voxels * itemsize
    if claimed > (held * MAX_DEFLATE if compressed else held):
        raise ImageError(
            path,
            f"cannot be read, is it truncated? ({held} bytes, but its header states {claimed}); "
            "copy it again",
        )


def _check_affine(path: Path, affine: np.ndarray | None) -> None:
    if affine is None or not np.isfinite(affine).all():
        raise ImageError(
            path, "its affine contains NaN or infinity; set the voxel-to-world matrix in its header"
        )
    with np.errstate(all="ignore"):
        sizes = nib.affines.voxel_sizes(affine)
        volume = abs(np.linalg.det(affine[:3, :3] / np.where(sizes > 0, sizes, 1)))
    if not volume > 1e-3:
        raise ImageError(path, "has a singular affine; set the voxel-to-world matrix in its header")
    if not ((sizes >= VOXEL_MM[0]) & (sizes <= VOXEL_MM[1])).all() or np.abs(affine[:3, 3]).max() > 1e4:
        text = " x ".join(f"{size:.3g}" for size in sizes)
        raise ImageError(
            path, f"has voxels of {text} mm, or a distant origin; correct the affine in its header"
        )


def _check_forms(path: Path, header: nib.Nifti1Header, shape: tuple[int, ...]) -> None:
    """Raise an error if sform and qform state the same space but different matrices."""
    codes = int(header["sform_code"]), int(header["qform_code"])
    if codes[0] <= 0 or codes[0] != codes[1]:
        return
    try:
        with np.errstate(all="ignore"):
            sform, qform = header.get_sform(), header.get_qform()
            corners = np.array(np.meshgrid(*[[0, n - 1] for n in shape[:3]])).reshape(3, -1).T
            largest_mm = np.abs(nib.affines.apply_affine(sform - qform, corners)).max()
            tolerance = nib.affines.voxel_sizes(sform).max()
    except Exception:  # an invalid qform is ignored
        return
    if not largest_mm <= tolerance:
        raise ImageError(
            path,
            f"its sform and qform both state space {codes[0]} but differ by up to {largest_mm:.3g} mm; "
            "find out which one is correct and copy it over the other",
        )

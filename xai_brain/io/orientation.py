"""Images whose file does not state their orientation, and their affine as stated by the user. No torch.

For such an image nibabel assumes an affine: axes to the left, anterior and superior, and the origin in the
middle of the image. This assumption mirrors every image that was stored in another orientation.
"""

from __future__ import annotations

import gzip
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

DIRECTIONS = {"L": (0, -1), "R": (0, 1), "P": (1, -1), "A": (1, 1), "I": (2, -1), "S": (2, 1)}
ORIENTATIONS = tuple(
    "".join(code) for code in product(DIRECTIONS, repeat=3) if len({DIRECTIONS[c][0] for c in code}) == 3
)
GOOD_RAS_FLAG = slice(28, 30)  # bytes of an .mgh header


def lacks_orientation(img: Any) -> bool:
    """Whether the affine of an image is an assumption of nibabel.

    Parameters
    ----------
    img : nibabel image

    Returns
    -------
    bool
        True for NIfTI without sform and qform, for Analyze pairs without the ``mat`` of a .mat file, and for
        .mgh and .mgz files without a valid orientation.
    """
    header, name = img.header, img.get_filename()
    if isinstance(header, nib.Nifti1Header):  # also NIfTI-2, and pairs
        return int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0
    if isinstance(header, nib.AnalyzeHeader):
        return name is None or "mat" not in _matrices(Path(name).with_suffix(".mat"))
    if isinstance(header, nib.freesurfer.mghformat.MGHHeader) and name is not None:
        with gzip.open(name, "rb") if str(name).endswith("z") else open(name, "rb") as file:
            return file.read(GOOD_RAS_FLAG.stop)[GOOD_RAS_FLAG] == b"\0\0"
    return False


def stated_affine(img: Any, orientation: str) -> np.ndarray:
    """The affine of an image whose orientation the user states.

    Parameters
    ----------
    img : nibabel image
        Its voxel sizes and the voxel of the origin are used; the origin is that of the header if it contains
        one (Analyze files of SPM), otherwise the middle of the image.
    orientation : str
        Directions in which the three voxel indices increase: ``LAS`` is left, anterior, superior.

    Returns
    -------
    ndarray of shape (4, 4)
        Voxel to world, RAS+ mm.

    Raises
    ------
    ValueError
        The orientation is not one of ORIENTATIONS.
    """
    validate_orientation(orientation)
    origin_voxel = np.linalg.inv(img.affine)[:3, 3]
    linear = np.zeros((3, 3))
    for axis, (letter, zoom) in enumerate(zip(orientation, nib.affines.voxel_sizes(img.affine), strict=True)):
        world_axis, sign = DIRECTIONS[letter]
        linear[world_axis, axis] = sign * zoom
    affine: np.ndarray = nib.affines.from_matvec(linear, -linear @ origin_voxel)
    return affine


def validate_orientation(orientation: str) -> None:
    if orientation not in ORIENTATIONS:
        raise ValueError(
            f"orientation={orientation}: three letters are needed, one of L and R, one of A and P, and one "
            "of S and I: the directions in which the voxel indices increase, e.g. LAS"
        )


def _matrices(path: Path) -> set[str]:
    """Names of the matrices in the .mat file of SPM beside an Analyze pair."""
    from scipy.io import whosmat

    try:
        return {str(name) for name, _, _ in whosmat(str(path))}
    except (OSError, ValueError):
        return set()

"""Displaced and reoriented copies of the MNI152 templates on a coarse grid; independent of torch."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec

from xai_brain.io.nifti import Grid, resample_to_grid

KINDS = ("T1w", "GM", "WM")
SHIFTS_MM = (-12.0, -8.0, 8.0, 12.0)
ROTATION_DEGREES = 16.0
AXES = ("left-right", "anterior-posterior", "superior-inferior")
CENTER_MM = (0.0, -18.0, 6.0)  # centre of the bounding box of the brain of the template and of rotations


def _cube(name: str, n_voxels: int, spacing_mm: float) -> Grid:
    origin = np.array(CENTER_MM) - spacing_mm * (n_voxels - 1) / 2
    return Grid(name, (n_voxels, n_voxels, n_voxels), from_matvec(spacing_mm * np.eye(3), origin))


COARSE = _cube("coarse", 28, 8.0)  # the brain of the template and at least 18 mm around it
FINE = _cube("fine", 56, 4.0)  # grid for the displacement of the templates


def on_coarse_grid(volume: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A volume smoothed and sampled on `COARSE`; `affine` (4, 4) transforms its voxels to mm."""
    return resample_to_grid(nib.Nifti1Image(volume, affine), COARSE)


def unit_vector(values: np.ndarray) -> np.ndarray:
    """Vector with mean 0 and norm 1; the product of two such vectors is their correlation."""
    vector = (values - values.mean()).ravel()
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


@lru_cache(maxsize=4)
def template_on_coarse_grid(kind: str) -> np.ndarray:
    """``T1w`` inside the brain, ``mask`` of the brain, ``GM`` or ``WM``."""
    img = _template_img(kind)
    return on_coarse_grid(np.asanyarray(img.dataobj), img.affine)


@lru_cache(maxsize=len(KINDS))
def template_and_copies(kind: str) -> np.ndarray:
    """Unit vectors (1 + n_changes, n_voxels): the template, and the template after each of `changes`.

    A change of the image corresponds to the inverse change of the template.
    """
    img = _template_img(kind)
    plain = template_on_coarse_grid(kind)
    copies = [plain]
    for matrix in _motions().values():
        copies.append(on_coarse_grid(np.asanyarray(img.dataobj), np.linalg.inv(matrix) @ img.affine))
    for order, signs in _reorientations():
        reversed_axes = tuple(axis for axis, sign in enumerate(signs) if sign < 0)
        copies.append(np.flip(plain, reversed_axes).transpose(order))
    return np.stack([unit_vector(copy) for copy in copies])


@lru_cache(maxsize=1)
def changes() -> list[str]:
    """Descriptions of the changes for messages, in the order of `template_and_copies`."""
    names = list(_motions())
    for order, signs in _reorientations():
        reversals = [f"a flip of the {axis} axis" for axis, sign in zip(AXES, signs, strict=True) if sign < 0]
        exchange = [] if order == (0, 1, 2) else ["an exchange of axes"]
        names.append(" and ".join([*exchange, *reversals]))
    return names


def _motions() -> dict[str, np.ndarray]:
    """Shifts and rotations of an image, (4, 4) in mm, by their names."""
    motions = {}
    for axis, name in enumerate(AXES):
        for mm in SHIFTS_MM:
            motions[f"a shift by {mm:+g} mm along the {name} axis"] = from_matvec(
                np.eye(3), mm * np.eye(3)[axis]
            )
        for degrees in (-ROTATION_DEGREES, ROTATION_DEGREES):
            turn, center = _rotation(axis, np.deg2rad(degrees)), np.array(CENTER_MM)
            motions[f"a rotation by {degrees:+g} degrees about the {name} axis"] = from_matvec(
                turn, center - turn @ center
            )
    return motions


def _rotation(axis: int, angle: float) -> np.ndarray:
    turn = np.eye(3)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[second, first], turn[first, second] = np.sin(angle), -np.sin(angle)
    return turn


def _reorientations() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Orders and signs of the axes, without the identity and the left-right reversal."""
    signs, orders = product((1, -1), repeat=3), list(permutations(range(3)))
    every = [(order, sign) for sign in signs for order in orders]
    return [(order, sign) for order, sign in every if order != (0, 1, 2) or sign[1:] != (1, 1)]


@lru_cache(maxsize=4)
def _template_img(kind: str) -> nib.Nifti1Image:
    """A template of nilearn, 0 outside the brain, on the fine grid."""
    from nilearn import datasets

    load: dict[str, Any] = {
        "T1w": datasets.load_mni152_template,
        "mask": datasets.load_mni152_template,
        "GM": datasets.load_mni152_gm_template,
        "WM": datasets.load_mni152_wm_template,
    }
    img = load[kind](resolution=1)
    data = np.asanyarray(img.dataobj).astype(np.float32)
    if kind in ("T1w", "mask"):
        inside = data > 0.2  # as in nilearn's load_mni152_brain_mask
        data = inside.astype(np.float32) if kind == "mask" else np.where(inside, data, 0)
    return nib.Nifti1Image(resample_to_grid(nib.Nifti1Image(data, img.affine), FINE), FINE.affine)

"""Planes of images in world millimetres, the overlay of a map, and places in maps."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
from scipy import ndimage

from xai_brain.io.nifti import Grid, resample_to_grid
from xai_brain.statistics.colour_scale import ColourScale

IN_PLANE = {"x": (1, 2), "y": (0, 2), "z": (0, 1)}  # world axes to the right and upwards
Bounds = tuple[tuple[float, float], ...]


def world_bounds(img: nib.Nifti1Image, margin_mm: float = 4.0) -> Bounds:
    """Bounding box of the non-background voxels in world mm, ((x0, x1), (y0, y1), (z0, z1))."""
    data = np.asanyarray(img.dataobj)
    world = nib.affines.apply_affine(img.affine, np.argwhere(data > 0.05 * data.max()))
    low, high = np.floor(world.min(0) - margin_mm), np.ceil(world.max(0) + margin_mm)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


def world_slice(
    img: nib.Nifti1Image, axis: str, at_mm: float, bounds: Bounds, *, step_mm: float = 1.0, order: int = 1
) -> np.ndarray:
    """Sample a plane of an image in world space.

    Parameters
    ----------
    img : nibabel.Nifti1Image
        Any axes, spacing and obliquity.
    axis : {"x", "y", "z"}
        Normal of the plane: sagittal, coronal, axial.
    at_mm : float
    bounds : ((x0, x1), (y0, y1), (z0, z1)) in mm
    step_mm : float, default 1.0
    order : int, default 1
        1 interpolates linearly, 0 takes the nearest voxel.

    Returns
    -------
    ndarray, 2-D
        Columns go rightwards (from L to R, for sagittal planes from P to A), rows upwards.
    """
    right, up = IN_PLANE[axis]
    columns = np.arange(bounds[right][0], bounds[right][1] + step_mm / 2, step_mm)
    rows = np.arange(bounds[up][0], bounds[up][1] + step_mm / 2, step_mm)
    world = np.full((len(rows), len(columns), 3), float(at_mm))
    world[..., right], world[..., up] = columns, rows[:, None]
    voxels = nib.affines.apply_affine(np.linalg.inv(img.affine), world)
    data = np.asanyarray(img.dataobj, dtype=np.float32)
    return ndimage.map_coordinates(data, np.moveaxis(voxels, -1, 0), order=order, mode="grid-constant")


def brain_mask_of(underlay: nib.Nifti1Image) -> nib.Nifti1Image:
    """Voxels of the brain (1, otherwise 0): those of the anatomy that are not 0."""
    inside = np.nan_to_num(np.asanyarray(underlay.dataobj)) != 0
    return nib.Nifti1Image(inside.astype(np.float32), underlay.affine)


def overlay_rgba(
    map_img: nib.Nifti1Image,
    brain: nib.Nifti1Image,
    scale: ColourScale,
    axis: str,
    at_mm: float,
    bounds: Bounds,
) -> np.ndarray:
    """Colours and opacity of a map in a plane; transparent at the value 0 and outside the brain.

    Parameters
    ----------
    map_img : nibabel.Nifti1Image
    brain : nibabel.Nifti1Image
        Brain mask of the displayed anatomy, on any grid.
    scale : ColourScale
    axis, at_mm, bounds
        As in `world_slice`.

    Returns
    -------
    ndarray of shape (rows, columns, 4), in [0, 1]
    """
    colours = scale.rgba(world_slice(map_img, axis, at_mm, bounds))
    colours[..., 3] *= world_slice(brain, axis, at_mm, bounds, order=0) > 0
    return colours


def brain_values(map_img: nib.Nifti1Image, underlay: nib.Nifti1Image) -> np.ndarray:
    """Values of a map at the brain voxels of the underlay."""
    return np.asanyarray(map_img.dataobj)[_brain_on_grid(map_img, underlay)]


def centre_mm(img: nib.Nifti1Image) -> np.ndarray | None:
    """World mm of the central voxel of the largest cluster above half of the maximum."""
    data = np.nan_to_num(np.asanyarray(img.dataobj))
    if data.max() <= 0:
        return None
    blobs, _ = ndimage.label(data >= data.max() / 2)
    inside = np.argwhere(blobs == np.bincount(blobs[blobs > 0]).argmax())
    middle = inside[np.linalg.norm(inside - inside.mean(0), axis=1).argmin()]
    return nib.affines.apply_affine(img.affine, middle)


def strongest_mm(maps: Sequence[nib.Nifti1Image], underlay: nib.Nifti1Image) -> np.ndarray:
    """World mm of the maximum in the brain of the combined maps, each divided by its own scale."""
    inside = _brain_on_grid(maps[0], underlay)
    total = np.zeros(maps[0].shape)
    for img in maps:
        limit = ColourScale.of(brain_values(img, underlay)).limit
        if img.shape == total.shape and limit > 0:
            total += np.clip(np.abs(np.nan_to_num(np.asanyarray(img.dataobj))) / limit, 0, 1)
    total = np.where(inside, ndimage.gaussian_filter(total, 1.5), 0)
    return nib.affines.apply_affine(maps[0].affine, np.unravel_index(total.argmax(), total.shape))


def _brain_on_grid(map_img: nib.Nifti1Image, underlay: nib.Nifti1Image) -> np.ndarray:
    """Brain mask of the underlay on the grid of a map, bool."""
    x, y, z = map_img.shape
    grid = Grid("map", (x, y, z), map_img.affine)
    return resample_to_grid(brain_mask_of(underlay), grid, antialias=False) >= 0.5

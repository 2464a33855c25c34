"""Planes of images in world millimetres, and colour scales of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from scipy import ndimage

from xai_brain.io.nifti import Grid, resample_to_grid

PERCENTILE = 99.5  # of |value| inside the brain: where the colour scale ends


IN_PLANE = {"x": (1, 2), "y": (0, 2), "z": (0, 1)}  # world axes to the right and upwards


SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#08306b", "#2171b5", "#6baed6", "#fb8a5c", "#d7301f", "#7f0000"]
)


POSITIVE = LinearSegmentedColormap.from_list("positive", ["#fed976", "#fd8d3c", "#e31a1c", "#800026"])


Bounds = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scale:
    """Colour scale of raw values: diverging and symmetric for signed values, otherwise from zero.

    Parameters
    ----------
    limit : float
        Value of the strongest colour; 0 for an empty map, which is not drawn.
    signed : bool
    """

    limit: float
    signed: bool

    @classmethod
    def of(cls, values: np.ndarray) -> Scale:
        values = values[np.isfinite(values)]
        limit = float(np.percentile(np.abs(values), PERCENTILE)) if values.size else 0.0
        if limit == 0 and values.size:  # fewer than one voxel in 200 is not zero
            limit = float(np.abs(values).max())
        return cls(limit, bool((values < -1e-6 * limit).any()))

    def rgba(self, values: np.ndarray) -> np.ndarray:
        """Colour and opacity; opacity grows with |value| and is full from half of the limit on."""
        relative = np.clip(np.nan_to_num(values) / (self.limit or np.inf), -1 if self.signed else 0, 1)
        colours = SIGNED(0.5 + relative / 2) if self.signed else POSITIVE(relative)
        colours[..., 3] = 0.92 * np.clip(2 * np.abs(relative), 0, 1)
        return colours


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


def brain_values(map_img: nib.Nifti1Image, underlay: nib.Nifti1Image) -> np.ndarray:
    """Values of a map at the brain voxels of the underlay."""
    x, y, z = map_img.shape
    grid = Grid("map", (x, y, z), map_img.affine)
    anatomy = resample_to_grid(underlay, grid, antialias=False)
    return np.asanyarray(map_img.dataobj)[anatomy > 0.05 * anatomy.max()]


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
    """World mm of the maximum of the combined maps, each divided by its own scale."""
    total = np.zeros(maps[0].shape)
    for img in maps:
        limit = Scale.of(brain_values(img, underlay)).limit
        if img.shape == total.shape and limit > 0:
            total += np.clip(np.abs(np.nan_to_num(np.asanyarray(img.dataobj))) / limit, 0, 1)
    peak = np.unravel_index(ndimage.gaussian_filter(total, 1.5).argmax(), total.shape)
    return nib.affines.apply_affine(maps[0].affine, peak)

"""Locations of planted effects: a sphere, a mask or an atlas region, described by depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from xai_brain.config.planted_effect import PlantedEffect, PlantedError
from xai_brain.data.planted.local_change import falloff
from xai_brain.io.nifti import Grid, load_img, resample_to_grid

FINEST_MM = 1.0  # distances to the surface of a mask are computed on voxels of this size
ONE_PIECE = 0.9  # least share of connected voxels in a region that shrinks or expands


@dataclass(frozen=True)
class Place:
    """A region in MNI152.

    Parameters
    ----------
    center_mm : ndarray of shape (3,)
        Centroid, world mm.
    volume_ml : float
    deepest_mm : float
        Greatest depth.
    reach_mm : float
        Greatest distance of its surface from the centroid.
    depth_mm : function from (..., 3) world mm to (...)
        Distance to the surface; above 0 inside, below 0 outside.
    """

    center_mm: np.ndarray
    volume_ml: float
    deepest_mm: float
    reach_mm: float
    depth_mm: Callable[[np.ndarray], np.ndarray]

    @property
    def equivalent_radius_mm(self) -> float:
        """Radius of a sphere of the same volume."""
        return float((3000 * self.volume_ml / (4 * np.pi)) ** (1 / 3))

    def profile(self, places: np.ndarray, full_depth_mm: float, edge_mm: float) -> np.ndarray:
        """Profile that is 1 beyond a depth and falls to 0 over the width of the edge."""
        return falloff((full_depth_mm - self.depth_mm(places)) / edge_mm)


def sphere(center_mm: list[float] | np.ndarray, radius_mm: float) -> Place:
    center = np.asarray(center_mm, float)
    volume_ml = 4 / 3 * np.pi * radius_mm**3 / 1000
    return Place(
        center, volume_ml, radius_mm, radius_mm, lambda places: radius_mm - _norm(np.asarray(places) - center)
    )


def place_of(settings: PlantedEffect) -> Place:
    """The location in the settings.

    Raises
    ------
    PlantedError
        The image or the region cannot be used.
    """
    if settings.labels_img is not None:
        from xai_brain.atlas.atlas import load_atlas

        atlas = load_atlas(settings.labels_img, settings.table)
        region = settings.region
        index = atlas.index_of(region) if isinstance(region, str) else int(region)
        inside = np.asanyarray(atlas.labels_img.dataobj) == index
        what = f"planted.region={region} of {settings.labels_img}"
        return place_of_mask(inside, atlas.labels_img.affine, what, settings)
    if settings.mask_img is not None:
        img = load_img(settings.mask_img)
        data = np.nan_to_num(np.asanyarray(img.dataobj))
        what = f"planted.mask_img={settings.mask_img}"
        return place_of_mask(data > max(data.max(), 0) / 2, img.affine, what, settings)
    assert settings.center_mm is not None
    return sphere(settings.center_mm, settings.radius_mm)


def place_of_mask(inside: np.ndarray, affine: np.ndarray, what: str, settings: PlantedEffect) -> Place:
    """Location from a mask of voxels.

    Parameters
    ----------
    inside : bool ndarray of shape (X, Y, Z)
    affine : ndarray of shape (4, 4)
    what : str
        Name of the setting, for messages.
    settings : PlantedEffect
        A region that shrinks or expands must be connected.
    """
    if not inside.any():
        raise PlantedError(f"{what}: has no voxel; give another region")
    corners = nib.affines.apply_affine(affine, np.argwhere(inside))
    extent = np.ptp(corners, axis=0).max() + nib.affines.voxel_sizes(affine).max()
    # the margin includes the surroundings that compensate for a change of volume
    margin_mm = extent + (settings.edge_mm or 0) if settings.deforms else 5.0
    grid = _fine_grid(corners, margin_mm, min(FINEST_MM, float(nib.affines.voxel_sizes(affine).min())))
    img = nib.Nifti1Image(inside.astype(np.float32), affine)
    fine = resample_to_grid(img, grid, antialias=False) > 0.5
    pieces, n_pieces = ndimage.label(fine, np.ones((3, 3, 3)))
    if settings.deforms and np.bincount(pieces.ravel())[1:].max(initial=0) < ONE_PIECE * fine.sum():
        raise PlantedError(
            f"{what}: is in {n_pieces} pieces; {settings.kind} needs a region in one piece "
            "(use one side or one region, or kind=intensity)"
        )
    step = float(grid.spacing_mm[0])
    if not fine.any():
        raise PlantedError(f"{what}: is too thin; give a region of some voxels")
    depth = ndimage.distance_transform_edt(fine) - ndimage.distance_transform_edt(~fine)
    depth = ndimage.gaussian_filter(
        step * (depth - 0.5 * np.sign(depth)), 0.7
    )  # smooths the steps between voxels
    # smoothing moves the surface of thin parts; the volume of the region is restored
    volume = inside.sum() * abs(np.linalg.det(affine[:3, :3]))
    n_inside = min(max(round(volume / step**3), 1), depth.size - 1)
    depth -= np.partition(depth.ravel(), depth.size - n_inside - 1)[depth.size - n_inside - 1]
    origin = grid.affine[:3, 3]
    places = nib.affines.apply_affine(grid.affine, np.argwhere(depth > 0))
    center = places.mean(axis=0)

    def depth_mm(points: np.ndarray) -> np.ndarray:
        voxels = np.moveaxis((np.asarray(points) - origin) / step, -1, 0)
        return ndimage.map_coordinates(depth, voxels, order=1, mode="nearest")

    return Place(
        center_mm=center,
        volume_ml=len(places) * step**3 / 1000,
        deepest_mm=float(depth.max()),
        reach_mm=float(_norm(places - center).max()),
        depth_mm=depth_mm,
    )


def world_mm(grid: Grid) -> np.ndarray:
    """World coordinates of the voxel centres, (X, Y, Z, 3)."""
    return nib.affines.apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))


def _fine_grid(corners: np.ndarray, margin_mm: float, step_mm: float) -> Grid:
    low, high = corners.min(axis=0) - margin_mm, corners.max(axis=0) + margin_mm
    affine = np.diag([step_mm, step_mm, step_mm, 1.0])
    affine[:3, 3] = low
    x, y, z = (int(n) for n in np.ceil((high - low) / step_mm) + 1)
    return Grid("around a region", (x, y, z), affine)


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)

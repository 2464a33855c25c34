"""Changes of a volume by a planted effect: volume or intensity of a region."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from xai_brain.config.planted_effect import PlantedEffect, PlantedError
from xai_brain.data.planted.local_change import jacobian_determinant, scaled_about
from xai_brain.data.planted.placement import Place, world_mm
from xai_brain.io.nifti import Grid

SPLINE_PAD_VOXELS = 8  # beyond it a cubic spline does not depend on the border
LEAST_JACOBIAN = 0.1  # limits of the pullback, to avoid folding


@dataclass(frozen=True)
class SoftRegion:
    """A region on a grid whose intensity changes with a soft edge inside it.

    Parameters
    ----------
    profile : ndarray of shape grid.shape
        Share of the change, 0 outside.
    """

    profile: np.ndarray

    @property
    def zone(self) -> np.ndarray:
        """Voxels that can change."""
        return self.profile > 0

    def mean(self, volume: np.ndarray, brain_mask: np.ndarray) -> float:
        """Mean of the voxels of the region in the brain."""
        return float(volume[self.zone & brain_mask].mean(dtype=np.float64))

    def changed(self, volume: np.ndarray, brain_mask: np.ndarray, mean_change: float) -> np.ndarray:
        """The volume, in which the mean of the region in the brain is changed by `mean_change`."""
        region = self.zone & brain_mask
        result = volume.copy()
        result[region] += (mean_change / self.profile[region].mean()) * self.profile[region]
        return result


def soft_region(place: Place, grid: Grid, edge_mm: float | None) -> SoftRegion:
    edge = min(edge_mm or place.deepest_mm / 2, place.deepest_mm)
    profile = place.profile(world_mm(grid), edge, edge)
    profile[profile < 1e-6] = 0  # rounding errors of a cosine
    return SoftRegion(profile)


class Deformation:
    """Shrinks or expands a region about its centroid; a margin around it compensates for the change.

    Within the region the Jacobian of the change is 1 + volume change; outside region and margin nothing
    changes.

    Parameters
    ----------
    place : Place
    grid : Grid
    settings : PlantedEffect

    Raises
    ------
    PlantedError
        The strongest change would fold the surrounding tissue.
    """

    def __init__(self, place: Place, grid: Grid, settings: PlantedEffect):
        self.place, self.grid = place, grid
        strongest = 1 + 3 * settings.variation
        self.sign = -1 if settings.kind == "atrophy" else 1
        most = min(strongest * settings.size / 100, 0.9) if self.sign < 0 else strongest * settings.size / 100
        self.edge_mm = settings.edge_mm or place.equivalent_radius_mm
        # an expanding region needs the full profile at its final size
        grown_mm = ((1 + most) ** (1 / 3) - 1) * place.reach_mm if self.sign > 0 else 0.0
        self.full_depth_mm = -grown_mm
        world = world_mm(grid)
        self.zone = self._profile(world) > 1e-6
        if not self.zone.any():
            return
        least = jacobian_determinant(lambda x: self.pullback(x, self.sign * most), world[self.zone]).min()
        if least < LEAST_JACOBIAN:
            raise PlantedError(
                f"planted.size={settings.size:g}: the tissue around the region would fold over itself with a "
                f"margin of {self.edge_mm:.1f} mm; use a larger planted.edge_mm or a smaller size"
            )

    def _profile(self, places: np.ndarray) -> np.ndarray:
        return self.place.profile(places, self.full_depth_mm, self.edge_mm)

    def pullback(self, places: np.ndarray, volume_change: float) -> np.ndarray:
        """Source positions of the content at positions (..., 3) in mm."""
        return scaled_about(places, self.place.center_mm, self._profile(places), volume_change)

    def changed(self, volume: np.ndarray, brain_mask: np.ndarray, strength: float, size: float) -> np.ndarray:
        """The volume, in which the region is enlarged or shrunk by size times strength, percent."""
        region = self.zone & brain_mask
        if strength == 0 or size == 0 or not region.any():
            return volume.copy()
        box = _box(self.zone, SPLINE_PAD_VOXELS)
        # the background is replaced by the nearest brain voxel
        nearest = ndimage.distance_transform_edt(
            ~brain_mask[box], return_distances=False, return_indices=True
        )
        content = volume[box][tuple(nearest)].astype(np.float64)
        voxels = np.argwhere(region)
        places = nib.affines.apply_affine(self.grid.affine, voxels)
        source_mm = self.pullback(places, self.sign * strength * size / 100)
        source = nib.affines.apply_affine(np.linalg.inv(self.grid.affine), source_mm)
        source -= [part.start for part in box]
        result = volume.copy()
        # cubic, because linear interpolation would smooth the noise of the region, a detectable difference
        result[region] = ndimage.map_coordinates(content, source.T, order=3, mode="nearest")
        return result


def _box(mask: np.ndarray, pad: int) -> tuple[slice, ...]:
    """Bounding box of a mask, padded within the array."""
    return tuple(
        slice(max(part.start - pad, 0), part.stop + pad) for part in ndimage.find_objects(mask.astype(int))[0]
    )

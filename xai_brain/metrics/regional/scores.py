"""Scores of a map for a network that regresses a measure of one region of an atlas."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

FWHM_VOXELS = 2.0
PERCENTILE = 99.0
DILATION_VOXELS = 2
MOST_SHARED = 0.5  # a region that shares more of its mirrored voxels with itself has no mirrored control
SIGMA_PER_FWHM = 1 / np.sqrt(8 * np.log(2))


def suprathreshold(attribution: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    """Absolute values, smoothed, in which values below the 99th percentile of the brain are 0.

    Parameters
    ----------
    attribution : ndarray of shape (X, Y, Z)
        Raw, signed values.
    brain_mask : bool ndarray of shape (X, Y, Z)

    Returns
    -------
    ndarray of shape (X, Y, Z)
        0 outside the brain.
    """
    magnitude = np.where(brain_mask, np.abs(attribution.astype(np.float64)), 0)
    smooth = ndimage.gaussian_filter(magnitude, FWHM_VOXELS * SIGMA_PER_FWHM, mode="constant")
    level = np.percentile(smooth[brain_mask], PERCENTILE)
    return np.where(brain_mask & (smooth >= level), smooth, 0)


def dilated(region: np.ndarray) -> np.ndarray:
    """The region and all voxels that are at most 2 steps along the axes away from it."""
    cross = ndimage.generate_binary_structure(3, 1)
    return ndimage.binary_dilation(region, cross, iterations=DILATION_VOXELS)


def mirrored(region: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The region on the other side of the plane x = 0 mm.

    Parameters
    ----------
    region : bool ndarray of shape (X, Y, Z)
    affine : ndarray of shape (4, 4)
        From voxels to world mm (RAS+).
    """
    voxels = np.moveaxis(np.indices(region.shape), 0, -1).reshape(-1, 3)
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    world[:, 0] *= -1
    source = np.rint((world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    there = ((source >= 0) & (source < region.shape)).all(1)
    result = np.zeros(len(voxels), bool)
    result[there] = region[tuple(source[there].T)]
    return result.reshape(region.shape)


@dataclass(frozen=True, eq=False)
class RegionalTruth:
    """The region that a map should mark, and the regions with which it is compared.

    Parameters
    ----------
    regions : int ndarray of shape (X, Y, Z)
        Number of the region of each voxel, from 1; 0 for voxels of none.
    number : int
        The region that is correct.
    affine : ndarray of shape (4, 4)
    """

    regions: np.ndarray
    number: int
    affine: np.ndarray

    @cached_property
    def region(self) -> np.ndarray:
        return self.regions == self.number

    @cached_property
    def near(self) -> np.ndarray:
        return dilated(self.region)

    @cached_property
    def mirror(self) -> np.ndarray | None:
        """Mirrored region without the region; None if it is the same region (bilateral or at the midline)."""
        other = mirrored(self.region, self.affine)
        if not other.any() or (other & self.region).sum() > MOST_SHARED * other.sum():
            return None
        return other & ~self.region

    def scores(self, attribution: np.ndarray, brain_mask: np.ndarray) -> dict[str, float]:
        """Compare a map with the region, after `suprathreshold`.

        Returns
        -------
        dict
            ``rma``, share of the mass in the region; ``top_region``, whether the region has the greatest mean
            of all regions; ``false_positive``, share of the mass outside the region dilated by 2 voxels;
            ``rma_mirrored``, share of the mass in the mirrored region. For an empty map the first two are 0,
            the others NaN. NaN where the mirrored region is the same region.
        """
        values = suprathreshold(attribution, brain_mask)
        total = values.sum()
        if total == 0:
            return {"rma": 0.0, "top_region": 0.0, "false_positive": np.nan, "rma_mirrored": np.nan}
        inside = values[brain_mask]
        sums = np.bincount(self.regions[brain_mask], inside)
        sizes = np.bincount(self.regions[brain_mask])
        means = np.divide(sums, sizes, out=np.zeros(len(sums)), where=sizes > 0)[1:]
        in_mirror = np.nan if self.mirror is None else values[self.mirror].sum() / total
        return {
            "rma": float(values[self.region].sum() / total),
            "top_region": float(means.max() > 0 and means.argmax() == self.number - 1),
            "false_positive": float(values[~self.near].sum() / total),
            "rma_mirrored": float(in_mirror),
        }

    def chance(self, brain_mask: np.ndarray) -> dict[str, float]:
        """Expectation of each score for a map of random values."""
        n = brain_mask.sum()
        n_regions = len(np.unique(self.regions[brain_mask & (self.regions > 0)]))
        in_mirror = np.nan if self.mirror is None else (self.mirror & brain_mask).sum() / n
        return {
            "rma": float((self.region & brain_mask).sum() / n),
            "top_region": 1 / n_regions,
            "false_positive": float((~self.near & brain_mask).sum() / n),
            "rma_mirrored": float(in_mirror),
        }

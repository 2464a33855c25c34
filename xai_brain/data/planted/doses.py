"""Independent doses of a change in each of several regions of the same image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256

import numpy as np
import pandas as pd
from scipy.special import ndtri

from xai_brain.config.planted_effect import PlantedEffect, PlantedError
from xai_brain.data.planted.changes import LEAST_JACOBIAN, Deformation
from xai_brain.data.planted.local_change import jacobian_determinant
from xai_brain.data.planted.placement import Place, place_of_mask, world_mm
from xai_brain.io.nifti import Grid

GRADIENT_MM = 3.0  # step of the gradient of the depth, which is not smooth in the middle of a region
SMALL_CHANGE = 0.01  # change of volume by which the distance of the movement is found
LEAST_CHANGE = 0.05  # of the local volume, relative to that of a flat plate


def independent_doses(
    participant_ids: Sequence[str], regions: Sequence[str], random_state: int = 0
) -> pd.DataFrame:
    """One dose per participant and region: normal scores in an order drawn for each region.

    The doses of a region have mean 0 and standard deviation 1, and those of different regions are exactly
    uncorrelated over all participants. They are determined by the ids, whose order has no influence.

    Parameters
    ----------
    participant_ids : sequence of str
        Different ids.
    regions : sequence of str
    random_state : int, default 0

    Returns
    -------
    pandas.DataFrame
        Indexed by participant_id in the given order, one column per region.

    Raises
    ------
    PlantedError
        There are too few participants for as many uncorrelated doses.
    """
    ids = sorted(participant_ids)
    if len(ids) < len(regions) + 2:
        raise PlantedError(
            f"{len(ids)} participants: independent doses of {len(regions)} regions need at least "
            f"{len(regions) + 2}"
        )
    scores = ndtri((np.arange(len(ids)) + 0.5) / len(ids))
    drawn = np.empty((len(ids), len(regions)))
    for k, region in enumerate(regions):
        keys = [sha256(f"{random_state}/dose/{region}/{i}".encode()).hexdigest() for i in ids]
        drawn[np.argsort(keys), k] = scores
    directions, triangle = np.linalg.qr(drawn - drawn.mean(0))
    doses = directions * np.sign(np.diag(triangle)) * np.sqrt(len(ids))
    index = pd.Index(ids, name="participant_id")
    return pd.DataFrame(doses, index, list(regions)).loc[list(participant_ids)]


class IntensityDoses:
    """Changes the mean intensity of each region; all voxels of a region by the same value.

    Parameters
    ----------
    masks : mapping of str to bool ndarray of shape (X, Y, Z)
        Voxels of each region.
    size : float
        Change for a dose of 1, in standard deviations of the region's mean over participants.
    sds : mapping of str to float
        These standard deviations.
    """

    def __init__(self, masks: Mapping[str, np.ndarray], size: float, sds: Mapping[str, float]):
        self.masks, self.steps = masks, {region: size * sds[region] for region in masks}

    def changed(self, volume: np.ndarray, brain_mask: np.ndarray, doses: Mapping[str, float]) -> np.ndarray:
        """The volume (float32) with the doses of a participant."""
        result = volume.astype(np.float64)
        for region, mask in self.masks.items():
            result[mask & brain_mask] += self.steps[region] * doses[region]
        return result.astype(np.float32)


class InnerDeformation(Deformation):
    """A local change of volume inside a region whose surface does not move, for regions of any shape.

    Content moves along the gradient of the depth, by a distance that increases with the depth from 0 at the
    surface and is constant in the deeper half of the voxels. There the local volume changes by the requested
    share (mean over voxels, for small changes); the outer half makes up for it.

    Parameters
    ----------
    place : Place
    grid : Grid
    strongest : float
        Largest absolute change, for the check that tissue does not fold.
    where : str
        Name of the region, for messages.
    """

    def __init__(self, place: Place, grid: Grid, strongest: float, where: str):
        self.place, self.grid, self.sign, self.amount = place, grid, 1, 1.0
        world = world_mm(grid)
        depth = place.depth_mm(world)
        self.zone = depth > 0
        if not self.zone.any():
            raise PlantedError(f"{where}: has no voxel of the grid {grid.name} inside; give a larger region")
        self.half_mm = float(np.median(depth[self.zone]))
        self.core = depth >= self.half_mm
        small = partial(self.pullback, volume_change=SMALL_CHANGE)
        change = float(1 - jacobian_determinant(small, world[self.core]).mean()) / SMALL_CHANGE
        if change < LEAST_CHANGE:
            raise PlantedError(f"{where}: is too thin for a change of volume; use regional.kind=intensity")
        self.amount = 1 / change
        least = [
            jacobian_determinant(partial(self.pullback, volume_change=size), world[self.zone]).min()
            for size in (-strongest, strongest)
        ]
        if min(least) < LEAST_JACOBIAN:
            raise PlantedError(f"regional.size: the tissue of {where} would fold over itself; reduce it")

    def pullback(self, places: np.ndarray, volume_change: float) -> np.ndarray:
        """Source positions of the content at positions (..., 3) in mm; deeper ones for an expansion."""
        steps = GRADIENT_MM * np.eye(3)
        gradient = np.stack(
            [self.place.depth_mm(places + step) - self.place.depth_mm(places - step) for step in steps], -1
        ) / (2 * GRADIENT_MM)
        depth = np.clip(self.place.depth_mm(places), 0, self.half_mm)
        distance = volume_change * self.amount * depth
        return places + distance[..., None] * gradient


class VolumeDoses:
    """Changes the local volume inside each region; see `InnerDeformation`.

    Parameters
    ----------
    sides : mapping of str to sequence of bool ndarray
        For each region the masks of its labels, on the voxels of `affine`.
    affine : ndarray of shape (4, 4)
    masks : mapping of str to bool ndarray of shape (X, Y, Z)
        Voxels of each region on the grid, outside of which nothing changes.
    grid : Grid
    size : float
        Change of the local volume for a dose of 1, percent.
    strongest : float
        Largest absolute dose.
    """

    def __init__(
        self,
        sides: Mapping[str, Sequence[np.ndarray]],
        affine: np.ndarray,
        masks: Mapping[str, np.ndarray],
        grid: Grid,
        size: float,
        strongest: float,
    ):
        self.masks, self.size = masks, size
        inside_only = PlantedEffect(kind="intensity")  # the surroundings do not change
        self.parts = {
            region: [
                InnerDeformation(
                    place_of_mask(inside, affine, region, inside_only), grid, size * strongest / 100, region
                )
                for inside in labels
            ]
            for region, labels in sides.items()
        }

    def changed(self, volume: np.ndarray, brain_mask: np.ndarray, doses: Mapping[str, float]) -> np.ndarray:
        """The volume (float32) with the doses of a participant."""
        result = volume.astype(np.float64)
        for region, parts in self.parts.items():
            changed = result
            for part in parts:
                changed = part.changed(changed, brain_mask, doses[region], self.size)
            inside = self.masks[region] & brain_mask
            result[inside] = changed[inside]
        return result.astype(np.float32)


def region_means(
    volumes: Sequence[str], brain_masks: Sequence[str], masks: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Mean intensity of each region in the brain of each participant, (n_participants, n_regions).

    Parameters
    ----------
    volumes, brain_masks : sequence of str
        Paths of prepared volumes and brain masks (.npy).
    masks : mapping of str to bool ndarray of shape (X, Y, Z)

    Raises
    ------
    PlantedError
        A region lies outside the brain of a participant.
    """
    rows = []
    for path, mask_path in zip(volumes, brain_masks, strict=True):
        volume, brain = np.load(path), np.load(mask_path)
        row = {}
        for region, mask in masks.items():
            inside = mask & brain
            if not inside.any():
                raise PlantedError(f"{region}: lies outside the brain of {path}; leave the region out")
            row[region] = float(volume[inside].mean(dtype=np.float64))
        rows.append(row)
    return pd.DataFrame(rows)

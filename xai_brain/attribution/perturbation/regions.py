"""Regions that are replaced as a whole: those of an atlas, and supervoxels of an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import pandas as pd
import torch

from xai_brain.atlas.atlas import load_atlas
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.reference import Reference
from xai_brain.io.nifti import Grid

N_ROUNDS = 10  # of the assignment of voxels to supervoxels
ROWS = 65536  # voxels whose distances to all centres are in memory at once


def atlas_regions(
    labels_img: str | Path | nib.Nifti1Image,
    table: str | Path | pd.DataFrame | None,
    reference: Reference | None,
) -> torch.Tensor:
    """Regions of an atlas in the brain, numbered 1, 2, ... in the order of their labels, (X, Y, Z).

    Parameters
    ----------
    labels_img, table
        See `xai_brain.atlas.atlas.load_atlas`.
    reference : Reference
        With its affine.

    Raises
    ------
    AttributionError
        There is no reference, it has no affine, or no region lies in the brain.
    """
    if reference is None or reference.affine is None:
        raise AttributionError("an atlas needs Reference(..., affine=...) to be placed on the volumes")
    x, y, z = reference.brain_mask.shape
    atlas = load_atlas(labels_img, table)
    labels = torch.tensor(atlas.on_grid(Grid("inputs", (x, y, z), reference.affine.numpy())))  # a copy
    labels[~reference.brain_mask.cpu()] = 0
    regions = numbered(labels)
    if not int(regions.max()):
        raise AttributionError(
            f"atlas {atlas.name}: no region lies in the brain of the volumes; is it in their space?"
        )
    return regions


def supervoxels(
    volume: torch.Tensor, brain: torch.Tensor, size_voxels: Sequence[float], contrast: float
) -> torch.Tensor:
    """Compact groups of neighbouring voxels of similar intensity, numbered 1, 2, ..., (X, Y, Z), on the CPU.

    Voxels are assigned to the nearest of several centres, which are the means of their voxels (SLIC). The
    distance has the edge of a supervoxel as unit of length.

    Parameters
    ----------
    volume : Tensor of shape (C, X, Y, Z)
    brain : bool Tensor of shape (X, Y, Z)
        Outside, the number is 0.
    size_voxels : sequence of 3 float
        Edges of a supervoxel along the axes.
    contrast : float
        Distance of two intensities that differ by a standard deviation. 0: the shape does not depend on
        intensities.

    References
    ----------
    Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", IEEE TPAMI 2012.
    """
    volume, brain = volume.detach().cpu(), brain.cpu()  # the same supervoxels on every device
    regions = torch.zeros(brain.shape, dtype=torch.long)
    if not brain.any():
        return regions
    places = brain.nonzero() / torch.tensor(size_voxels)
    intensities = volume[:, brain].T  # (V, C)
    sd = intensities.std(0, correction=0)
    scaled = torch.where(sd > 0, intensities / sd, 0) * contrast
    features = torch.cat([places, scaled], 1)
    first = (places - places.amin(0)).floor().long()  # boxes, from which the centres start
    numbers = torch.unique(first, dim=0, return_inverse=True)[1]
    for _ in range(N_ROUNDS):
        numbers = torch.unique(numbers, return_inverse=True)[1]  # without those that have lost all voxels
        sums = features.new_zeros(int(numbers.max()) + 1, features.shape[1])
        centres = sums.index_add(0, numbers, features) / numbers.bincount()[:, None]
        numbers = torch.cat([torch.cdist(rows, centres).argmin(1) for rows in features.split(ROWS)])
    regions[brain] = numbers + 1
    return numbered(regions)


def numbered(labels: torch.Tensor) -> torch.Tensor:
    """Labels, renumbered 1, 2, ... in their order; 0 stays 0."""
    values = labels[labels != 0].unique()
    return torch.where(labels != 0, torch.searchsorted(values, labels) + 1, 0)


def spread_evenly(values: torch.Tensor, regions: torch.Tensor, n_channels: int = 1) -> torch.Tensor:
    """Map in which the voxels of a region have equal values that sum to its value, (X, Y, Z).

    Parameters
    ----------
    values : Tensor of shape (n_regions,)
    regions : int Tensor of shape (X, Y, Z)
        Numbers from 1; voxels with the number 0 are 0.
    n_channels : int, default 1
        Channels of the volume, to all of which the map belongs.
    """
    n_voxels = regions.flatten().bincount(minlength=len(values) + 1)[1:]
    shares = values / (n_voxels * n_channels)
    return torch.cat([shares.new_zeros(1), shares])[regions]

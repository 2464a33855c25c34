"""What all mask methods share: coarse masks, where they may act, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from xai_brain.attribution.reference import Reference


def brain_of(inputs: torch.Tensor, reference: Reference | None, restrict: bool = True) -> torch.Tensor:
    """Where a mask may act: 1 or 0, (1 or N, 1, X, Y, Z).

    The brain of the training subjects; without a reference, where a volume is not exactly 0 in all channels.
    """
    if not restrict:
        return torch.ones_like(inputs[:1])
    if reference is not None:
        reference.check(inputs)
        return reference.brain_mask.to(inputs)[None, None]
    return (inputs != 0).any(1, keepdim=True).to(inputs)


def coarse_shape(shape: torch.Size, spacing_voxels: int) -> list[int]:
    """Nodes of a coarse mask for volumes (..., X, Y, Z)."""
    return [max(math.ceil(n / spacing_voxels), 2) for n in shape[-3:]]


def upsampled(coarse: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Trilinear, from (N, 1, X', Y', Z') to the last three axes of `shape`."""
    return nn.functional.interpolate(coarse, shape[-3:], mode="trilinear", align_corners=False)


def smooth_masks(
    cells: torch.Tensor, shifts: torch.Tensor, cell_voxels: Sequence[float], shape: Sequence[int]
) -> torch.Tensor:
    """Trilinear interpolation of coarse masks (M, x, y, z) to voxels, (M, 1, X, Y, Z).

    Parameters
    ----------
    cells : Tensor of shape (M, x, y, z)
    shifts : Tensor of shape (M, 3)
        Move along each axis, in cells, from 0 to 1.
    cell_voxels : sequence of 3 float
        Edges of a cell.
    shape : sequence of 3 int
    """
    weights = []
    for axis, (size, cell) in enumerate(zip(shape, cell_voxels, strict=True)):
        n_cells = cells.shape[1 + axis]
        voxels = (torch.arange(size, device=cells.device) + 0.5) / cell - 0.5
        places = (voxels + shifts[:, axis, None]).clamp(0, n_cells - 1)  # (M, X), in cells
        distances = (places[..., None] - torch.arange(n_cells, device=cells.device)).abs()
        weights.append((1 - distances).clamp_min(0))  # (M, X, x)
    return torch.einsum("mijk,mxi,myj,mzk->mxyz", cells, *weights)[:, None]


def mean_in(values: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
    """Mean in the brain, (N,)."""
    brain = brain.expand_as(values)
    return (values * brain).sum((1, 2, 3, 4)) / brain.sum((1, 2, 3, 4)).clamp_min(1)


def mean_and_sd_in(volumes: torch.Tensor, brain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation in the brain of every channel, (N, C, 1, 1, 1) each."""
    n_voxels = brain.expand(len(volumes), -1, -1, -1, -1).sum((2, 3, 4), keepdim=True).clamp_min(1)
    mean = (volumes * brain).sum((2, 3, 4), keepdim=True) / n_voxels
    square = ((volumes - mean).square() * brain).sum((2, 3, 4), keepdim=True)
    return mean, (square / n_voxels).sqrt()


def total_variation(coarse: torch.Tensor, spacing_voxels: float, beta: float) -> torch.Tensor:
    """Sum over axes of the mean |difference of neighbouring voxels|^beta of the upsampled mask, (N,).

    Between two nodes a trilinear mask is linear, so that the nodes determine it.
    """
    steps = [(coarse.diff(dim=axis) / spacing_voxels).abs() for axis in (2, 3, 4)]
    return torch.stack([step.pow(beta).mean((1, 2, 3, 4)) for step in steps]).sum(0)

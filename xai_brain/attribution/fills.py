"""What takes the place of tissue in a perturbation."""

from __future__ import annotations

import math

import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.reference import Reference

FILLS = ("counterfactual_mean", "blur")


def make_fill(
    name: str,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    reference: Reference | None,
    blur_sigma_voxels: float,
) -> torch.Tensor:
    """Replacement volumes, of the shape of `inputs`.

    Raises
    ------
    AttributionError
        Unknown fill, or one that needs training subjects and got none.
    """
    if name == "blur":
        return gaussian_blur(inputs, blur_sigma_voxels)
    if name != "counterfactual_mean":
        raise AttributionError(f"fill={name!r}: one of {', '.join(FILLS)}")
    if reference is None:
        raise AttributionError(
            'fill="counterfactual_mean" needs reference=Reference(...) of training subjects'
        )
    return reference.counterfactual_mean(targets).to(inputs)


def gaussian_blur(inputs: torch.Tensor, sigma_voxels: float) -> torch.Tensor:
    """Gaussian smoothing of the last three axes with replicated edges.

    Parameters
    ----------
    inputs : Tensor of shape (N, 1, X, Y, Z)
    sigma_voxels : float
        True standard deviation: the kernel reaches to four of them.
    """
    radius = max(math.ceil(4 * sigma_voxels), 1)
    positions = torch.arange(-radius, radius + 1, dtype=inputs.dtype, device=inputs.device)
    kernel = torch.exp(-(positions**2) / (2 * sigma_voxels**2))
    kernel = kernel / kernel.sum()
    for axis in (2, 3, 4):
        shape = [1] * 5
        shape[axis] = len(kernel)
        # (left, right) pairs from the last axis backwards
        padding = [radius if (4 - axis) == i // 2 else 0 for i in range(6)]
        padded = nn.functional.pad(inputs, padding, mode="replicate")
        inputs = nn.functional.conv3d(padded, kernel.view(shape))
    return inputs

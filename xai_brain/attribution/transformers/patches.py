"""The patches of a network: where each token lies in the volume.

The position of tokens is measured, not assumed. The logit with which a token attends to itself in the first
attention depends on the voxels of its own patch only. The gradient of the sum of these logits, weighted by
the numbers of the tokens, over the gradient of the plain sum is therefore the number of the token to which a
voxel belongs. This holds for every patch embedding (convolution or rearrangement and linear layer), order of
tokens and padding, and shows where patches overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.transformers.attention_weights import check_attention, read_attention

N_PROBES = 3  # volumes of noise: a voxel without gradient in all of them reaches no token
TOLERANCE = 0.1  # of a measured number, from the next whole one


@dataclass(frozen=True)
class PatchGrid:
    """Patches on a regular grid in a volume.

    Parameters
    ----------
    order : Tensor of shape (GX, GY, GZ)
        Number of the token of each patch.
    first, size : tuple of 3 float
        Centre of the first patch and size of a patch along each axis, in voxels.
    covered : Tensor of shape (X, Y, Z)
        True where a voxel belongs to a patch.
    n_tokens : int
        Tokens of the first attention, with those that have no patch (class token). 0: it is computed within
        windows, so that the numbers of tokens count windows first.
    """

    order: torch.Tensor
    first: tuple[float, ...]
    size: tuple[float, ...]
    covered: torch.Tensor
    n_tokens: int

    def interpolated(self, values: torch.Tensor, merged: int = 1) -> torch.Tensor:
        """Values of patches, (N, GX, GY, GZ), in the volume, (N, 1, X, Y, Z).

        They are at the centres of the patches, with trilinear interpolation between these; beyond the
        outermost centres they are constant. Voxels that belong to no patch are 0.

        Parameters
        ----------
        values : Tensor of shape (N, GX, GY, GZ)
        merged : int, default 1
            Number of patches along each axis that were merged into one.
        """
        weights = []
        for axis, n_nodes in enumerate(values.shape[1:]):
            first = self.first[axis] + self.size[axis] * (merged - 1) / 2
            voxels = torch.arange(self.covered.shape[axis], device=values.device)
            position = ((voxels - first) / (self.size[axis] * merged)).clamp(0, n_nodes - 1)
            nodes = torch.arange(n_nodes, device=values.device)
            weights.append((1 - (position[:, None] - nodes).abs()).clamp_min(0).to(values))
        volume = torch.einsum("nabc,xa,yb,zc->nxyz", values, *weights)
        return (volume * self.covered)[:, None]


def find_patches(model: nn.Module, volume: torch.Tensor, method: str) -> PatchGrid:
    """Measure the patches of a network.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    volume : Tensor of shape (1, C, X, Y, Z)
        Its shape, dtype and device count.
    method : str
        For messages.

    Raises
    ------
    AttributionError
        There is no attention that can be read, or the patches overlap or do not form a regular grid.
    """
    check_attention(model, volume, method)
    numbers, covered, n_tokens = _token_of_voxel(model, volume, method)
    if not bool(covered.any()):
        raise AttributionError(f"{method}: the tokens of the first attention do not depend on the image")
    boxes = [_boxes(numbers, covered, axis, method) for axis in range(3)]
    starts, first, size, box_of_voxel = zip(*boxes, strict=True)
    order = numbers[torch.meshgrid(*starts, indexing="ij")]
    same = numbers == order[torch.meshgrid(*box_of_voxel, indexing="ij")]
    if not bool(same[covered].all()) or len(order.unique()) < order.numel():
        raise AttributionError(_not_a_grid(method))
    return PatchGrid(order, first, size, covered, n_tokens)


def probe(volume: torch.Tensor, number: int) -> torch.Tensor:
    """A volume of noise of the same shape, dtype and device, which asks for gradients."""
    noise = torch.randn(volume.shape, generator=torch.Generator().manual_seed(number))
    return noise.to(volume).requires_grad_()


def _token_of_voxel(
    model: nn.Module, volume: torch.Tensor, method: str
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Number of the token of each voxel and whether there is one, both (X, Y, Z); `PatchGrid.n_tokens`."""
    size = torch.zeros(volume.shape[2:], dtype=torch.float64, device=volume.device)
    sums = [size, size]
    base = n_tokens = 0
    for number in range(N_PROBES):
        noise = probe(volume, number)
        first = read_attention(model, noise)[1][0]
        if first.logits.shape[-1] != first.logits.shape[-2]:
            raise AttributionError(_not_among_tokens(method, first.place, first.logits))
        own = first.logits.diagonal(dim1=-2, dim2=-1)  # (windows, heads, L) or (windows, L)
        own = (own.sum(1) if own.ndim == 3 else own).flatten()
        n_tokens = own.numel() if first.logits.shape[0] == 1 else 0
        base = int(own.numel() ** 0.5) + 1  # two digits, because float32 does not separate large numbers
        index = torch.arange(own.numel(), device=own.device)
        codes = (torch.ones_like(index), index % base, index // base)
        plain, *digits = (
            torch.autograd.grad((own * code).sum(), noise, retain_graph=True)[0][0].double() for code in codes
        )
        size = size + plain.square().sum(0)
        sums = [s + (plain * digit).sum(0) for s, digit in zip(sums, digits, strict=True)]
    covered = size > 0
    low, high = (torch.where(covered, s / size, 0.0) for s in sums)
    if any(bool(((digit - digit.round()).abs() > TOLERANCE).any()) for digit in (low, high)):
        raise AttributionError(
            f"{method} cannot place tokens in the volume: each must depend on the voxels of its own patch "
            "only, but patches overlap or are mixed before the first attention; use AttnLRP or GradCAM"
        )
    return (high.round() * base + low.round()).long(), covered, n_tokens


def _boxes(
    numbers: torch.Tensor, covered: torch.Tensor, axis: int, method: str
) -> tuple[torch.Tensor, float, float, torch.Tensor]:
    """Along one axis: starts of the patches, centre of the first and size, and the patch of each voxel."""
    inside = covered.movedim(axis, 0).flatten(1).any(1).nonzero()[:, 0]
    low, high = int(inside[0]), int(inside[-1]) + 1
    along = torch.where(covered, numbers, -1).movedim(axis, 0).flatten(1)[low:high]
    changes = (along.diff(dim=0) != 0).any(1).nonzero()[:, 0] + low + 1
    starts = torch.cat([changes.new_tensor([low]), changes])
    lengths = torch.cat([starts, starts.new_tensor([high])]).diff()
    size = int(lengths.max())
    if bool((lengths[1:-1] != size).any()):
        raise AttributionError(_not_a_grid(method))
    # the first patch may be cut off by padding
    first = int(starts[1]) - size if len(starts) > 1 else low
    voxels = torch.arange(len(numbers.movedim(axis, 0)), device=numbers.device)
    return (
        starts,
        first + (size - 1) / 2,
        size,
        (torch.searchsorted(starts, voxels, right=True) - 1).clamp_min(0),
    )


def _not_a_grid(method: str) -> str:
    return f"{method} cannot place tokens in the volume: their patches are not boxes of one size on a grid"


def _not_among_tokens(method: str, place: str, weights: torch.Tensor) -> str:
    return f"{method} needs attention of tokens to the same tokens, but {place} has {tuple(weights.shape)}"

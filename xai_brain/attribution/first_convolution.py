"""The gradient of a convolution with respect to a one-channel image, twice as fast on CPUs."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

BLOCK = 2  # voxels along each axis that are computed together


def use_fast_backward(model: nn.Module) -> None:
    """Use a faster backward pass in the first convolutions of a model; the forward pass is unchanged.

    Parameters
    ----------
    model : torch.nn.Module
        Inside `preserved`, which takes this back at its end; weights must not change before.
    """
    for module in model.modules():
        if FirstConvolution.fits(module) and "forward" not in vars(module):
            module.forward = FirstConvolution(module).forward  # type: ignore[arg-type]


class FirstConvolution(nn.Module):
    """A `Conv3d` of one input channel, whose backward pass to the image is a convolution itself.

    The usual one writes a single channel and leaves a processor's vectors empty. Here the voxels of each
    2x2x2 block of the image are the channels of a convolution with stride 2: the same sums in another order.

    Parameters
    ----------
    convolution : torch.nn.Conv3d
        See `fits`.
    """

    def __init__(self, convolution: nn.Conv3d):
        super().__init__()
        self.convolution = convolution
        weight = convolution.weight.detach()  # (C, 1, K, K, K)
        sizes = weight.shape[2:]
        flipped = weight.flip(2, 3, 4)[:, 0]  # (C, K, K, K)
        blocks = weight.new_zeros(BLOCK**3, weight.shape[0], *(k + BLOCK - 1 for k in sizes))
        for number, (a, b, c) in enumerate(product(range(BLOCK), repeat=3)):
            blocks[number, :, a : a + sizes[0], b : b + sizes[1], c : c + sizes[2]] = flipped
        self.register_buffer("blocks", blocks.contiguous(memory_format=torch.channels_last_3d))

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether a module is a convolution of this kind, on the CPU."""
        return (
            type(module) is nn.Conv3d
            and module.in_channels == 1
            and module.stride == module.dilation == (1, 1, 1)
            and module.padding == (0, 0, 0)
            and module.weight.device.type == "cpu"
        )

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """(N, C, X', Y', Z') of (N, 1, X, Y, Z)."""
        return _FirstConvolution.apply(volumes, self.convolution.weight, self.convolution.bias, self.blocks)


class _FirstConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, volumes: Any, weight: Any, bias: Any, blocks: Any) -> torch.Tensor:
        ctx.save_for_backward(blocks)
        ctx.shape, ctx.dtype, ctx.kernel = volumes.shape, volumes.dtype, weight.shape[2:]
        return F.conv3d(volumes, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (blocks,) = ctx.saved_tensors
        n, shape = ctx.shape[0], ctx.shape[2:]
        whole = [-(-size // BLOCK) * BLOCK for size in shape]  # up to full blocks
        gradient, rest = gradients[0], [full - size for size, full in zip(shape, whole, strict=True)]
        if any(rest):  # at the far ends; what both ends need is left to the convolution, which copies nothing
            gradient = F.pad(gradient, [margin for more in rest[::-1] for margin in (0, more)])
        margins = [kernel - 1 for kernel in ctx.kernel]
        inside = F.conv3d(gradient, blocks.to(gradient.dtype), stride=BLOCK, padding=margins)
        a, b, c = inside.shape[2:]
        image = (
            inside.contiguous()
            .view(n, BLOCK, BLOCK, BLOCK, a, b, c)
            .permute(0, 4, 1, 5, 2, 6, 3)
            .reshape(n, 1, *whole)
        )
        return image[:, :, : shape[0], : shape[1], : shape[2]], None, None, None

"""Batch normalisation over all processes that fit a network, on CPUs; torch has it for GPUs only."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from pytorch_lightning.plugins import LayerSync
from torch import nn

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class StatisticsOverRanks(LayerSync):
    """Gives layers of batch normalisation the mean and variance of the whole batch, and takes it back."""

    def apply(self, model: nn.Module) -> nn.Module:
        for layer in model.modules():
            if isinstance(layer, NORMS):
                layer.forward = partial(normalised, layer)  # type: ignore[method-assign]
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        for layer in model.modules():
            if isinstance(layer, NORMS):
                layer.__dict__.pop("forward", None)
        return model


def normalised(layer: Any, values: torch.Tensor) -> torch.Tensor:
    """What a layer of batch normalisation makes of a batch of which every process has a part.

    Parameters
    ----------
    layer : BatchNorm1d, BatchNorm2d or BatchNorm3d
    values : Tensor of shape (N, C, ...)
        Parts may differ in N; that of a process may be one subject.

    Returns
    -------
    Tensor of shape (N, C, ...)
    """
    if not layer.training:
        return type(layer).forward(layer, values)
    given, values = values.dtype, values.float()  # which is another with autocast
    axes = [0, *range(2, values.dim())]
    shape = (1, -1, *[1] * (values.dim() - 2))
    count = torch.full((), values.numel() / values.shape[1], dtype=values.dtype)
    count = _SumOverRanks.apply(count)
    mean = _SumOverRanks.apply(values.sum(axes)) / count
    centred = values - mean.view(shape)
    variance = _SumOverRanks.apply(centred.square().sum(axes)) / count
    if layer.running_mean is not None:
        _remember(layer, mean.detach(), variance.detach() * count / (count - 1))
    scale = (variance + layer.eps).rsqrt()
    if layer.affine:
        return (centred * (scale * layer.weight).view(shape) + layer.bias.view(shape)).to(given)
    return (centred * scale.view(shape)).to(given)


@torch.no_grad()
def _remember(layer: Any, mean: torch.Tensor, variance: torch.Tensor) -> None:
    """Of the statistics, for validation; with momentum null all batches count alike."""
    layer.num_batches_tracked += 1
    share = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, share)
    layer.running_var.lerp_(variance, share)


class _SumOverRanks(torch.autograd.Function):
    """Sum of a tensor over all processes; so is its gradient, as every process uses the sum."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

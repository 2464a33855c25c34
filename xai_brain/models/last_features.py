"""Features of the last layer of a network: the input of the last linear layer that it uses."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


@torch.no_grad()
def last_features(network: nn.Module, volumes: torch.Tensor) -> tuple[torch.Tensor, str] | None:
    """Features of a batch and the name of the layer that receives them.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode.
    volumes : Tensor of shape (N, C, X, Y, Z)

    Returns
    -------
    features : Tensor of shape (N, n_features), on the CPU
    name : str
        None in place of both if the network has no linear layer with one input per image.
    """
    found: list[tuple[torch.Tensor, str]] = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if inputs[0].ndim >= 2 and len(inputs[0]) == len(volumes):
                found[:] = [(inputs[0].flatten(1).cpu(), name)]

        return hook

    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    handles = [module.register_forward_pre_hook(keep(name)) for name, module in layers.items()]
    try:
        network(volumes)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None

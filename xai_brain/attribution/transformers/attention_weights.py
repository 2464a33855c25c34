"""Attention weights of a network with their gradients, from wherever they are computed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.operations import GENERAL_METHODS, trace, track_modules
from xai_brain.attribution.outputs import check_outputs
from xai_brain.attribution.rules import depends
from xai_brain.attribution.transformers.explicit_attention import ExplicitAttention


class Attention(NamedTuple):
    """One call of attention.

    Parameters
    ----------
    place : str
        Module that computes it, for messages.
    logits, weights : Tensor of shape (..., L, S)
        Before and after the softmax, for L queries and S keys. (N, heads, L, S) where all tokens of a volume
        attend to each other, (windows, heads, L, S) where only those of a window do.
    """

    place: str
    logits: torch.Tensor
    weights: torch.Tensor


class AttentionReader(ExplicitAttention):
    """While active, keeps the attention of a network: every softmax over the last of at least three axes."""

    def __init__(self) -> None:
        super().__init__({"softmax": self._softmax})
        self.found: list[Attention] = []
        self.modules: list[str] = []  # that run, outermost first

    def _softmax(self, function: Any, logits: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        weights = function(logits, *args, **kwargs)
        axis = kwargs["dim"] if "dim" in kwargs else args[0]
        if weights.ndim > 2 and axis in (-1, weights.ndim - 1) and depends(weights):
            callers = [module for module in self.modules if not module.endswith("(Softmax)")]
            self.found.append(Attention(callers[-1] if callers else "the network", logits, weights))
        return weights


def read_attention(model: nn.Module, volumes: torch.Tensor) -> tuple[torch.Tensor, list[Attention]]:
    """Outputs (N, n_classes) of a network, and its attention in the order of the computation.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    volumes : Tensor of shape (N, C, X, Y, Z)
        They ask for gradients.
    """
    reader = AttentionReader()
    with track_modules(model, reader.modules), reader:
        outputs = check_outputs(model(volumes))
    return outputs, reader.found


def check_attention(model: nn.Module, volume: torch.Tensor, method: str) -> None:
    """Refuse a network without attention, or with attention that cannot be read.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    volume : Tensor of shape (1, C, X, Y, Z)
    method : str
        For the message.

    Raises
    ------
    AttributionError
    """
    reader = AttentionReader()
    for operation in trace(model, volume, reader):
        if "softmax" in operation.name or "attention" in operation.name:
            raise AttributionError(
                f"{method} cannot read the attention that is computed by {operation}: TorchScript and "
                f"compiled code hide it; methods for any network: {GENERAL_METHODS}"
            )
    if not reader.found:
        raise AttributionError(
            f"{method}: the network has no attention (a softmax over tokens, scaled_dot_product_attention or "
            f"torch.nn.MultiheadAttention); methods for any network: {GENERAL_METHODS}"
        )

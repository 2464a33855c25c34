"""The tokens of a network in which all tokens attend to each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.transformers.attention_weights import Attention, read_attention
from xai_brain.attribution.transformers.patches import N_PROBES, PatchGrid, find_patches, probe


@dataclass(frozen=True)
class Tokens:
    """Tokens of a network.

    Parameters
    ----------
    grid : PatchGrid
    output_tokens : Tensor of shape (L,)
        The tokens on which the output depends after the last attention, as weights that sum to 1: the class
        token, or all tokens where their mean is classified.
    """

    grid: PatchGrid
    output_tokens: torch.Tensor

    def volume(self, values: torch.Tensor) -> torch.Tensor:
        """Values of tokens, (N, L), in the volume, (N, 1, X, Y, Z); tokens without a patch are left out."""
        return self.grid.interpolated(values[:, self.grid.order])


def find_tokens(model: nn.Module, inputs: torch.Tensor, method: str) -> Tokens:
    """Find the tokens of a network by passes with volumes of noise.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    inputs : Tensor of shape (N, C, X, Y, Z)
        The shape of a volume, the dtype and the device count.
    method : str
        For messages.

    Raises
    ------
    AttributionError
        Attention is within windows, to other tokens, or cannot be read; or the tokens cannot be located.
    """
    grid = find_patches(model, inputs[:1], method)
    used = torch.zeros(0)
    for number in range(N_PROBES):
        outputs, found = read_attention(model, probe(inputs[:1], number))
        _check_same_tokens(found, method)
        weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(number)).to(outputs)
        (gradient,) = torch.autograd.grad(
            (outputs * weights).sum(), found[-1].weights, allow_unused=True, materialize_grads=True
        )
        used = gradient.abs().flatten(0, -3).sum((0, 2)) + (used if number else 0)  # (L,)
    if not bool(used.any()):
        raise AttributionError(f"{method}: the output does not depend on the attention of {found[-1].place}")
    return Tokens(grid, (used > 0) / (used > 0).sum())


def heads(attention: torch.Tensor) -> torch.Tensor:
    """Weights or gradients as (N, heads, L, L), also where there is one head, without an axis for it."""
    return attention if attention.ndim == 4 else attention[:, None]


def _check_same_tokens(found: list[Attention], method: str) -> None:
    n_tokens = found[0].weights.shape[-1]
    for attention in found:
        *groups, n_queries, n_keys = attention.weights.shape
        if groups[0] != 1 or len(groups) > 2:
            raise AttributionError(
                f"{method} needs attention among all tokens of a volume, but {attention.place} computes it "
                f"within {groups[0]} windows or groups; use TokenGradCAM or AttnLRP"
            )
        if n_queries != n_keys or n_keys != n_tokens:
            raise AttributionError(
                f"{method} needs attention among the same {n_tokens} tokens in all layers, but "
                f"{attention.place} has {n_queries} queries and {n_keys} keys; use TokenGradCAM or AttnLRP"
            )

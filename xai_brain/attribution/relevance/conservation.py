"""Maps of relevance, whose sum is checked."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from xai_brain.attribution.completeness import check_completeness, sums
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.operations import GENERAL_METHODS
from xai_brain.attribution.outputs import select_outputs
from xai_brain.attribution.rules import Rules

STABILISED = 100  # times more than by rounding is lost in the stabilised divisions of the rules


def conserved_relevance(
    method: str,
    network: nn.Module,
    inputs: torch.Tensor,
    target: int | torch.Tensor | None,
    rules: Callable[[torch.Tensor], Rules],
    chunk_size: int | None,
) -> torch.Tensor:
    """Maps of relevance of a batch, each checked for conservation.

    Parameters
    ----------
    method : str
        For messages.
    network : torch.nn.Module
    inputs, target
        See `Method.attribute`.
    rules : function of the constants of a chunk, (N,), which are 1, that gives its rules
    chunk_size : int, optional

    Raises
    ------
    AttributionError
        The sum of a map is not the output minus the relevance of the constants.
    """
    done = 0

    def explain(volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nonlocal done
        constants = torch.ones(len(volumes), dtype=volumes.dtype, device=volumes.device).requires_grad_()
        with rules(constants):
            outputs = network(volumes)
            output = select_outputs(outputs, targets)
        gradient, of_constants = torch.autograd.grad(
            output.sum(), (volumes, constants), allow_unused=True, materialize_grads=True
        )
        maps, output = (volumes * gradient).detach(), output.detach().double()
        total, absolute = sums(maps)
        largest = outputs.detach().double().abs().flatten(1).amax(1)  # scale of the stabilisers
        size = STABILISED * torch.maximum(largest, of_constants.abs())
        check_completeness(
            method,
            *(total, output - of_constants, absolute, size),
            meaning="the output explained minus the relevance of biases and other constants",
            advice=f"use another method ({GENERAL_METHODS})",
            volumes=range(done, done + len(volumes)),
        )
        done += len(volumes)
        return maps

    return in_chunks(network, inputs, target, explain, chunk_size)

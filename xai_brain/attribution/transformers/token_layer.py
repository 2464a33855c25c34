"""The layer of a transformer at which Grad-CAM weights the features of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.outputs import ClassScore, check_outputs
from xai_brain.attribution.rules import Rules
from xai_brain.attribution.transformers.patches import PatchGrid, find_patches, probe

METHOD = "Grad-CAM on tokens"


@dataclass(frozen=True)
class TokenLayer:
    """Where the features of tokens are found during a pass.

    Parameters
    ----------
    module : torch.nn.Module or None
        None: a layer normalisation, from wherever it is called.
    number : int
        Of the call.
    batch_axis : int
        0 for (N, L, E) and (N, GX, GY, GZ, E), 1 for (L, N, E).
    grid : PatchGrid
    merged : int
        Patches along each axis that were merged into one token.
    """

    module: nn.Module | None
    number: int
    batch_axis: int
    grid: PatchGrid
    merged: int

    def on_grid(self, features: torch.Tensor) -> torch.Tensor:
        """Features or gradients as (N, GX', GY', GZ', E); tokens without a patch are left out."""
        if features.ndim == 5:
            return features
        return features.movedim(self.batch_axis, 0)[:, self.grid.order]


def find_layer(model: nn.Module, inputs: torch.Tensor, name: str | None = None) -> TokenLayer:
    """The layer by name, or the last layer normalisation of several patches on which the output depends.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    inputs : Tensor of shape (N, C, X, Y, Z)
    name : str, optional

    Raises
    ------
    AttributionError
        There is no such layer, or its output is not tokens whose patches are known.
    """
    grid = find_patches(model, inputs[:1], METHOD)
    module = None
    if name is not None:
        inner = model.model if isinstance(model, ClassScore) else model
        module = dict(inner.named_modules()).get(name)
        if module is None:
            raise AttributionError(f"the model has no layer {name!r}: give the dotted name of a module")
    noise = probe(inputs[:1], 0)
    with keep_outputs(module) as kept:
        outputs = check_outputs(model(noise))
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
    for number in reversed(range(len(kept))):
        layer = _layer_of(module, number, kept[number], grid)
        if layer is None:
            continue
        (gradient,) = torch.autograd.grad(
            (outputs * weights).sum(),
            kept[number],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        if bool(layer.on_grid(gradient).any()):
            return layer
    shapes = ", ".join(str(tuple(output.shape)) for output in kept) or "nothing"
    what = "no layer normalisation" if module is None else f"layer {name!r}"
    raise AttributionError(
        f"{METHOD}: {what} gives tokens of several patches on which the output depends ({shapes}); give "
        "another layer=, or use GradCAM for a layer that gives volumes (N, K, X, Y, Z)"
    )


@contextmanager
def keep_outputs(module: nn.Module | None) -> Iterator[list[torch.Tensor]]:
    """Keep the outputs of a module, or of all layer normalisations, with their graph."""
    kept: list[torch.Tensor] = []

    def keep(output: Any) -> Any:
        if not isinstance(output, torch.Tensor):
            return output
        kept.append(output)
        return output.clone()  # operations in place that follow leave `output` as it is

    def normalisation(function: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return keep(function(*args, **kwargs))

    if module is None:
        with Rules({"layer_norm": normalisation}):
            yield kept
        return
    handle = module.register_forward_hook(lambda _, args, output: keep(output))
    try:
        yield kept
    finally:
        handle.remove()


def _layer_of(
    module: nn.Module | None, number: int, output: torch.Tensor, grid: PatchGrid
) -> TokenLayer | None:
    """The layer, if its output for one volume is tokens or a grid of patches, channels last."""
    if output.ndim == 3 and 1 in output.shape[:2]:
        batch_axis = 0 if output.shape[0] == 1 else 1
        is_same = int(grid.order.max()) < output.shape[1 - batch_axis] <= grid.n_tokens
        return TokenLayer(module, number, batch_axis, grid, 1) if is_same else None
    if output.ndim != 5 or max(shape := output.shape[1:4]) == 1:
        return None
    for merged in (2**power for power in range(8)):
        if tuple(-(-n // merged) for n in grid.order.shape) == shape:
            return TokenLayer(module, number, 0, grid, merged)
    return None

"""What the first convolution block of a network makes of a volume."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError, preserved

ACTIVATIONS = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardtanh, nn.Hardswish, nn.Softplus, nn.Tanh, nn.Sigmoid),
)


def feature_maps(model: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, str]:
    """Feature maps of the first convolution block, and the name of the layer that gives them.

    The layer is the first activation after the first 3-D convolution, which may be pooled and normalised
    by then; where no activation is called as a module before the next convolution, the convolution.

    Parameters
    ----------
    model : torch.nn.Module
        Stays as it is.
    inputs : Tensor of shape (N, 1, X, Y, Z)

    Returns
    -------
    features : Tensor of shape (N, C, X', Y', Z')
        On the CPU, float32.
    layer : str

    Raises
    ------
    AttributionError
        The model calls no 3-D convolution.
    """
    found: list[tuple[str, torch.Tensor]] = []  # the convolution, then the activation
    state = {"over": False}

    def note(name: str, module: nn.Module, output: Any) -> None:
        convolution = isinstance(module, nn.Conv3d)
        state["over"] |= convolution and bool(found)
        if not state["over"] and len(found) < 2 and (convolution or found):
            found.append((name, output.detach().float().cpu()))

    with preserved(model), torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, (nn.Conv3d, *ACTIVATIONS)):
                module.register_forward_hook(lambda m, _, output, name=name: note(name, m, output))
        model(inputs)
    if not found:
        raise AttributionError("the model calls no torch.nn.Conv3d: it has no first layer of feature maps")
    layer, features = found[-1]
    return features, layer

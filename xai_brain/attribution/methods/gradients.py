"""Gradient, and gradient times input."""

from __future__ import annotations

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.first_convolution import use_fast_backward
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.model_state import preserved
from xai_brain.attribution.outputs import select_outputs
from xai_brain.attribution.protocol import MethodInfo


class Saliency:
    """Gradient of the output with respect to every voxel, with its sign.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).

    References
    ----------
    Simonyan et al., "Deep Inside Convolutional Networks", ICLR workshop 2014.
    """

    info = MethodInfo(
        name="Saliency",
        value_meaning="raw and signed: gradient of the output explained, per unit of the input",
        multiplies_by_inputs=False,
        per_channel=True,
        citation=(
            "Simonyan K, Vedaldi A, Zisserman A. Deep inside convolutional networks: visualising "
            "image classification models and saliency maps. ICLR workshop 2014. arXiv:1312.6034."
        ),
    )

    def __init__(self, model: nn.Module):
        self.model = model

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`."""
        return _gradients(self.model, inputs, target)


class InputXGradient:
    """Gradient times input: the contribution of each voxel to the output of a network without biases.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).

    References
    ----------
    Shrikumar et al., "Not Just a Black Box", arXiv 1605.01713.
    """

    info = MethodInfo(
        name="InputXGradient",
        value_meaning="raw and signed: gradient of the output explained times the input",
        multiplies_by_inputs=True,
        per_channel=True,
        citation=(
            "Shrikumar A, Greenside P, Shcherbina A, Kundaje A. Not just a black box: learning "
            "important features through propagating activation differences. 2016. arXiv:1605.01713."
        ),
    )

    def __init__(self, model: nn.Module):
        self.model = model

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`."""
        return inputs.detach() * _gradients(self.model, inputs, target)


def _gradients(model: nn.Module, inputs: torch.Tensor, target: int | torch.Tensor | None) -> torch.Tensor:
    """Gradient of the output of the target, (N, C, X, Y, Z)."""
    check_volumes(inputs)

    def explain(volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        scores = select_outputs(model(volumes), targets)
        return torch.autograd.grad(scores.sum(), volumes)[0]

    with preserved(model):
        use_fast_backward(model)
        return in_chunks(model, inputs, target, explain)

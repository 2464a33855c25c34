"""The gradient, alone and times the input, on Captum's."""

from __future__ import annotations

import torch
from captum.attr import InputXGradient as CaptumInputXGradient
from captum.attr import Saliency as CaptumSaliency
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.first_convolution import quicken
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.model_state import preserved


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

    value_meaning = "raw and signed: gradient of the output explained, per unit of the input"
    multiplies_by_inputs = False

    def __init__(self, model: nn.Module):
        self.model = model

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """Explain a batch.

        Parameters
        ----------
        inputs : Tensor of shape (N, 1, X, Y, Z)
        target : int or Tensor of shape (N,)
            Class index.

        Returns
        -------
        Tensor of shape (N, 1, X, Y, Z)
        """
        check_volumes(inputs)
        gradient = CaptumSaliency(self.model)
        with preserved(self.model):
            quicken(self.model)
            return in_chunks(self.model, inputs, target, lambda x, t: gradient.attribute(x, t, abs=False))


class InputXGradient:
    """Gradient times input: the share of every voxel in the output of a network without biases.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).

    References
    ----------
    Shrikumar et al., "Not Just a Black Box", arXiv 1605.01713.
    """

    value_meaning = "raw and signed: gradient of the output explained times the input"
    multiplies_by_inputs = True

    def __init__(self, model: nn.Module):
        self.model = model

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """Explain a batch.

        Parameters
        ----------
        inputs : Tensor of shape (N, 1, X, Y, Z)
        target : int or Tensor of shape (N,)
            Class index.

        Returns
        -------
        Tensor of shape (N, 1, X, Y, Z)
        """
        check_volumes(inputs)
        with preserved(self.model):
            quicken(self.model)
            return in_chunks(self.model, inputs, target, CaptumInputXGradient(self.model).attribute)

"""Guided backpropagation, on Captum's, after a check of the model."""

from __future__ import annotations

import warnings

import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from torch import nn

from xai_brain.attribution.first_convolution import quicken
from xai_brain.attribution.inputs import check_volumes
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.model_state import Tried, preserved
from xai_brain.attribution.nonlinearities import check_relu_modules


class GuidedBackprop:
    """Gradient of the output in which ReLUs let only positive gradients pass backwards.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes); its ReLUs are ``torch.nn.ReLU`` modules.

    References
    ----------
    Springenberg et al., "Striving for Simplicity", ICLR workshop 2015.
    """

    value_meaning = "raw and signed: guided gradient of the output explained"

    def __init__(self, model: nn.Module):
        self.model = model
        self._checked = Tried(check_relu_modules)

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
            Raw and signed.

        Raises
        ------
        AttributionError
            The model has no ReLU module, or functional ReLUs; or the inputs are not volumes.
        """
        check_volumes(inputs)
        with preserved(self.model), warnings.catch_warnings():
            self._checked.on(self.model, inputs, "guided backpropagation")
            quicken(self.model)
            # Captum tells of the hooks that it sets
            warnings.filterwarnings("ignore", "Setting (backward|forward).*hooks on ReLU")
            return in_chunks(self.model, inputs, target, CaptumGuidedBackprop(self.model).attribute)

"""DeepLIFT, on Captum's, after a check of the model."""

from __future__ import annotations

import warnings
from typing import Any
from unittest.mock import patch

import torch
from captum.attr import DeepLift as CaptumDeepLift
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from torch import nn

from xai_brain.attribution.fills import Fills
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.integrated_gradients import baseline_volumes, default_baseline
from xai_brain.attribution.memory import in_chunks
from xai_brain.attribution.model_state import preserved
from xai_brain.attribution.nonlinearities import check_logits, check_modules, check_no_others
from xai_brain.attribution.reference import Reference

KINDS = ("ReLU", "LeakyReLU", "ELU", "Sigmoid", "Tanh", "Softplus", "MaxPool3d")  # with a rule in Captum


class DeepLift:
    """Differences from a baseline, shared out backwards by the rescale rule; they sum to the output's.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes); its nonlinear steps are modules, each at one place.
    reference : Reference, optional
    baseline : str, optional
        A fill that is not random, see `Fills`. Default: ``training_mean`` with a reference, else ``zero``.
    blur_sigma_mm : float, default 12
        Of ``baseline="blur"``.

    References
    ----------
    Shrikumar et al., "Learning Important Features Through Propagating Activation Differences", ICML 2017.
    """

    value_meaning = "raw and signed: share of the voxel in the output's difference from the baseline"

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        baseline: str | None = None,
        blur_sigma_mm: float = 12.0,
    ):
        check_logits(model, "DeepLIFT")
        self.model, self.reference = model, reference
        self.baseline = Fills(baseline or default_baseline(reference), reference, blur_sigma_mm)

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

        Raises
        ------
        AttributionError
            Some nonlinear steps are functions, have no rule, or belong to a module that runs twice; or the
            inputs are not volumes.
        """
        targets = as_targets(target, inputs)
        starts = iter(baseline_volumes(self.baseline, self.reference, inputs.detach(), targets).split(1))
        with preserved(self.model), warnings.catch_warnings():
            check_no_others(self.model, inputs, "DeepLIFT", KINDS)
            check_modules(self.model, inputs, "DeepLIFT", KINDS, once=True)
            # Captum tells of the hooks that it sets
            warnings.filterwarnings("ignore", r"Setting forward, backward hooks")
            method = CaptumDeepLift(self.model)
            # one subject at a time: its own baseline, and twice its memory
            with patch.dict(SUPPORTED_NON_LINEAR, {nn.MaxPool3d: max_pool_rule}):
                return in_chunks(
                    self.model,
                    inputs,
                    targets,
                    lambda x, t: method.attribute(x, next(starts), t),
                    chunk_size=1,
                )


def max_pool_rule(
    module: Any,
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    grad_input: torch.Tensor,
    grad_output: torch.Tensor,
    eps: float = 1e-10,
) -> torch.Tensor:
    """Multipliers of a max pooling: the change of a window's maximum goes to where the larger maximum is.

    Takes the place of Captum's rule, whose shares do not sum to the difference for baselines other than 0.

    Parameters
    ----------
    module : torch.nn.MaxPool3d
    inputs, outputs : Tensor of shape (2, C, X, Y, Z)
        Of the volume and of its baseline.
    grad_input, grad_output : Tensor
        What arrives from the output; the plain gradient.
    eps : float
        Below that an input counts as unchanged.
    """
    shape = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
    _, places = nn.functional.max_pool3d(inputs, *shape, return_indices=True)
    value, start = outputs.chunk(2)
    larger = torch.where(value >= start, *places.chunk(2))
    change = grad_output.chunk(2)[0] * (value - start)
    difference = inputs.chunk(2)[0] - inputs.chunk(2)[1]
    shares = torch.zeros_like(difference).flatten(2)
    shares.scatter_add_(2, larger.flatten(2), change.flatten(2))  # windows may overlap
    shares = shares.view_as(difference)
    multipliers = torch.where(difference.abs() < eps, grad_input.chunk(2)[0], shares / difference)
    return torch.cat([multipliers, multipliers])

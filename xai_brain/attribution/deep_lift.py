"""DeepLIFT, on Captum's, after a check of the model."""

from __future__ import annotations

import warnings

import torch
from captum.attr import DeepLift as CaptumDeepLift
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
            # Captum hangs both the end of a step and the start of the next on one tensor, in the wrong order
            # (a ReLU before a pooling); a copy between them separates the two
            for module in self.model.modules():
                if type(module).__name__ in KINDS:
                    module.register_forward_pre_hook(lambda _, args: args[0].clone())
            # one subject at a time: Captum's rule of max pooling mixes the subjects of a batch
            return in_chunks(
                self.model, inputs, targets, lambda x, t: method.attribute(x, next(starts), t), chunk_size=1
            )

"""Integrated gradients, on Captum's, from a baseline of the training subjects."""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import nn

from xai_brain.attribution.fills import Fills
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.mask_engine import MaskEngine
from xai_brain.attribution.masks import brain_of
from xai_brain.attribution.reference import Reference


class IntegratedGradients:
    """Gradients along the straight way from a baseline to the volume; they sum to the change of the output.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference, optional
    baseline : str, optional
        Where the way starts: a fill that is not random, see `Fills`. Default: ``training_mean`` with a
        reference, else ``zero``.
    n_steps : int, default 32
        Points of the Gauss-Legendre quadrature.
    blur_sigma_mm : float, default 12
        Of ``baseline="blur"``.
    chunk_size : int, optional
        Points in one pass; default: what fits into memory.

    References
    ----------
    Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017.
    """

    value_meaning = "raw and signed: share of the voxel in the output's change from the baseline"

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        baseline: str | None = None,
        n_steps: int = 32,
        blur_sigma_mm: float = 12.0,
        chunk_size: int | None = None,
    ):
        self.engine = MaskEngine(model, chunk_size)
        self.reference, self.n_steps = reference, n_steps
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
        """
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        starts = baseline_volumes(self.baseline, self.reference, inputs, targets)
        maps = torch.empty_like(inputs)
        with self.engine.prepared(inputs):
            method = CaptumIntegratedGradients(self.engine.network)
            for i in range(len(inputs)):  # a subject's points fill the passes; a batch would change nothing

                def integrate(size: int, i: int = i) -> torch.Tensor:
                    return method.attribute(
                        inputs[i : i + 1],
                        starts[i : i + 1],
                        targets[i : i + 1],
                        n_steps=self.n_steps,
                        internal_batch_size=size,
                    )

                maps[i] = self.engine.chunks.halving(integrate)[0].detach()
        return maps


def default_baseline(reference: Reference | None) -> str:
    return "zero" if reference is None else "training_mean"


def baseline_volumes(
    baseline: Fills, reference: Reference | None, inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Volumes (N, 1, X, Y, Z) that a method compares the inputs with."""
    brain = brain_of(inputs, reference)
    return baseline.make(inputs, targets, brain, torch.Generator().manual_seed(0))[0]

"""Integrated gradients from a baseline of the training participants."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.completeness import TOLERANCE, check_completeness, completeness_error, sums
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.masks import brain_of
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference

MAX_STEPS = 1024


class IntegratedGradients:
    """Gradients along the straight path from a baseline to the volume.

    The attributions of a volume sum to the change of the output from the baseline. This is checked for every
    volume, with a tolerance of 5 % (see `completeness_error`): if the quadrature is too coarse, its points
    are doubled up to 1024; then the volume is refused. Completeness is necessary, not sufficient, for a
    correct map.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference, optional
    baseline : str, optional
        Where the path starts: a fill that is not random, see `ReplacementVolumes`. Default:
        ``training_mean`` with a reference, else ``zero``.
    n_steps : int, default 32
        Points of the Gauss-Legendre quadrature, doubled where they are too few.
    blur_sigma_mm : float, default 12
        Of ``baseline="blur"``.
    chunk_size : int, optional
        Points in one pass; default: what fits into memory.

    References
    ----------
    Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017.
    """

    info = MethodInfo(
        name="IntegratedGradients",
        value_meaning="raw and signed: share of the voxel in the output's change from the baseline",
        multiplies_by_inputs=True,
        citation=(
            "Sundararajan M, Taly A, Yan Q. Axiomatic attribution for deep networks. ICML 2017. "
            "arXiv:1703.01365."
        ),
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        baseline: str | None = None,
        n_steps: int = 32,
        blur_sigma_mm: float = 12.0,
        chunk_size: int | None = None,
    ):
        self.model = model
        self.engine = BatchedScorer(model, chunk_size)
        self.reference, self.n_steps = reference, n_steps
        self.baseline = ReplacementVolumes(baseline or default_baseline(reference), reference, blur_sigma_mm)

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; the attributions of each volume are checked for completeness."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        starts = baseline_volumes(self.baseline, self.reference, inputs, targets)
        with self.engine.prepared(inputs, targets):
            after, before = (self.engine.scores(each, targets).double() for each in (inputs, starts))
            return self._complete(inputs, starts, targets, after, before)

    def _complete(
        self,
        inputs: torch.Tensor,
        starts: torch.Tensor,
        targets: torch.Tensor,
        after: torch.Tensor,
        before: torch.Tensor,
    ) -> torch.Tensor:
        """Attributions (N, C, X, Y, Z), of each volume with as many points as necessary."""
        maps, n_steps, sizes = (
            torch.empty_like(inputs),
            self.n_steps,
            torch.maximum(after.abs(), before.abs()),
        )
        rows = torch.arange(len(inputs), device=inputs.device)  # volumes that are not complete yet
        while True:
            maps[rows] = self._integrate(inputs[rows], starts[rows], targets[rows], n_steps)
            total, absolute = sums(maps[rows])
            error = completeness_error(total, (after - before)[rows], absolute, sizes[rows])
            rows = rows[~(error <= TOLERANCE)]
            if not len(rows) or 2 * n_steps > MAX_STEPS:
                break
            n_steps *= 2
        if len(rows):
            total, absolute = sums(maps[rows])
            check_completeness(
                f"IntegratedGradients with {n_steps} steps",
                *(total, (after - before)[rows], absolute, sizes[rows]),
                meaning="the change of the output from the baseline",
                advice="the output changes too abruptly near the baseline; choose another one "
                "(baseline=training_mean, blur) or another method (Saliency, SmoothGrad, Occlusion)",
                volumes=rows.tolist(),
            )
        return maps

    def _integrate(
        self, inputs: torch.Tensor, starts: torch.Tensor, targets: torch.Tensor, n_steps: int
    ) -> torch.Tensor:
        places, weights = (torch.from_numpy(a).to(inputs) for a in np.polynomial.legendre.leggauss(n_steps))
        # from [-1, 1] to [0, 1]
        places, weights = ((places + 1) / 2).view(-1, 1, 1, 1, 1), (weights / 2).view(-1, 1, 1, 1, 1)
        path = inputs - starts
        return path * self.engine.sum_over_points(
            *(inputs, targets, n_steps),
            lambda of, k: starts[of] + places[k] * path[of],
            lambda gradients, of, k: weights[k] * gradients,
        )


def default_baseline(reference: Reference | None) -> str:
    return "zero" if reference is None else "training_mean"


def baseline_volumes(
    baseline: ReplacementVolumes, reference: Reference | None, inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Volumes (N, 1, X, Y, Z) that a method compares the inputs with."""
    brain = brain_of(inputs, reference)
    return baseline.make(inputs, targets, brain, torch.Generator().manual_seed(0))[0]

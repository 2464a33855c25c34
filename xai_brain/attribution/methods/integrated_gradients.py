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
        per_channel=True,
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
            after, before = (self.engine.scores(each, targets) for each in (inputs, starts))
            return complete_integral(
                *("IntegratedGradients", self.engine, inputs, targets, starts[:, None]),
                *(after, before, self.n_steps),
                advice="the output changes too abruptly near the baseline; choose another one "
                "(baseline=training_mean, blur) or another method (Saliency, SmoothGrad, Occlusion)",
            )


def complete_integral(
    method: str,
    engine: BatchedScorer,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    starts: torch.Tensor,
    after: torch.Tensor,
    before: torch.Tensor,
    n_steps: int,
    advice: str,
) -> torch.Tensor:
    """Mean of the path integrals of the gradients from several starts to each volume, (N, C, X, Y, Z).

    The number of points is doubled for volumes whose attributions are not complete.

    Parameters
    ----------
    method : str
    engine : BatchedScorer
        Prepared, with the targets.
    inputs : Tensor of shape (N, C, X, Y, Z)
    targets : Tensor of shape (N,)
    starts : Tensor of shape (N, S, C, X, Y, Z)
    after, before : Tensor of shape (N,)
        Outputs of the volumes, and mean outputs of their starts.
    n_steps : int
        Points of the quadrature from each start.
    advice : str
        What to do if the attributions are not complete with the largest number of points.

    Raises
    ------
    AttributionError
        The attributions are not complete.
    """
    maps, after, before = torch.empty_like(inputs), after.double(), before.double()
    change, sizes = after - before, torch.maximum(after.abs(), before.abs())
    rows = torch.arange(len(inputs), device=inputs.device)  # volumes that are not complete yet
    while True:
        maps[rows] = _integrate(engine, inputs, targets, starts, rows, n_steps)
        total, absolute = sums(maps[rows])
        rows = rows[~(completeness_error(total, change[rows], absolute, sizes[rows]) <= TOLERANCE)]
        if not len(rows) or 2 * n_steps * starts.shape[1] > MAX_STEPS:
            break
        n_steps *= 2
    if len(rows):
        total, absolute = sums(maps[rows])
        check_completeness(
            f"{method} with {n_steps} steps",
            *(total, change[rows], absolute, sizes[rows]),
            meaning="the change of the output from the baseline",
            advice=advice,
            volumes=rows.tolist(),
        )
    return maps


def _integrate(
    engine: BatchedScorer,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    starts: torch.Tensor,
    rows: torch.Tensor,
    n_steps: int,
) -> torch.Tensor:
    """Attributions of some of the volumes."""
    places, weights = (torch.from_numpy(a).to(inputs) for a in np.polynomial.legendre.leggauss(n_steps))
    # from [-1, 1] to [0, 1], and the mean over the starts
    places, weights = (places + 1) / 2, weights / 2 / starts.shape[1]

    def path(of: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Starts, and what leads from them to the volumes."""
        start = starts[rows[of], k // n_steps]
        return start, inputs[rows[of]] - start

    def point(of: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        start, difference = path(of, k)
        return start + places[k % n_steps].view(-1, 1, 1, 1, 1) * difference

    return engine.sum_over_points(
        *(inputs[rows], targets[rows], starts.shape[1] * n_steps, point),
        lambda gradients, of, k: weights[k % n_steps].view(-1, 1, 1, 1, 1) * gradients * path(of, k)[1],
    )


def default_baseline(reference: Reference | None) -> str:
    return "zero" if reference is None else "training_mean"


def baseline_volumes(
    baseline: ReplacementVolumes, reference: Reference | None, inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Volumes (N, 1, X, Y, Z) that a method compares the inputs with."""
    brain = brain_of(inputs, reference)
    return baseline.make(inputs, targets, brain, torch.Generator().manual_seed(0))[0]

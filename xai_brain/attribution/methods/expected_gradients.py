"""Expected gradients: integrated gradients, averaged over training participants as baselines."""

from __future__ import annotations

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.methods.integrated_gradients import complete_integral
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference


class ExpectedGradients:
    """Mean of the integrated gradients from several volumes of the reference.

    The attributions of a volume sum to its output minus the mean output of the baselines. This is checked for
    every volume, with a tolerance of 5 %; if the quadrature is too coarse, its points are doubled, up to 1024
    points for each volume (see `IntegratedGradients`).

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference
    n_baselines : int, default 16
        Volumes of the reference, evenly spaced in the order of their classes, so that each class has its
        share; all of them if the reference has fewer. The cost is proportional to their number.
    n_steps : int, default 4
        Points of the Gauss-Legendre quadrature from each baseline, doubled where they are too few.
    chunk_size : int, optional
        Points in one pass; default: what fits into memory.

    Notes
    -----
    The published method draws baselines and points at random. Here every volume is compared with the same
    baselines, and the points form a quadrature. `GradientShap` is the random estimate, with fewer gradients.

    References
    ----------
    Erion et al., "Improving performance of deep learning models with axiomatic attribution priors and
    expected gradients", Nature Machine Intelligence 2021.
    """

    info = MethodInfo(
        name="ExpectedGradients",
        value_meaning="raw and signed: share of the voxel in the mean change from training participants",
        multiplies_by_inputs=True,
        per_channel=True,
        citation=(
            "Erion G, Janizek JD, Sturmfels P, Lundberg SM, Lee SI. Improving performance of deep learning "
            "models with axiomatic attribution priors and expected gradients. Nat Mach Intell "
            "2021;3:620–631. arXiv:1906.10670."
        ),
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference,
        n_baselines: int = 16,
        n_steps: int = 4,
        chunk_size: int | None = None,
    ):
        reference.require_volumes()
        if n_baselines < 1:
            raise AttributionError(f"n_baselines={n_baselines}: ExpectedGradients needs at least 1")
        self.model, self.reference, self.n_steps = model, reference, n_steps
        self.n_baselines = n_baselines
        self.engine = BatchedScorer(model, chunk_size)

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; the attributions of each volume are checked for completeness."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        self.reference.check(inputs)
        starts = self.reference.volumes[self._chosen()].to(inputs)
        with self.engine.prepared(inputs, targets):
            before = torch.empty(len(inputs), device=inputs.device)
            for k in set(targets.tolist()):
                before[targets == k] = self.engine.scores(starts, targets.new_full((len(starts),), k)).mean()
            return complete_integral(
                *("ExpectedGradients", self.engine, inputs, targets),
                *(starts.expand(len(inputs), *starts.shape), self.engine.scores(inputs, targets), before),
                self.n_steps,
                advice="give a larger n_steps, or choose another method (SmoothGrad, Occlusion)",
            )

    def _chosen(self) -> torch.Tensor:
        """Rows of the reference that are baselines."""
        by_class = self.reference.targets.argsort(stable=True)
        n = min(self.n_baselines, len(by_class))
        return by_class[((torch.arange(n) + 0.5) * len(by_class) / n).long()]

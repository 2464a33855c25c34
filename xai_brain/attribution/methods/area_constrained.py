"""Extremal masks: the voxels of a given area whose replacement decreases the score most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import PerturbationAttribution
from torch import nn
from tqdm.auto import tqdm

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.mask_descent import MaskDescent, cosine_rates
from xai_brain.attribution.perturbation.masks import brain_of, coarse_shape, mean_in, upsampled
from xai_brain.attribution.perturbation.repeated_step import RepeatedStep
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes, mixed
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference


@dataclass(frozen=True)
class AreaScoreCurve:
    """Decrease of the score as a function of the replaced area, for one participant.

    Parameters
    ----------
    areas : list of float
        Shares of the brain.
    scores : list of float
        Output for the class explained when that much is replaced.
    score_before : float
    evidence : Tensor of shape (n_areas, X, Y, Z)
        1 - mask of every area.
    """

    areas: list[float]
    scores: list[float]
    score_before: float
    evidence: torch.Tensor

    @property
    def integrated(self) -> torch.Tensor:
        """Mean over the areas, (1, X, Y, Z); the most important voxels have the highest values."""
        return self.evidence.mean(0, keepdim=True)


class AreaConstrainedPerturbation(PerturbationAttribution):
    """Deletion masks of several fixed areas, optimised together; the map is their mean.

    A mask is a sigmoid of smooth values minus the threshold that gives it its area exactly, found anew at
    every step, so that no penalty has to be weighed against the score.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference, optional
    fill : str or list of str, optional
        See `ReplacementVolumes`. Default: ``counterfactual_mean`` with a reference, else ``blur``.
    areas : sequence of float, default (0.01, 0.03, 0.1, 0.3)
        Shares of the brain.
    n_iter : int, default 40
    lr : float, default 1
        Of Adam; falls to 0 as a cosine.
    shift_voxels : (int, int), default (0, 0)
    mask_spacing_voxels : int, default 4
    blur_sigma_mm, voxel_size_mm, random_state, chunk_size, precision
        As for `MeaningfulPerturbation`.

    References
    ----------
    Fong, Patrick and Vedaldi, "Understanding Deep Networks via Extremal Perturbations and Smooth Masks", ICCV
    2019 (there the area is a penalty, and the gradient that of a sorted mask).
    """

    info = MethodInfo(
        name="AreaConstrainedPerturbation",
        value_meaning="mean of 1 - perturbation mask over masks of fixed areas, in [0, 1]",
        multiplies_by_inputs=True,
        citation=(
            "Fong R, Patrick M, Vedaldi A. Understanding deep networks via extremal perturbations and"
            " smooth masks. ICCV 2019:2950–2958. arXiv:1910.08485."
        ),
        default_output="probability",
        needs_classes=True,
        trial_settings={"n_iter": 1},
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        fill: str | Sequence[str] | None = None,
        areas: Sequence[float] = (0.01, 0.03, 0.1, 0.3),
        n_iter: int = 40,
        lr: float = 1.0,
        shift_voxels: Sequence[int] = (0, 0),
        mask_spacing_voxels: int = 4,
        blur_sigma_mm: float = 12.0,
        voxel_size_mm: Sequence[float] | None = None,
        random_state: int = 0,
        chunk_size: int | None = None,
        precision: str = "float32",
    ):
        super().__init__(model)
        self.model = model
        fill = fill or ("counterfactual_mean" if reference else "blur")
        self.reference, self.areas = reference, list(areas)
        self.fills = ReplacementVolumes(fill, reference, blur_sigma_mm, voxel_size_mm)
        self.engine = BatchedScorer(model, chunk_size, precision)
        self.n_iter, self.lr, self.shift_voxels = n_iter, lr, shift_voxels
        self.mask_spacing_voxels, self.random_state = mask_spacing_voxels, random_state

    @in_float32
    def attribute(
        self, inputs: torch.Tensor, target: int | torch.Tensor | None = None, show_progress: bool = False
    ) -> torch.Tensor:
        """Return the mean of 1 - mask over the areas, in [0, 1]; see `Method.attribute`."""
        return torch.stack([curve.integrated for curve in self.optimize(inputs, target, show_progress)])

    @in_float32
    def attribute_with_details(
        self, inputs: torch.Tensor, target: int | torch.Tensor | None = None
    ) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        """As `attribute`, with the content of the sidecars: the area-score curve of each participant."""
        curves = self.optimize(inputs, target)
        details = [{"ScoreBefore": c.score_before, "Areas": c.areas, "ScoresAfter": c.scores} for c in curves]
        return torch.stack([curve.integrated for curve in curves]), details

    @in_float32
    def optimize(
        self, inputs: torch.Tensor, target: int | torch.Tensor | None = None, show_progress: bool = False
    ) -> list[AreaScoreCurve]:
        """Explain a batch, with a mask and a score for each area.

        Parameters
        ----------
        inputs, target, show_progress
            As in `attribute`.

        Returns
        -------
        list of AreaScoreCurve
        """
        inputs = inputs.detach()
        targets = as_targets(target, inputs, one_channel="AreaConstrainedPerturbation")
        brain = brain_of(inputs, self.reference)
        curves: list[AreaScoreCurve] = []
        with self.engine.prepared(inputs, targets), tqdm(total=len(inputs), disable=not show_progress) as bar:
            for rows in torch.arange(len(inputs)).split(max(1, self.engine.chunks.size // len(self.areas))):
                its_brain = brain if len(brain) == 1 else brain[rows]
                curves += self._optimize_together(inputs[rows], targets[rows], its_brain)
                bar.update(len(rows))
        return curves

    def _optimize_together(
        self, images: torch.Tensor, targets: torch.Tensor, brain: torch.Tensor
    ) -> list[AreaScoreCurve]:
        generator = torch.Generator().manual_seed(self.random_state)
        n, k, device = len(images), len(self.areas), images.device
        fills = self.fills.make(images, targets, brain, generator).transpose(0, 1)
        rows = torch.arange(n, device=device).repeat_interleave(k)  # participant of each mask
        areas = torch.tensor(self.areas, device=device).repeat(n)
        images_of, fills_of, targets_of, brain = (
            images[rows],
            fills[rows],
            targets[rows],
            brain.expand_as(images)[rows],
        )
        shape = coarse_shape(images.shape, self.mask_spacing_voxels)
        start = torch.zeros(n * k, 1, *shape, device=device)
        descent = MaskDescent(start, cosine_rates(self.lr, self.n_iter), bounded=False)
        weights = self.fills.mixtures(self.n_iter, generator).to(images)
        low, high = self.shift_voxels
        shifts: torch.Tensor | None = None
        if (low, high) != (0, 0):
            shifts = torch.randint(low, high + 1, (self.n_iter, 1, 3), generator=generator).to(device)
        always = torch.ones(n * k, dtype=torch.bool, device=device)

        def iterate() -> None:
            position, coarse = descent.position, descent.values.clone().requires_grad_()
            evidence = area_constrained_mask(upsampled(coarse, images.shape), areas, brain)
            _, gradient = self.engine.gradients(
                *(images_of, mixed(fills_of, weights[position]), evidence.detach(), targets_of),
                None if shifts is None else shifts[position],
            )
            (coarse_gradient,) = torch.autograd.grad((evidence * gradient).sum(), coarse)
            descent.step(coarse_gradient, always)

        step = RepeatedStep(iterate, device)
        for _ in range(self.n_iter):
            step()
        with torch.no_grad():
            evidence = area_constrained_mask(upsampled(descent.values, images.shape), areas, brain)
        before = self.engine.scores(images, targets).tolist()
        after = self.engine.scores(torch.lerp(images_of, fills_of[:, 0], evidence), targets_of)
        return [
            AreaScoreCurve(
                self.areas, after.view(n, k)[i].tolist(), before[i], evidence.view(n, k, *images.shape[2:])[i]
            )
            for i in range(n)
        ]


def area_constrained_mask(
    values: torch.Tensor, areas: torch.Tensor, brain: torch.Tensor, n_halvings: int = 20
) -> torch.Tensor:
    """Sigmoid of values minus a threshold such that the mean in the brain equals the area.

    Parameters
    ----------
    values : Tensor of shape (N, 1, X, Y, Z)
    areas : Tensor of shape (N,)
        In (0, 1).
    brain : Tensor of shape (N, 1, X, Y, Z)
        1 or 0.
    n_halvings : int, default 20
        Of the interval in which the threshold is looked for.

    Returns
    -------
    Tensor of shape (N, 1, X, Y, Z)
        0 outside of the brain. Its gradient takes the threshold's dependence on the values into account.
    """
    with torch.no_grad():
        low = values.amin((1, 2, 3, 4)) - 20
        high = values.amax((1, 2, 3, 4)) + 20
        for _ in range(n_halvings):
            middle = (low + high) / 2
            too_large = mean_in((values - middle.view(-1, 1, 1, 1, 1)).sigmoid(), brain) > areas
            low, high = torch.where(too_large, middle, low), torch.where(too_large, high, middle)
        threshold = ((low + high) / 2).view(-1, 1, 1, 1, 1)
        slope = (values - threshold).sigmoid()
        slope = slope * (1 - slope) * brain
        slope = slope / slope.sum((1, 2, 3, 4), keepdim=True).clamp_min(1e-12)
    # d threshold / d values is `slope`: an area that stays is what makes it move
    moving = threshold + ((values - values.detach()) * slope).sum((1, 2, 3, 4), keepdim=True)
    return (values - moving).sigmoid() * brain

"""Meaningful Perturbation as published for brain MRI, including its faults, for reproduction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import PerturbationAttribution
from torch import nn
from tqdm.auto import tqdm

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.mask_descent import MaskDescent
from xai_brain.attribution.perturbation.masks import total_variation, upsampled
from xai_brain.attribution.perturbation.repeated_step import RepeatedStep
from xai_brain.attribution.perturbation.replacement import kan2020_blur
from xai_brain.attribution.protocol import MethodInfo

SPACING = 4  # voxels of one node of the coarse mask
FLOOR, AREA_WEIGHT, TV_BETA = 0.05, 3.0, 7.0
LARGEST_SHIFT = 4  # voxels per axis
LR, LR_STEP = 0.3, 30  # the rate is divided by 10 after every 30 iterations


class Kan2020Perturbation(PerturbationAttribution):
    """The published algorithm, on the batched engine.

    Its known faults are reproduced on purpose: the image is shifted in one direction only, zeros come in, and
    the mask does not move; the blur is a small box; the exponent 7 makes the total variation negligible;
    losses with different weights are compared to choose the best mask; the learning rate is already very
    small when the regulariser reaches its full weight; the map is not the mask that was applied, which was
    blurred once more. Use `MeaningfulPerturbation` to explain, and this class to compare with the paper.

    Parameters
    ----------
    model : torch.nn.Module
        Returns probabilities (N, n_classes), see `ClassScore`.
    n_iter : int, default 300
    n_shifts : int, default 10
        Per iteration.
    random_state : int, default 0
        Seed of the shifts.
    shifts : int array of shape (n_iter, n_shifts, 3), optional
        The shifts of every iteration in voxels, 0 or more: the content moves to lower indices by so many.
        They define `n_iter` and `n_shifts`. Default: drawn from 0 to 4 per axis.
    first_kept_iteration : int, default 51
        Masks of earlier iterations, counted from 0, are not candidates for the best one.
    chunk_size : int, optional
        See `BatchedScorer`.

    References
    ----------
    Kan et al., "Interpretation of 3D CNNs for Brain MRI Data Classification", AIST 2020.
    """

    info = MethodInfo(
        name="Kan2020Perturbation",
        value_meaning="1 - upsampled mask, in [0, 1]; the published algorithm applies a blurred mask",
        multiplies_by_inputs=True,
        citation=(
            "Kan M, Aliev R, Rudenko A, et al. Interpretation of 3D CNNs for brain MRI data "
            "classification. AIST 2020. arXiv:2006.15969."
        ),
        default_output="probability",
        needs_classes=True,
        trial_settings={"n_iter": 1, "n_shifts": 1, "first_kept_iteration": 0},
    )

    def __init__(
        self,
        model: nn.Module,
        n_iter: int = 300,
        n_shifts: int = 10,
        random_state: int = 0,
        shifts: npt.ArrayLike | None = None,
        first_kept_iteration: int = 51,
        chunk_size: int | None = None,
    ):
        super().__init__(model)
        self.model = model
        self.engine = BatchedScorer(model, chunk_size)
        self.shifts = _drawn(n_iter, n_shifts, random_state) if shifts is None else _checked(shifts)
        self.n_iter, self.first_kept_iteration = len(self.shifts), first_kept_iteration
        if self.n_iter <= first_kept_iteration:
            raise AttributionError(
                f"n_iter={self.n_iter}: no mask of the first {first_kept_iteration} iterations is kept; set "
                f"n_iter to {first_kept_iteration + 1} or more, or first_kept_iteration to a lower number"
            )

    @in_float32
    def attribute(
        self, inputs: torch.Tensor, target: int | torch.Tensor | None = None, show_progress: bool = False
    ) -> torch.Tensor:
        """Return 1 - mask, upsampled, in [0, 1]; see `Method.attribute`."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs, one_channel="Kan2020Perturbation")
        maps = []
        with self.engine.prepared(inputs, targets), tqdm(total=len(inputs), disable=not show_progress) as bar:
            for rows in torch.arange(len(inputs)).split(self.engine.chunks.size):
                maps.append(1 - self._optimize_together(inputs[rows], targets[rows]))
                bar.update(len(rows))
        return torch.cat(maps)

    def _optimize_together(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        shape, device = [n // SPACING for n in images.shape[2:]], images.device
        rates = LR * 0.1 ** (torch.arange(self.n_iter, dtype=torch.float64) // LR_STEP)
        descent = MaskDescent(torch.ones(len(images), 1, *shape, device=device), rates, amsgrad=True)
        kept, lowest = descent.values.clone(), torch.full((len(images),), torch.inf, device=device)
        all_weights = (torch.arange(self.n_iter) / max(self.n_iter // 5, 1)).clamp_max(1).to(device)
        all_shifts, always = -self.shifts.to(device), torch.ones_like(targets, dtype=torch.bool)

        def iterate() -> None:
            position = descent.position
            weight, shifts = all_weights[position], all_shifts[position]
            coarse = descent.values.clone().requires_grad_()
            applied = kan2020_blur(upsampled(coarse, images.shape))
            score, gradient = self.engine.gradients(
                images, images, 1 - applied.detach(), targets, shifts, FLOOR, moving="image"
            )
            area = (1 - coarse).abs().mean((1, 2, 3, 4))
            penalty = weight * (AREA_WEIGHT * area + total_variation(applied, 1, TV_BETA))
            total = ((1 - applied) * gradient).sum() + penalty.sum()
            (coarse_gradient,) = torch.autograd.grad(total, coarse)
            loss = (score + penalty).detach()
            better = (position >= self.first_kept_iteration) & (loss <= lowest)  # the later of equal losses
            lowest.copy_(torch.where(better, loss, lowest))
            kept.copy_(torch.where(better.view(-1, 1, 1, 1, 1), descent.values, kept))
            descent.step(coarse_gradient, always)

        step = RepeatedStep(iterate, device)
        for _ in range(self.n_iter):
            step()
        return upsampled(kept, images.shape)


def _drawn(n_iter: int, n_shifts: int, random_state: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(random_state)
    return torch.randint(0, LARGEST_SHIFT + 1, (n_iter, n_shifts, 3), generator=generator)


def _checked(shifts: npt.ArrayLike) -> torch.Tensor:
    array = np.asarray(shifts)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in "iu" or array.min() < 0:
        raise AttributionError(
            f"shifts of shape {array.shape} and type {array.dtype}: whole numbers of 0 or more are expected, "
            "of shape (n_iter, n_shifts, 3)"
        )
    return torch.from_numpy(array.astype(np.int64))

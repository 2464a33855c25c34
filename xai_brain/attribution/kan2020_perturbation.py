"""Meaningful Perturbation as it was published for brain MRI, faults included; for reproduction."""

from __future__ import annotations

import torch
from captum.attr import PerturbationAttribution
from torch import nn
from tqdm.auto import tqdm

from xai_brain.attribution.fills import kan2020_blur
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.mask_engine import MaskEngine
from xai_brain.attribution.masks import total_variation, upsampled

SPACING = 4  # voxels of one node of the coarse mask
FLOOR, AREA_WEIGHT, TV_BETA = 0.05, 3.0, 7.0
RAMP = 0.2  # share of the iterations in which the regulariser reaches its weight
FIRST_KEPT = 1 / 6  # share of the iterations before which no mask is kept


class Kan2020Perturbation(PerturbationAttribution):
    """The published algorithm, on the batched engine.

    Each of its known faults is here on purpose: shifts go one way, with zeros coming in, and the mask stays;
    the blur is a small box; the exponent 7 switches the total variation off; losses of different weights are
    compared to choose the best mask; the learning rate has nearly vanished when the regulariser reaches its
    full weight; the map is not the mask that was applied, which was blurred once more. Use
    `MeaningfulPerturbation` to explain, and this to compare with the paper.

    Parameters
    ----------
    model : torch.nn.Module
        Returns probabilities (N, n_classes), see `ClassScore`.
    n_iter : int, default 300
    n_shifts : int, default 10
        Per iteration.
    random_state : int, default 0
        Of the shifts, 0 to 4 voxels per axis.
    chunk_size : int, optional
        See `MaskEngine`.

    References
    ----------
    Kan et al., "Interpretation of 3D CNNs for Brain MRI Data Classification", AIST 2020.
    """

    default_output = "probability"
    value_meaning = (
        "1 - upsampled mask, in [0, 1]; the mask that was applied is blurred (published algorithm)"
    )

    def __init__(
        self,
        model: nn.Module,
        n_iter: int = 300,
        n_shifts: int = 10,
        random_state: int = 0,
        chunk_size: int | None = None,
    ):
        super().__init__(model)
        self.engine = MaskEngine(model, chunk_size)
        self.n_iter, self.n_shifts, self.random_state = n_iter, n_shifts, random_state

    def attribute(
        self, inputs: torch.Tensor, target: int | torch.Tensor | None = None, show_progress: bool = False
    ) -> torch.Tensor:
        """Explain a batch.

        Parameters
        ----------
        inputs : Tensor of shape (N, 1, X, Y, Z)
        target : int or Tensor of shape (N,)
            Class index.
        show_progress : bool, default False

        Returns
        -------
        Tensor of shape (N, 1, X, Y, Z)
            1 - upsampled mask, in [0, 1].
        """
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        maps = []
        with self.engine.prepared(inputs), tqdm(total=len(inputs), disable=not show_progress) as bar:
            for rows in torch.arange(len(inputs)).split(self.engine.chunks.size):
                maps.append(1 - self._optimize_together(inputs[rows], targets[rows]))
                bar.update(len(rows))
        return torch.cat(maps)

    def _optimize_together(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.random_state)
        shape = [n // SPACING for n in images.shape[2:]]
        coarse = torch.ones(len(images), 1, *shape, device=images.device, requires_grad=True)
        optimizer = torch.optim.Adam([coarse], lr=0.3, betas=(0.9, 0.99), amsgrad=True)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 30, 0.1)
        blurred = kan2020_blur(images)
        kept, lowest = coarse.detach().clone(), torch.full((len(images),), torch.inf, device=images.device)
        for iteration in range(self.n_iter):
            weight = min(1.0, iteration / max(RAMP * self.n_iter, 1))
            shifts = torch.randint(0, 5, (self.n_shifts, 3), generator=generator)
            optimizer.zero_grad()
            up = upsampled(coarse, images.shape)
            applied = kan2020_blur(up)
            score, gradient = self.engine.gradients(
                images, blurred, 1 - applied.detach(), targets, shifts, FLOOR, moving="image"
            )
            regulariser = AREA_WEIGHT * (1 - coarse).abs().mean((1, 2, 3, 4)) + total_variation(
                up, 1, TV_BETA
            )
            ((1 - applied) * gradient).sum().add((weight * regulariser).sum()).backward()
            loss = (score + weight * regulariser).detach()
            better = (loss < lowest) & (iteration > FIRST_KEPT * self.n_iter)
            lowest = torch.where(better, loss, lowest)
            kept[better] = coarse.detach()[better]
            optimizer.step()
            schedule.step()
            coarse.data.clamp_(0, 1)
        return upsampled(kept, images.shape)

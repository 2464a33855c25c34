"""Meaningful Perturbation: which voxels must be replaced so that the class is lost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from captum.attr import PerturbationAttribution
from torch import nn

from xai_brain.attribution.fills import make_fill
from xai_brain.attribution.model_state import preserved
from xai_brain.attribution.reference import Reference


@dataclass(frozen=True)
class PerturbationResult:
    """What the optimisation found for one subject.

    Parameters
    ----------
    mask : Tensor of shape (1, X, Y, Z)
        The applied perturbation mask: 1 keeps a voxel, 0 replaces it.
    score_before, score_after : float
        Output for the class explained: of the image, and of the perturbed image.
    area : float
        Mean of 1 - mask in the brain.
    objective : list of float
        Of every iteration.
    """

    mask: torch.Tensor
    score_before: float
    score_after: float
    area: float
    objective: list[float]


class MeaningfulPerturbation(PerturbationAttribution):
    """Deletion mask of least area that takes away the evidence for a class; many subjects at once.

    Minimises, for every subject by itself, score(m x + (1 - m) fill) + area_weight mean(1 - m)
    + tv_weight sum of mean |grad m|^tv_beta over a coarse mask that is upsampled
    trilinearly to m.
    It starts in the middle, m = 1/2: there the score still has a gradient, which it lacks where the
    network is certain.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference, optional
        Training subjects of the model's fold; ``fill="counterfactual_mean"`` needs it, and the mask is
        restricted to their brain.
    fill : {"counterfactual_mean", "blur"}, default "counterfactual_mean"
        What replaces tissue: the mean training image of the other class, or the image itself blurred.
    mask_spacing_voxels : int, default 4
        Distance of the coarse mask's nodes.
    n_iter : int, default 50
    lr : float, default 0.15
        Of Adam; falls to 0 as a cosine.
    area_weight : float, default 1
    tv_weight : float, default 0.2
    tv_beta : float, default 2
    blur_sigma_voxels : float, default 4
        Of ``fill="blur"``.

    References
    ----------
    Fong and Vedaldi, "Interpretable Explanations of Black Boxes by Meaningful Perturbation", ICCV 2017.
    Kan et al., "Interpretation of 3D CNNs for Brain MRI Data Classification", AIST 2020.
    """

    default_output = "probability"
    value_meaning = (
        "1 - perturbation mask, in [0, 1]: how much of the voxel was replaced to take the class away"
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        fill: str = "counterfactual_mean",
        mask_spacing_voxels: int = 4,
        n_iter: int = 50,
        lr: float = 0.15,
        area_weight: float = 1.0,
        tv_weight: float = 0.2,
        tv_beta: float = 2.0,
        blur_sigma_voxels: float = 4.0,
    ):
        super().__init__(model)
        self.model, self.reference, self.fill = model, reference, fill
        self.mask_spacing_voxels, self.n_iter, self.lr = mask_spacing_voxels, n_iter, lr
        self.area_weight, self.tv_weight, self.tv_beta = area_weight, tv_weight, tv_beta
        self.blur_sigma_voxels = blur_sigma_voxels

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
            1 - mask, in [0, 1]: how much of a voxel had to be replaced.
        """
        return torch.stack([1 - result.mask for result in self.optimize(inputs, target)])

    def optimize(
        self, inputs: torch.Tensor, target: int | torch.Tensor | None = None
    ) -> list[PerturbationResult]:
        """Explain a batch, with the details of every subject.

        Parameters
        ----------
        inputs, target
            As in `attribute`.

        Returns
        -------
        list of PerturbationResult
        """
        inputs = inputs.detach()
        targets = _as_targets(target, len(inputs), inputs.device)
        fill = make_fill(self.fill, inputs, targets, self.reference, self.blur_sigma_voxels)
        brain = self._brain(inputs)
        with preserved(self.model):
            return self._descend(inputs, targets, fill, brain)

    def _brain(self, inputs: torch.Tensor) -> torch.Tensor:
        """Where the mask may act, (1 or N, 1, X, Y, Z)."""
        if self.reference is None:
            return torch.ones_like(inputs)
        return self.reference.brain_mask.to(inputs)[None, None]

    def _descend(
        self, inputs: torch.Tensor, targets: torch.Tensor, fill: torch.Tensor, brain: torch.Tensor
    ) -> list[PerturbationResult]:
        coarse_shape = [max(math.ceil(n / self.mask_spacing_voxels), 2) for n in inputs.shape[2:]]
        coarse = torch.full((len(inputs), 1, *coarse_shape), 0.5, device=inputs.device, requires_grad=True)
        optimizer = torch.optim.Adam([coarse], lr=self.lr, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.n_iter)
        difference = fill - inputs
        brain_sum = brain.expand_as(inputs).sum((1, 2, 3, 4))
        objectives = []
        for _ in range(self.n_iter):
            optimizer.zero_grad()
            replaced = self._upsample(1 - coarse, inputs.shape[2:]) * brain  # 1 - mask, (N, 1, X, Y, Z)
            score = self._score(inputs + replaced * difference, targets)
            area = replaced.sum((1, 2, 3, 4)) / brain_sum
            objective = score + self.area_weight * area + self.tv_weight * self._total_variation(coarse)
            objective.sum().backward()  # subjects do not meet: each has its own mask
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                coarse.clamp_(0, 1)
            objectives.append(objective.detach())
        with torch.no_grad():
            replaced = self._upsample(1 - coarse, inputs.shape[2:]) * brain
            before, after = self._score(inputs, targets), self._score(inputs + replaced * difference, targets)
            area = replaced.sum((1, 2, 3, 4)) / brain_sum
        history = torch.stack(objectives).T.tolist() if objectives else [[] for _ in inputs]
        return [
            PerturbationResult(1 - replaced[i], before[i].item(), after[i].item(), area[i].item(), history[i])
            for i in range(len(inputs))
        ]

    def _score(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.model(inputs).gather(1, targets[:, None])[:, 0]

    def _upsample(self, coarse: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        return nn.functional.interpolate(coarse, shape, mode="trilinear", align_corners=False)

    def _total_variation(self, coarse: torch.Tensor) -> torch.Tensor:
        """Sum over axes of mean |difference of neighbours|^beta, (N,)."""
        steps = [coarse.diff(dim=axis).abs() for axis in (2, 3, 4)]
        return sum(step.pow(self.tv_beta).mean((1, 2, 3, 4)) for step in steps)  # type: ignore[return-value]


def _as_targets(target: int | torch.Tensor | None, n: int, device: torch.device) -> torch.Tensor:
    if target is None:
        raise ValueError(
            "target is needed: the index of the class to explain, one for all or one per subject"
        )
    targets = torch.as_tensor(target, device=device).long()
    return targets.expand(n) if targets.ndim == 0 else targets

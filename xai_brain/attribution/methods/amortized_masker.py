"""A small network that is trained to predict perturbation masks in a single pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from captum.attr import PerturbationAttribution
from torch import nn

from xai_brain.attribution.calling_context import float32_with_gradients, in_float32
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.masks import (
    brain_of,
    coarse_shape,
    mean_in,
    total_variation,
    upsampled,
)
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes, mixed
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference

SPACING = 4  # voxels of one node: what two convolutions of stride 2 leave


class MaskNetwork(nn.Module):
    """Coarse mask of a volume for a class: a map of the class plus a change that depends on the volume.

    Parameters
    ----------
    shape : sequence of 3 int
        Of the volumes.
    n_classes : int
    channels : int, default 16
    """

    def __init__(self, shape: Sequence[int], n_classes: int, channels: int = 16):
        super().__init__()
        self.class_map = nn.Parameter(torch.zeros(n_classes, 1, *coarse_shape(torch.Size(shape), SPACING)))
        self.features = nn.Sequential(
            nn.Conv3d(1, channels // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv3d(channels // 2, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        # without a bias: it would move all nodes at once, before the map of the class knows its place
        self.change = nn.Conv3d(channels, n_classes, 3, padding=1, bias=False)
        nn.init.zeros_(self.change.weight)

    def forward(self, volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """1 - mask on the coarse grid, (N, 1, X', Y', Z'), of volumes (N, 1, X, Y, Z)."""
        change = self.change(self.features(volumes))  # (N, n_classes, X', Y', Z')
        change = change[torch.arange(len(volumes), device=volumes.device), targets][:, None]
        return (self.class_map[targets] + change).sigmoid()


class AmortizedMasker(PerturbationAttribution):
    """Deletion masks in one pass, by a network trained on the training participants of the fold.

    It is trained, at the first call, on the objective of `MeaningfulPerturbation` for the predicted class of
    the volumes of the reference. It is fast, but its masks mainly contain what participants have in common.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes); probabilities suit the default weights (see `ClassScore`).
    reference : Reference
    fill : str or list of str, default "counterfactual_mean"
    n_steps : int, default 150
    batch_size : int, default 4
    lr : float, default 0.3
        Of Adam for the map of a class, a hundredth of it for the rest; falls to 0 as a cosine.
    area_weight, tv_weight, tv_beta : float, default 1, 3, 2
    blur_sigma_mm, random_state, chunk_size
        As for `MeaningfulPerturbation`.

    References
    ----------
    Dabkowski and Gal, "Real Time Image Saliency for Black Box Classifiers", NeurIPS 2017.
    """

    info = MethodInfo(
        name="AmortizedMasker",
        value_meaning="1 - perturbation mask, in [0, 1], predicted by a network in one pass",
        multiplies_by_inputs=True,
        citation=(
            "Dabkowski P, Gal Y. Real time image saliency for black box classifiers. NeurIPS 2017. "
            "arXiv:1705.07857."
        ),
        default_output="probability",
        needs_classes=True,
        trial_settings={"n_steps": 1},
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference,
        fill: str | Sequence[str] = "counterfactual_mean",
        n_steps: int = 150,
        batch_size: int = 4,
        lr: float = 0.3,
        area_weight: float = 1.0,
        tv_weight: float = 3.0,
        tv_beta: float = 2.0,
        blur_sigma_mm: float = 12.0,
        random_state: int = 0,
        chunk_size: int | None = None,
    ):
        super().__init__(model)
        self.model = model
        self.reference = reference
        self.fills = ReplacementVolumes(fill, reference, blur_sigma_mm)
        self.engine = BatchedScorer(model, chunk_size)
        self.n_steps, self.batch_size, self.lr = n_steps, batch_size, lr
        self.area_weight, self.tv_weight, self.tv_beta = area_weight, tv_weight, tv_beta
        self.random_state = random_state
        self.network: MaskNetwork | None = None

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """Return 1 - mask, in [0, 1]; see `Method.attribute`. The first call trains the mask network."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs, one_channel="AmortizedMasker")
        self.reference.check(inputs, targets)
        if self.network is None:
            self.fit(inputs.device)
        assert self.network is not None
        with torch.no_grad():
            coarse = self.network(inputs, targets)
            return upsampled(coarse, inputs.shape) * brain_of(inputs, self.reference)

    def fit(self, device: torch.device | str = "cpu") -> None:
        """Train the network on the volumes of the reference.

        Parameters
        ----------
        device : torch.device or str, default "cpu"
            That of the model.
        """
        with float32_with_gradients(self.model, device):
            self._fit(device)

    def _fit(self, device: torch.device | str) -> None:
        volumes = self.reference.volumes.to(device)
        brain = brain_of(volumes, self.reference)
        generator = torch.Generator().manual_seed(self.random_state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            n_classes = len(self.reference.class_means)
            network = MaskNetwork(volumes.shape[2:], n_classes).to(device)
        weights = [value for name, value in network.named_parameters() if name != "class_map"]
        groups: list[dict[str, Any]] = [
            {"params": [network.class_map]},
            {"params": weights, "lr": self.lr / 100},
        ]
        optimizer = torch.optim.Adam(groups, lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.n_steps)
        with self.engine.prepared(volumes):
            scores = [
                self.engine.scores(volumes, torch.full((len(volumes),), k, device=volumes.device))
                for k in range(n_classes)
            ]
            predicted = torch.stack(scores, 1).argmax(1)
            for _ in range(self.n_steps):
                rows = torch.randperm(len(volumes), generator=generator)[: self.batch_size]
                images, targets = volumes[rows], predicted[rows]
                fills = self.fills.make(images, targets, brain, generator).transpose(0, 1)
                of_fills = self.fills.mixtures(1, generator).to(images).expand(len(images), -1)
                optimizer.zero_grad()
                coarse = network(images, targets)
                evidence = upsampled(coarse, images.shape) * brain
                _, gradient = self.engine.gradients(
                    images, mixed(fills, of_fills), evidence.detach(), targets
                )
                regulariser = self.area_weight * mean_in(evidence, brain)
                regulariser = regulariser + self.tv_weight * total_variation(coarse, SPACING, self.tv_beta)
                ((evidence * gradient).sum() + regulariser.sum()).backward()
                optimizer.step()
                schedule.step()
        self.network = network.eval()

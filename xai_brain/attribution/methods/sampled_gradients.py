"""Gradients averaged over random neighbours or training subjects.

Captum's NoiseTunnel and GradientShap draw a batch at a time: what a subject gets would depend on the batch
and on the memory of the machine. Here each sample has a seed of its own, made from the voxels.
"""

from __future__ import annotations

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets, seed_of
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.masks import brain_of, mean_in
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference


class SmoothGrad:
    """Mean gradient over noisy copies of the volume.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference, optional
        For its brain mask.
    n_samples : int, default 20
    noise : float, default 0.15
        Standard deviation of the noise, in standard deviations of the volume's brain.
    random_state : int, default 0
    chunk_size : int, optional
        Samples in one pass; default: what fits into memory.

    References
    ----------
    Smilkov et al., "SmoothGrad: removing noise by adding noise", arXiv 1706.03825.
    """

    info = MethodInfo(
        name="SmoothGrad",
        value_meaning="raw and signed: mean gradient of the output explained over noisy copies",
        multiplies_by_inputs=False,
        per_channel=True,
        citation=(
            "Smilkov D, Thorat N, Kim B, Viégas F, Wattenberg M. SmoothGrad: removing noise by adding"
            " noise. 2017. arXiv:1706.03825."
        ),
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        n_samples: int = 20,
        noise: float = 0.15,
        random_state: int = 0,
        chunk_size: int | None = None,
    ):
        self.model = model
        self.engine = BatchedScorer(model, chunk_size)
        self.reference = reference
        self.n_samples, self.noise, self.random_state = n_samples, noise, random_state

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        brain = brain_of(inputs, self.reference)
        mean = mean_in(inputs, brain).view(-1, 1, 1, 1, 1)
        sd = self.noise * mean_in((inputs - mean).square(), brain).sqrt()
        seeds = [seed_of(volume, self.random_state) for volume in inputs]

        def noisy(of: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            drawn = [
                normal_noise(inputs[0], seeds[i] + sample)
                for i, sample in zip(of.tolist(), k.tolist(), strict=True)
            ]
            return inputs[of] + sd[of].view(-1, 1, 1, 1, 1) * torch.stack(drawn)

        with self.engine.prepared(inputs, targets):
            return self.engine.sum_over_points(
                *(inputs, targets, self.n_samples, noisy),
                lambda gradients, of, k: gradients / self.n_samples,
            )


class GradientShap:
    """Mean of gradient times difference, at random points between the volume and training subjects.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference
        Its sample of volumes is drawn from.
    n_samples : int, default 32
    random_state : int, default 0
    chunk_size : int, optional
        Samples in one pass; default: what fits into memory.

    Notes
    -----
    The training subjects are taken in a random order, each once before any comes again. `ExpectedGradients`
    computes the same expectation without random numbers, from all volumes of the reference.

    References
    ----------
    Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017; Erion et al.,
    "Improving performance of deep learning models with axiomatic attribution priors and expected gradients",
    Nature Machine Intelligence 2021.
    """

    info = MethodInfo(
        name="GradientShap",
        value_meaning="raw and signed: expected share of the voxel in the change from training participants",
        multiplies_by_inputs=True,
        per_channel=True,
        citation=(
            "Lundberg SM, Lee SI. A unified approach to interpreting model predictions. NeurIPS 2017."
            " arXiv:1705.07874."
        ),
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference,
        n_samples: int = 32,
        random_state: int = 0,
        chunk_size: int | None = None,
    ):
        reference.require_volumes()
        self.model = model
        self.engine = BatchedScorer(model, chunk_size)
        self.reference, self.n_samples, self.random_state = reference, n_samples, random_state

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        self.reference.check(inputs)
        drawn = [self._draw(seed_of(volume, self.random_state)) for volume in inputs]
        participants = torch.stack([each[0] for each in drawn])  # of the reference, (N, n_samples)
        places = torch.stack([each[1] for each in drawn]).to(inputs)

        def way(of: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """Starts, and what leads from them to the volumes."""
            starts = self.reference.volumes[participants[of.cpu(), k.cpu()]].to(inputs)
            return starts, inputs[of] - starts

        def point(of: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            starts, difference = way(of, k)
            return starts + places[of, k].view(-1, 1, 1, 1, 1) * difference

        with self.engine.prepared(inputs, targets):
            return self.engine.sum_over_points(
                *(inputs, targets, self.n_samples, point),
                lambda gradients, of, k: gradients * way(of, k)[1] / self.n_samples,
            )

    def _draw(self, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Training subjects and places on the way from them, both (n_samples,)."""
        generator = torch.Generator().manual_seed(seed)
        n = len(self.reference.volumes)
        orders = [torch.randperm(n, generator=generator) for _ in range(-(-self.n_samples // n))]
        return torch.cat(orders)[: self.n_samples], torch.rand(self.n_samples, generator=generator)


def normal_noise(volume: torch.Tensor, seed: int) -> torch.Tensor:
    """Standard normal numbers of the shape of a volume."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(volume.shape, generator=generator, dtype=volume.dtype).to(volume.device)

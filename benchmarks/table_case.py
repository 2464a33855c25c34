"""A network with volumes to explain, and what is true of it in double precision."""

from __future__ import annotations

import copy
from functools import cached_property

import torch
from table_networks import Kind

from xai_brain import attribution as xa


class Case:
    """A network with volumes to explain, and what is true of it, in double precision."""

    def __init__(self, kind: Kind, shape: tuple[int, int, int]):
        generator = torch.Generator().manual_seed(7)
        self.kind, self.shape = kind, shape
        self.target = min(1, kind.n_outputs - 1)
        sizes = (kind.n_channels, *shape)
        self.inputs = 0.3 + torch.randn(2, *sizes, generator=generator)
        volumes = torch.randn(4, *sizes, generator=generator)
        self.reference = self.around(torch.stack([volumes[::2].mean(0), volumes[1::2].mean(0)]), volumes)
        self.exact = copy.deepcopy(kind.network).double().requires_grad_(False)
        self.fill = self.reference.class_means[1 - self.target].double()

    def around(self, class_means: torch.Tensor, volumes: torch.Tensor) -> xa.Reference:
        return xa.Reference(
            class_means=class_means,
            volumes=volumes,
            targets=torch.tensor([0, 1, 0, 1]),
            brain_mask=torch.ones(self.shape, dtype=torch.bool),
            voxel_size_mm=(2.0, 2.0, 2.0),
            affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64)),
        )

    def score(self, output: str = "logit") -> xa.ClassScore:
        return xa.ClassScore(self.kind.network, output)

    def maps(self, method) -> torch.Tensor:
        return method.attribute(self.inputs, self.target)

    @torch.no_grad()
    def exact_score(self, volumes: torch.Tensor, output: str = "logit") -> torch.Tensor:
        return xa.ClassScore(self.exact, output)(volumes.double())[:, self.target]

    def exact_gradient(self, volumes: torch.Tensor, output: str = "logit") -> torch.Tensor:
        leaf = volumes.double().requires_grad_()
        scores = xa.ClassScore(self.exact, output)(leaf)[:, self.target]
        return torch.autograd.grad(scores.sum(), leaf)[0]

    @cached_property
    def gradient(self) -> torch.Tensor:
        """Checked against differences of the output along random directions."""
        gradient, step = self.exact_gradient(self.inputs), 1e-8
        for seed in range(3):
            way = torch.randn(self.inputs.shape, generator=torch.Generator().manual_seed(seed)).double()
            ends = [self.exact_score(self.inputs.double() + sign * step * way) for sign in (1, -1)]
            slope = (gradient * way).sum((1, 2, 3, 4))
            assert torch.allclose((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-2, atol=1e-6), (
                self.kind.name
            )
        return gradient


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is right, the larger of the volumes."""
    a, b = a.double().flatten(1), b.double().flatten(1)
    scale = torch.where(b.any(1), b.norm(dim=1), 1.0)  # a map that has to be 0
    return float(((a - b).norm(dim=1) / scale).max())


def scale(change: float, map_: torch.Tensor) -> float:
    """What an error of a sum is compared with."""
    return max(abs(change), 0.05 * float(map_.abs().sum()))

"""A network with volumes to explain, and what is true of it in double precision."""

from __future__ import annotations

import copy
from functools import cached_property

import torch
from table_networks import Kind

from xai_brain import attribution as xa
from xai_brain.attribution.network_outputs import KINDS


class Case:
    """A network with volumes to explain, and what is true of it, in double precision.

    What the methods receive are the network and the outputs of the package. What is true is computed from
    `exact`, a copy of the original network, and from the definitions of the outputs in `exact_columns`.
    """

    def __init__(self, kind: Kind, shape: tuple[int, int, int]):
        generator = torch.Generator().manual_seed(7)
        self.kind, self.shape = kind, kind.shape or shape
        self.task, self.n_classes = KINDS[kind.outputs], max(2, kind.n_outputs)
        self.target = 0 if kind.outputs == "numbers" else 1
        sizes = (kind.n_channels, *self.shape)
        self.inputs = 0.3 + torch.randn(kind.n_volumes, *sizes, generator=generator)
        volumes = torch.randn(2 * self.n_classes, *sizes, generator=generator)
        means = [volumes[k :: self.n_classes].mean(0) for k in range(self.n_classes)]
        self.reference = self.around(torch.stack(means), volumes)
        self.exact = copy.deepcopy(kind.original or kind.network).double().requires_grad_(False)
        self.fill = self.exact_fill(self.target)

    def around(self, class_means: torch.Tensor, volumes: torch.Tensor) -> xa.Reference:
        return xa.Reference(
            class_means=class_means,
            volumes=volumes,
            targets=torch.arange(len(volumes)) % self.n_classes,
            brain_mask=torch.ones(self.shape, dtype=torch.bool),
            voxel_size_mm=(2.0, 2.0, 2.0),
            affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64)),
        )

    def exact_fill(self, target: int) -> torch.Tensor:
        """Mean of the other classes' mean volumes."""
        others = [mean for k, mean in enumerate(self.reference.class_means.double()) if k != target]
        return torch.stack(others).mean(0)

    def score(self, output: str = "logit") -> xa.ClassScore:
        return xa.ClassScore(self.kind.network, self.named(output), self.task)

    def named(self, output: str) -> str:
        """The output that is explained where the network does not have the one asked for."""
        return output if output in self.task.outputs else self.task.outputs[0]

    def maps(self, method) -> torch.Tensor:
        return method.attribute(self.inputs, self.target)

    def exact_columns(self, volumes: torch.Tensor, output: str = "logit") -> torch.Tensor:
        """The explained output of every class, by its definition, (N, n_classes)."""
        found = self.exact(volumes.double())
        found = found[0] if isinstance(found, tuple) else found
        is_probability = self.named(output) == "probability"
        if self.kind.region is not None:  # of the logits of a label
            return (found[:, self.kind.label] * self.kind.region).flatten(1).sum(1, keepdim=True)
        if self.kind.outputs == "one_logit":
            found = torch.cat([-found, found], 1)
        if is_probability:
            return found.softmax(1) if self.kind.outputs == "classes" else 1 / (1 + torch.exp(-found))
        return found

    @torch.no_grad()
    def exact_score(self, volumes: torch.Tensor, output: str = "logit") -> torch.Tensor:
        return self.exact_columns(volumes, output)[:, self.target]

    def exact_gradient(self, volumes: torch.Tensor, output: str = "logit") -> torch.Tensor:
        leaf = volumes.double().requires_grad_()
        scores = self.exact_columns(leaf, output)[:, self.target]
        return torch.autograd.grad(scores.sum(), leaf)[0]

    @cached_property
    def gradient(self) -> torch.Tensor:
        """Checked against differences of the output along random directions."""
        gradient, step = self.exact_gradient(self.inputs), 1e-8
        for seed in range(3 if self.kind.shape is None else 1):
            way = torch.randn(self.inputs.shape, generator=torch.Generator().manual_seed(seed)).double()
            ends = [self.exact_score(self.inputs.double() + sign * step * way) for sign in (1, -1)]
            slope = (gradient * way).sum((1, 2, 3, 4))
            size = float(ends[0].abs().max())
            assert torch.allclose(
                (ends[0] - ends[1]) / (2 * step), slope, rtol=1e-2, atol=1e-6 * max(1, size)
            ), self.kind.name
        return gradient


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is right, the larger of the volumes."""
    a, b = a.double().flatten(1), b.double().flatten(1)
    scale = torch.where(b.any(1), b.norm(dim=1), 1.0)  # a map that has to be 0
    return float(((a - b).norm(dim=1) / scale).max())


def scale(change: float, map_: torch.Tensor) -> float:
    """What an error of a sum is compared with."""
    return max(abs(change), 0.05 * float(map_.abs().sum()))

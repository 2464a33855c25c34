"""DeepLIFT with the rescale rule, for activations and max pooling wherever a network calls them."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.completeness import check_completeness, sums
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.memory import Chunks
from xai_brain.attribution.methods.integrated_gradients import baseline_volumes, default_baseline
from xai_brain.attribution.model_state import AttributionError, CachedCheck, preserved
from xai_brain.attribution.operations import GENERAL_METHODS, check_logits, check_operations
from xai_brain.attribution.outputs import select_outputs
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reduced_precision import reliable_precision
from xai_brain.attribution.reference import Reference
from xai_brain.attribution.rules import Rules, with_gradient_of

ELEMENTWISE = (
    *("relu", "relu6", "leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus"),
    *("hardswish", "hardsigmoid", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max", "sigmoid", "tanh"),
)
MAX_POOLING = tuple(f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3))
ALLOWED = ("shape", "linear", "affine")  # beside what the rules reach
NEAR = 1e-5  # relative difference below which the derivative replaces the quotient of two rounding errors


class DeepLift:
    """Differences from a baseline, attributed backwards by the rescale rule.

    The attributions of a volume sum to the difference of the output between the volume and the baseline.
    This is checked for every volume, with a tolerance of 5 % (see `completeness_error`). Completeness is
    necessary, not sufficient, for a correct map.

    The rule holds for functions of single values (ReLU, GELU, clamp, ...) and for max pooling, overlapping or
    not: the difference of a maximum goes to the voxel that attains the larger of the two maxima. Products of
    two activations, attention and normalisation by statistics of the image are refused.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes). Functional, in-place and reused activations are explained as well.
    reference : Reference, optional
    baseline : str, optional
        A fill that is not random, see `ReplacementVolumes`. Default: ``training_mean`` with a reference,
        else ``zero``.
    blur_sigma_mm : float, default 12
        Of ``baseline="blur"``.

    References
    ----------
    Shrikumar et al., "Learning Important Features Through Propagating Activation Differences", ICML 2017.
    """

    info = MethodInfo(
        name="DeepLift",
        value_meaning="raw and signed: share of the voxel in the output's difference from the baseline",
        multiplies_by_inputs=True,
        per_channel=True,
        citation=(
            "Shrikumar A, Greenside P, Kundaje A. Learning important features through propagating "
            "activation differences. ICML 2017. arXiv:1704.02685."
        ),
        operations=ALLOWED,
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        baseline: str | None = None,
        blur_sigma_mm: float = 12.0,
    ):
        check_logits(model, "DeepLIFT")
        self.model, self.reference = model, reference
        self.baseline = ReplacementVolumes(baseline or default_baseline(reference), reference, blur_sigma_mm)
        self._checked = CachedCheck(_check)

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; the attributions of each volume are checked for completeness."""
        targets, inputs = as_targets(target, inputs), inputs.detach()
        starts = baseline_volumes(self.baseline, self.reference, inputs, targets)
        maps = torch.empty_like(inputs)

        def explain(rows: slice) -> None:
            maps[rows], after, before = _explain(self.model, inputs[rows], starts[rows], targets[rows])
            total, absolute = sums(maps[rows])
            check_completeness(
                "DeepLIFT",
                *(total, after - before, absolute, torch.maximum(after.abs(), before.abs())),
                meaning="the difference of the output from the baseline",
                advice=f"use another method ({GENERAL_METHODS})",
                volumes=range(len(inputs))[rows],
            )

        with preserved(self.model):
            self._checked.result_for(self.model, inputs)
            with reliable_precision(self.model, self.model, inputs[:1], 1):
                Chunks(1).run(len(inputs), explain)  # a volume takes several times the memory of a gradient
        return maps


def _check(model: nn.Module, inputs: torch.Tensor) -> None:
    rules = RescaleRules()
    with torch.enable_grad(), rules:
        model(torch.zeros_like(inputs[:1]))
    rules.at_baseline = False
    check_operations(model, inputs[:1], "DeepLIFT", ALLOWED, rules)


def _explain(
    model: nn.Module, volumes: torch.Tensor, starts: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attributions, (N, C, X, Y, Z), and outputs for the volumes and for the baseline, (N,)."""
    rules = RescaleRules()
    with torch.enable_grad(), rules:  # no graph: nothing asks for gradients
        before = select_outputs(model(starts), targets)
    rules.at_baseline = False
    volumes = volumes.clone().requires_grad_()
    with torch.enable_grad(), rules:
        after = select_outputs(model(volumes), targets)
    multipliers = torch.autograd.grad(after.sum(), volumes)[0]
    return multipliers * (volumes - starts).detach(), after.detach().double(), before.double()


class RescaleRules(Rules):
    """The multiplier of an activation is the difference of its output over that of its input.

    The first pass, on the baseline, keeps what each call of a function got and gave; the second, on the
    volume, takes the same calls in the same order.
    """

    def __init__(self) -> None:
        super().__init__(
            dict.fromkeys(ELEMENTWISE, self._elementwise) | dict.fromkeys(MAX_POOLING, self._max_pooling)
        )
        self.at_baseline = True
        self._calls: deque[tuple[torch.Tensor, ...]] = deque()

    def _next_call(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if not self._calls or self._calls[0][0].shape != x.shape:
            raise AttributionError(
                "DeepLIFT: the network calls other functions for the volume than for the baseline; "
                f"use another method ({GENERAL_METHODS})"
            )
        return self._calls.popleft()

    def _elementwise(self, function: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        others = (*args, *kwargs.values())
        if any(isinstance(a, torch.Tensor) and not isinstance(a, nn.Parameter) for a in others):
            return NotImplemented  # a function of more than one value
        values = x.detach()
        out = function(values, *args, **kwargs)
        if self.at_baseline:
            self._calls.append((values.clone(), out))
            return out.clone()  # the network may change it in place
        start, out_start = self._next_call(x)
        change = values - start
        near = change.abs() <= NEAR * (values.abs() + start.abs())
        middle = ((values + start) / 2).requires_grad_()
        with torch.enable_grad():
            slope = torch.autograd.grad(function(middle, *args, **kwargs).sum(), middle)[0]
        multiplier = torch.where(near, slope, (out - out_start) / torch.where(near, 1.0, change))
        return with_gradient_of(out, x * multiplier)

    def _max_pooling(self, function: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        name = function.__name__
        if kwargs.pop("return_indices", False) or x.ndim != 2 + int(name[-2]):
            return NotImplemented
        out, indices = getattr(F, f"{name}_with_indices")(x.detach(), *args, **kwargs)
        if self.at_baseline:
            self._calls.append((x.detach().clone(), out, indices))
            return out.clone()
        start, out_start, start_indices = self._next_call(x)
        # the larger of the two maxima and the other volume's value at its place enclose the difference, so
        # that the multiplier lies in [0, 1]; windows that overlap add up in the gradient of `gather`
        place = torch.where(out >= out_start, indices, start_indices).flatten(2)
        there = x.flatten(2).gather(2, place).view_as(out)
        change = there.detach() - start.flatten(2).gather(2, place).view_as(out)
        multiplier = torch.where(change == 0, 1.0, (out - out_start) / torch.where(change == 0, 1.0, change))
        return with_gradient_of(out, there * multiplier)

"""Whether the rules of a method reach every nonlinear step of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from xai_brain.attribution.model_state import AttributionError

aten = torch.ops.aten
# what runs, whether a module calls it or the model's own forward
OPERATIONS: dict[str, tuple[object, ...]] = {
    "ReLU": (aten.relu.default, aten.relu_.default),
    "LeakyReLU": (aten.leaky_relu.default, aten.leaky_relu_.default),
    "ELU": (aten.elu.default, aten.elu_.default),
    "Sigmoid": (aten.sigmoid.default, aten.sigmoid_.default),
    "Tanh": (aten.tanh.default, aten.tanh_.default),
    "Softplus": (aten.softplus.default,),
    "MaxPool3d": (aten.max_pool3d_with_indices.default,),
    "GELU": (aten.gelu.default, aten.gelu_.default),
    "SiLU": (aten.silu.default, aten.silu_.default),
    "PReLU": (aten._prelu_kernel.default,),
    "Hardtanh": (aten.hardtanh.default, aten.hardtanh_.default),  # ReLU6 too
    "Softmax": (aten._softmax.default, aten._log_softmax.default),
    "LayerNorm": (aten.native_layer_norm.default,),
    "GroupNorm": (aten.native_group_norm.default,),
}
_KINDS = {operation: kind for kind, operations in OPERATIONS.items() for operation in operations}


class _Counting(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """There is nothing to keep a compiler from: otherwise torch imports it first, 1.6 s."""
        return False

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in _KINDS:
            self.calls[_KINDS[func]] += 1
        return func(*args, **(kwargs or {}))


def calls_of(model: nn.Module, inputs: torch.Tensor) -> tuple[Counter[str], Counter[str]]:
    """Nonlinear operations that run for the first volume, and calls of modules by their dotted name."""
    modules: Counter[str] = Counter()
    handles = [
        module.register_forward_hook(lambda *_, name=name: modules.update([name]))
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad(), _Counting() as counting:
            model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    return counting.calls, modules


def check_modules(
    model: nn.Module, inputs: torch.Tensor, method: str, kinds: Sequence[str], once: bool = False
) -> None:
    """Refuse a model with steps that a method's rules, hooks on modules, would not reach.

    One forward pass counts the operations that run against those that modules run.

    Parameters
    ----------
    model : torch.nn.Module
    inputs : Tensor of shape (N, 1, X, Y, Z)
    method : str
        For the message.
    kinds : sequence of str
        Names in torch.nn of modules that have a rule.
    once : bool, default False
        Whether a module may run only once.

    Raises
    ------
    AttributionError
        Some steps are functions, or a module runs more than once.
    """
    operations, modules = calls_of(model, inputs)
    of_kind = {
        kind: {
            name: modules[name]
            for name, module in model.named_modules()
            if type(module) is getattr(nn, kind) and name in modules
        }
        for kind in kinds
    }
    for kind, calls in of_kind.items():
        if operations[kind] > sum(calls.values()):
            function = kind.lower() if kind != "MaxPool3d" else "max_pool3d"
            raise AttributionError(
                f"{operations[kind] - sum(calls.values())} of {operations[kind]} {kind}s are functional "
                f"(F.{function}, torch.{function}): {method} would ignore them; "
                f"use torch.nn.{kind} modules in the model"
            )
        reused = [name for name, n in calls.items() if n > 1]
        if once and reused:
            raise AttributionError(
                f"module {reused[0]!r} runs {calls[reused[0]]} times in one pass: {method} needs a module of "
                f"its own at every place; give the model one torch.nn.{kind} each"
            )


def check_relu_modules(model: nn.Module, inputs: torch.Tensor, method: str) -> None:
    """Refuse a model whose ReLUs a guided gradient would not reach.

    Its rule is a hook on ``torch.nn.ReLU`` modules, at each of their calls; for a functional ReLU the map
    would silently be the plain gradient.

    Raises
    ------
    AttributionError
        There is no ReLU module, or some ReLUs are functions.
    """
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise AttributionError(
            f"the model has no torch.nn.ReLU module: {method} has no rule for it; "
            "use another method (Saliency, IntegratedGradients)"
        )
    check_modules(model, inputs, method, ["ReLU"])


def check_no_others(model: nn.Module, inputs: torch.Tensor, method: str, kinds: Sequence[str]) -> None:
    """Refuse a model with nonlinear steps other than the `kinds` that a method has rules for.

    Raises
    ------
    AttributionError
    """
    operations, _ = calls_of(model, inputs)
    if others := sorted(set(operations) - set(kinds)):
        raise AttributionError(
            f"{method} has no rule for {', '.join(others)}, which the model uses; "
            "use another method (IntegratedGradients, Occlusion)"
        )


def check_logits(model: nn.Module, method: str) -> None:
    """Refuse to explain probabilities by a method that shares out logits.

    Raises
    ------
    AttributionError
    """
    if getattr(model, "output", "logit") == "probability":
        raise AttributionError(
            f"{method} shares out a logit, not a probability: set explain.output to logit or logit_difference"
        )

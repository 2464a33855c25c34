"""What a method may borrow of a model, and gives back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


class AttributionError(ValueError):
    """A model or input that a method cannot explain: why, and what to do."""


@contextmanager
def preserved(model: nn.Module) -> Iterator[nn.Module]:
    """Explain inside; the model leaves as it came, also after an exception.

    Inside, the model is in eval mode, its parameters ask for no gradient and in-place ReLUs work out
    of place (hooks on them would fail otherwise). Restored: train/eval flags, hooks, `requires_grad`,
    `.grad` and the in-place flags.

    Parameters
    ----------
    model : torch.nn.Module
    """
    modules = list(model.modules())
    training = [module.training for module in modules]
    hooks = [
        {name: dict(getattr(module, name)) for name in HOOKS if hasattr(module, name)} for module in modules
    ]
    in_place: list[Any] = [module for module in modules if getattr(module, "inplace", False) is True]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
        for activation in in_place:
            activation.inplace = False
        yield model
    finally:
        for module, flag, kept in zip(modules, training, hooks, strict=True):
            module.training = flag
            for name, before in kept.items():
                current = getattr(module, name)
                for key in [key for key in current if key not in before]:
                    del current[key]
        for parameter, flag, grad in parameters:
            parameter.requires_grad_(flag)
            parameter.grad = grad
        for activation in in_place:
            activation.inplace = True


class _ReluCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += func in (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
        return func(*args, **(kwargs or {}))


def check_relu_modules(model: nn.Module, inputs: torch.Tensor) -> None:
    """Refuse a model whose ReLUs guided backpropagation would not reach.

    Its rule is a hook on ``torch.nn.ReLU`` modules; for a functional ReLU the map would silently be
    the plain gradient. One forward pass counts the ReLUs that run against those that are modules.

    Raises
    ------
    AttributionError
        There is no ReLU module, or some ReLUs are functions.
    """
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    if not relus:
        raise AttributionError(
            "the model has no torch.nn.ReLU module: guided backpropagation has no rule for it"
        )
    seen: list[int] = []
    handles = [relu.register_forward_hook(lambda *_, i=i: seen.append(i)) for i, relu in enumerate(relus)]
    try:
        with torch.no_grad(), _ReluCounter() as counter:
            model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    if counter.calls > len(seen):
        raise AttributionError(
            f"{counter.calls - len(seen)} of {counter.calls} ReLUs are functional (F.relu, torch.relu): "
            "guided backpropagation would ignore them; use torch.nn.ReLU modules in the model"
        )

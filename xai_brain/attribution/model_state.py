"""What a method may borrow of a model, and gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import nn

Found = TypeVar("Found")

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


class CachedCheck(Generic[Found]):
    """What a method found out about a model by trying it on a volume; tried again when the model changes.

    Parameters
    ----------
    find : callable of (model, inputs, ...)
        Its result follows from the modules of the model and the size of a volume, not from weights.
    """

    def __init__(self, find: Callable[..., Found]):
        self.find = find
        self.known: tuple[Any, Found] | None = None

    def result_for(self, model: nn.Module, inputs: torch.Tensor, *more: Any) -> Found:
        """``find(model, inputs, ...)``, or what it gave for these modules and this size."""
        about = (tuple(model.modules()), inputs.shape[1:], inputs.device, more)
        if self.known is None or self.known[0] != about:
            self.known = about, self.find(model, inputs, *more)
        return self.known[1]


@contextmanager
def preserved(model: nn.Module) -> Iterator[nn.Module]:
    """Explain inside; the model leaves as it came, also after an exception.

    Inside, the model is in eval mode, its parameters ask for no gradient and in-place ReLUs work out
    of place (hooks on them would fail otherwise). Restored: train/eval flags, hooks, `requires_grad`,
    `.grad` and the in-place flags; attributes that a method set on a module are taken off.

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
    attributes = [set(vars(module)) for module in modules]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _, _ in parameters:
            parameter.requires_grad_(False)
        for activation in in_place:
            activation.inplace = False
        yield model
    finally:
        for module, flag, kept, known in zip(modules, training, hooks, attributes, strict=True):
            module.training = flag
            for name in set(vars(module)) - known:
                delattr(module, name)
            for name, before in kept.items():
                current = getattr(module, name)
                for key in [key for key in current if key not in before]:
                    del current[key]
        for parameter, flag, grad in parameters:
            parameter.requires_grad_(flag)
            parameter.grad = grad
        for activation in in_place:
            activation.inplace = True

"""What a method may borrow of a model, and gives back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

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

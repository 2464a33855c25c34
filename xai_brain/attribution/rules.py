"""Rules that replace the gradient of certain functions, from wherever they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Rule = Callable[..., torch.Tensor]


class Rules(TorchFunctionMode):
    """While active, functions of the given names follow rules.

    Modules, ``torch.nn.functional``, ``torch`` and methods of tensors end in the same functions, so that
    functional, in-place and reused activations follow the rules as well, and nothing is changed on the model.

    Parameters
    ----------
    rules : mapping of str to callable
        Name of a function, without the underscore of its in-place form, to a rule: it is called with the
        out-of-place function and its arguments, the first of which is a tensor, and returns the result, or
        NotImplemented where it does not apply. Rules apply only while gradients are enabled.
    """

    def __init__(self, rules: Mapping[str, Rule]):
        super().__init__()
        self.rules = rules
        self.applying = False  # whether operations that run now are those of a rule
        self.n_applied = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__")
        rule = self.rules.get(name.removesuffix("_") if in_place else name)
        if rule is None or not args or not isinstance(args[0], torch.Tensor) or not torch.is_grad_enabled():
            return func(
                *args, **kwargs
            )  # without gradients, as in a torch.autograd.Function, no rule is kept
        settings = {key: value for key, value in kwargs.items() if key != "inplace"}
        self.applying = True
        try:
            result = rule(_out_of_place(name) if in_place else func, *args, **settings)
            if result is not NotImplemented:
                self.n_applied += 1
                return args[0].copy_(result) if in_place or kwargs.get("inplace") else result
        finally:
            self.applying = False
        return func(*args, **kwargs)


def _out_of_place(name: str) -> Any:
    name = name.removesuffix("_")
    return getattr(torch, name, None) or getattr(F, name)


def depends(value: Any) -> bool:
    """Whether an argument is a tensor whose gradient reaches the image."""
    return isinstance(value, torch.Tensor) and value.requires_grad


def with_gradient_of(value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The value of one tensor with the gradient of another."""
    return value.detach() + (other - other.detach())

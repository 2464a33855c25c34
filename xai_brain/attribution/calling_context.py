"""Computing context of all methods: float32 with gradients, independent of the calling code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError

Result = TypeVar("Result")


def in_float32(explain: Callable[..., Result]) -> Callable[..., Result]:
    """Let a method of an attribution class compute in float32 and with gradients.

    The method gets a copy of the inputs in float32, and the network holds copies of its weights in float32
    meanwhile; then it has its own again. `torch.no_grad`, `torch.inference_mode` and `torch.autocast` of the
    caller have no effect inside. Maps are returned in the dtype of the inputs, or in float32 if that is not a
    floating-point type.

    Parameters
    ----------
    explain : function of (self, inputs, target, ...)
        The network is ``self.model``. A returned tensor, or the first of a returned tuple, is the map.

    Raises
    ------
    AttributionError
        When called: the map is too large or too small for the dtype of the inputs.
    """

    @wraps(explain)
    def call(
        self: Any, inputs: torch.Tensor, target: int | torch.Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        if not isinstance(inputs, torch.Tensor):
            raise AttributionError(
                f"inputs are a {type(inputs).__name__}: a torch.Tensor of shape (N, C, X, Y, Z) is needed "
                "(for arrays: torch.from_numpy)"
            )
        with float32_with_gradients(self.model, inputs.device):
            # tensors that were made in inference mode cannot be kept for a backward pass, their clones can
            volumes = inputs.detach().clone().float()
            if isinstance(target, torch.Tensor):
                target = target.detach().clone()
            result = explain(self, volumes, target, *args, **kwargs)
            if isinstance(result, torch.Tensor):
                return _in_dtype_of(inputs, result)
            if isinstance(result, tuple):
                return (_in_dtype_of(inputs, result[0]), *result[1:])
            return result

    return call


@contextmanager
def float32_with_gradients(model: object, device: torch.device | str) -> Iterator[None]:
    """Inside, a network on a device computes in float32 and gradients are recorded; see `in_float32`."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(torch.device(device).type, enabled=False),
        float32_weights(model),
    ):
        yield


@contextmanager
def float32_weights(model: object) -> Iterator[None]:
    """Inside, floating-point weights and buffers of a network are float32 and can take part in gradients.

    Other ones are replaced by copies, and come back at the end, also after an exception. A network that is
    float32 already is not changed.

    Parameters
    ----------
    model : torch.nn.Module
        Anything else has no weights.
    """
    replaced: list[tuple[nn.Module, str, torch.Tensor]] = []
    copies: dict[int, torch.Tensor] = {}  # by id of the original: layers may share weights
    try:
        for module in model.modules() if isinstance(model, nn.Module) else ():
            for name, tensor in chain(module._parameters.items(), module._buffers.items()):
                if tensor is None or not tensor.is_floating_point():
                    continue
                if tensor.dtype != torch.float32 or tensor.is_inference():
                    replaced.append((module, name, tensor))
        for module, name, tensor in replaced:
            if id(tensor) not in copies:
                values = tensor.detach().clone().float()
                is_weight = isinstance(tensor, nn.Parameter)
                copies[id(tensor)] = nn.Parameter(values, tensor.requires_grad) if is_weight else values
            setattr(module, name, copies[id(tensor)])
        yield
    finally:
        for module, name, tensor in replaced:
            setattr(module, name, tensor)


def _in_dtype_of(inputs: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Maps (N, ...) in the dtype of the inputs.

    Raises
    ------
    AttributionError
        A finite value becomes infinite, or the largest one of a map lies below the numbers of full precision.
    """
    if not inputs.is_floating_point() or maps.dtype == inputs.dtype:
        return maps
    limits = torch.finfo(inputs.dtype)
    for largest in maps.nan_to_num(0, 0, 0).abs().flatten(1).amax(1).tolist():  # of each map
        if largest and not limits.smallest_normal <= largest <= limits.max:
            raise AttributionError(
                f"the largest value of a map is {largest:.3g}: {inputs.dtype}, the type of the inputs, is "
                f"accurate from {limits.smallest_normal:.3g} to {limits.max:.3g}; give the inputs in float32"
            )
    return maps.to(inputs.dtype)

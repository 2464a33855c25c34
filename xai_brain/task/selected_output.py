"""One tensor of what a network returns: a tensor, tuple, list, dictionary or dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import fx

SHOWN_KEYS = 8  # of an output with many parts, in a message


class OutputError(ValueError):
    """A network does not return one value per output."""


def select_tensor(outputs: Any, key: str | int | None = None) -> torch.Tensor:
    """One tensor of the outputs of a network.

    Parameters
    ----------
    outputs : Tensor, tuple, list, mapping or dataclass
    key : str or int, optional
        Name or position of the tensor; not needed if there is only one.

    Raises
    ------
    OutputError
        There is no such part, it is no tensor, or there are several tensors and no key.
    """
    parts = _parts(outputs)
    if parts is None:
        if isinstance(outputs, torch.Tensor) and key is None:
            return outputs
        what = "one tensor" if isinstance(outputs, torch.Tensor) else f"a {type(outputs).__name__}"
        raise OutputError(
            f"the network returns {what}"
            + (f": output_key={key!r} does not apply" if key is not None else "; a tensor is needed")
        )
    tensors = {name: part for name, part in parts.items() if isinstance(part, torch.Tensor)}
    names = ", ".join(map(repr, list(tensors)[:SHOWN_KEYS])) or "none"
    if key is None:
        if len(tensors) == 1:
            return next(iter(tensors.values()))
        raise OutputError(
            f"the network returns several tensors ({names}): output_key= states which one is explained"
        )
    if key not in tensors:
        raise OutputError(f"output_key={key!r}: the network returns no such tensor; there are {names}")
    return tensors[key]


def _parts(outputs: Any) -> Mapping[Any, Any] | None:
    if isinstance(outputs, Mapping):
        return outputs
    if is_dataclass(outputs):
        return {each.name: getattr(outputs, each.name) for each in fields(outputs)}
    if isinstance(outputs, tuple | list):
        names = getattr(outputs, "_fields", range(len(outputs)))
        return dict(zip(names, outputs, strict=True))
    return None


fx.wrap("select_tensor")  # a value decides: kept as one call in a traced copy of the network

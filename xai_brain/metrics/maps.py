"""Maps of a method for many volumes, computed in batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from xai_brain.attribution.inputs import as_targets


class MapError(ValueError):
    """No metric can be computed from a map."""


class Method(Protocol):
    """Any object with the method ``attribute``, for example of Captum."""

    def attribute(self, inputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor: ...


def maps_of(
    method: Method,
    inputs: torch.Tensor,
    target: int | torch.Tensor,
    batch_size: int = 8,
    random_state: int = 0,
) -> torch.Tensor:
    """Explain volumes with the same random numbers in every call.

    Metrics compare maps of different networks or slightly different images, so that random numbers must not
    differ between calls.

    Parameters
    ----------
    method : object with ``attribute(inputs, target)``
    inputs : Tensor of shape (N, 1, X, Y, Z)
    target : int or Tensor of shape (N,)
    batch_size : int, default 8
        Volumes in one call of the method.
    random_state : int, default 0
        Seed of the generators of torch, which are restored afterwards.

    Returns
    -------
    Tensor of shape (N, 1, X, Y, Z)
        On the CPU, float32.

    Raises
    ------
    MapError
        A map contains NaN or infinite values.
    """
    targets = as_targets(target, inputs)
    with seeded(inputs.device, random_state):
        parts = [
            method.attribute(volumes.detach().clone().requires_grad_(), target=part).detach().cpu().float()
            for volumes, part in zip(inputs.split(batch_size), targets.split(batch_size), strict=True)
        ]
    maps = torch.cat(parts)
    if n_broken := int((~maps.isfinite()).flatten(1).any(1).sum()):
        raise MapError(f"{type(method).__name__}: {n_broken} of {len(maps)} maps hold NaN or infinite values")
    return maps


@contextmanager
def seeded(device: torch.device, random_state: int) -> Iterator[None]:
    """Seed torch's generators inside the block and restore their state afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(random_state)
        yield

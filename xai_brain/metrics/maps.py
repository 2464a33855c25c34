"""Maps of a method for many volumes, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from xai_brain.attribution.inputs import as_targets


class MapError(ValueError):
    """A map that no metric can be computed from."""


class Method(Protocol):
    """Captum's interface: maps of any object that has it can be evaluated."""

    def attribute(self, inputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor: ...


def maps_of(
    method: Method,
    inputs: torch.Tensor,
    target: int | torch.Tensor,
    batch_size: int = 8,
    random_state: int = 0,
) -> torch.Tensor:
    """Explain volumes; random draws of a method are the same in every call.

    Metrics compare maps of one image, of two networks or of slightly different images: only what they
    vary may differ.

    Parameters
    ----------
    method : object with ``attribute(inputs, target)``
    inputs : Tensor of shape (N, 1, X, Y, Z)
    target : int or Tensor of shape (N,)
    batch_size : int, default 8
        Volumes in one call of the method.
    random_state : int, default 0
        Of torch's own generators, for the time of the call.

    Returns
    -------
    Tensor of shape (N, 1, X, Y, Z)
        On the CPU, float32.

    Raises
    ------
    MapError
        A map holds NaN or infinite values.
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

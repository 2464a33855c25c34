"""Checks of the arguments of methods, and random numbers that depend on the volume, not on the batch."""

from __future__ import annotations

import hashlib

import torch

from xai_brain.attribution.model_state import AttributionError


def check_volumes(inputs: object, one_channel: str | None = None) -> None:
    """Refuse inputs that are not a batch of volumes.

    Parameters
    ----------
    inputs : Tensor of shape (N, C, X, Y, Z)
    one_channel : str, optional
        Name of a method that takes volumes of one channel only.

    Raises
    ------
    AttributionError
        They have another shape.
    """
    if not isinstance(inputs, torch.Tensor) or inputs.ndim != 5:
        what = f"of shape {tuple(inputs.shape)}" if hasattr(inputs, "shape") else type(inputs).__name__
        raise AttributionError(
            f"inputs {what}: a tensor of shape (N, C, X, Y, Z) is needed, "
            "a batch of volumes with a channel axis (volume[None, None] for a single one)"
        )
    if one_channel and inputs.shape[1] != 1:
        raise AttributionError(
            f"inputs of shape {tuple(inputs.shape)}: {one_channel} takes volumes with one channel, "
            f"(N, 1, X, Y, Z), not {inputs.shape[1]}"
        )


def as_targets(
    target: int | torch.Tensor | None, inputs: torch.Tensor, one_channel: str | None = None
) -> torch.Tensor:
    """Class indices (N,) from one index for all volumes or one for each, for inputs (N, C, X, Y, Z).

    Parameters
    ----------
    target : int or sequence of int or Tensor of shape (N,)
    inputs, one_channel
        See `check_volumes`.

    Raises
    ------
    AttributionError
        There is none, it is not a class index or one per volume, or the inputs are not volumes.
    """
    check_volumes(inputs, one_channel)
    if target is None:
        raise AttributionError(
            "target is needed: the index of the class to explain, one for all or one per volume"
        )
    try:
        targets = torch.as_tensor(target, device=inputs.device)
    except (TypeError, ValueError, RuntimeError):
        targets = torch.empty(0)  # words, for example
    whole = targets.dtype not in (torch.bool,) and not (targets.is_floating_point() or targets.is_complex())
    if not whole or targets.shape not in ((), (len(inputs),)):
        raise AttributionError(
            f"target={target!r}: an integer class index is needed, one for all volumes or one for each of "
            f"the {len(inputs)}"
        )
    if bool((targets < 0).any()):
        raise AttributionError(f"target={int(targets.min())}: a class index is 0 or more")
    return targets.long().expand(len(inputs))


def seed_of(volume: torch.Tensor, random_state: int) -> int:
    """A seed from the voxels, so that random numbers of a volume do not depend on the batch.

    Parameters
    ----------
    volume : Tensor of any shape
    random_state : int
    """
    voxels = volume.detach().cpu().contiguous().numpy()
    digest = hashlib.sha256(f"{random_state}:".encode() + voxels.tobytes()).digest()
    return int.from_bytes(digest[:7], "big")  # torch takes 63 bits; some room is left for adding to it

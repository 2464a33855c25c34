"""What every method asks of its arguments, and random numbers that follow the volume, not the batch."""

from __future__ import annotations

import hashlib

import torch

from xai_brain.attribution.model_state import AttributionError


def check_volumes(inputs: torch.Tensor) -> None:
    """Refuse inputs that are not a batch of volumes.

    Raises
    ------
    AttributionError
        They are not (N, C, X, Y, Z).
    """
    if inputs.ndim != 5:
        raise AttributionError(
            f"inputs of shape {tuple(inputs.shape)}: (N, 1, X, Y, Z) is needed, "
            "a batch of volumes with a channel axis (volume[None, None] for a single one)"
        )


def as_targets(target: int | torch.Tensor | None, inputs: torch.Tensor) -> torch.Tensor:
    """Class indices (N,) of one for all or one per subject, for inputs (N, C, X, Y, Z).

    Raises
    ------
    ValueError
        There is none.
    AttributionError
        The inputs are not volumes.
    """
    check_volumes(inputs)
    if target is None:
        raise ValueError(
            "target is needed: the index of the class to explain, one for all or one per subject"
        )
    targets = torch.as_tensor(target, device=inputs.device).long()
    return targets.expand(len(inputs)) if targets.ndim == 0 else targets


def seed_of(volume: torch.Tensor, random_state: int) -> int:
    """A seed from the voxels, so that a subject draws the same numbers alone and in any batch.

    Parameters
    ----------
    volume : Tensor of any shape
    random_state : int
    """
    voxels = volume.detach().cpu().contiguous().numpy()
    digest = hashlib.sha256(f"{random_state}:".encode() + voxels.tobytes()).digest()
    return int.from_bytes(digest[:7], "big")  # torch takes 63 bits; some room is left for adding to it

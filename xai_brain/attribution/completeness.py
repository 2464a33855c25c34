"""Check of the completeness property of attribution methods.

Completeness is necessary, not sufficient: a map with the right sum may still be distributed wrongly over the
voxels, while a map with a wrong sum cannot be right.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from xai_brain.attribution.model_state import AttributionError

TOLERANCE = 0.05
FLOOR = 0.05  # of the sum of absolute values: outputs that hardly change are not compared with themselves
ROUNDING = 1e-4  # of the outputs


def sums(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum and sum of absolute values of every map, both (N,), of maps (N, C, X, Y, Z)."""
    voxels = maps.detach().double().flatten(1)
    return voxels.sum(1), voxels.abs().sum(1)


def completeness_error(
    total: torch.Tensor, expected: torch.Tensor, absolute: torch.Tensor, size: torch.Tensor
) -> torch.Tensor:
    """|total - expected| / max(|expected|, 5 % of the sum of absolute attributions), (N,).

    Parameters
    ----------
    total, expected, absolute : Tensor of shape (N,)
        Sum of the attributions, what it should be, and the sum of their absolute values.
    size : Tensor of shape (N,)
        Of the outputs: a ten-thousandth of it is the least that an error is compared with, because smaller
        differences of outputs are lost in rounding.
    """
    scale = torch.maximum(expected.double().abs(), torch.maximum(FLOOR * absolute, ROUNDING * size.abs()))
    return torch.where(scale == 0, 0.0, (total - expected).abs() / scale)


def check_completeness(
    method: str,
    total: torch.Tensor,
    expected: torch.Tensor,
    absolute: torch.Tensor,
    size: torch.Tensor,
    meaning: str,
    advice: str,
    volumes: Sequence[int] | None = None,
) -> None:
    """Refuse maps whose sum differs from the expected value by more than 5 %.

    Parameters
    ----------
    method : str
    total, expected, absolute, size : Tensor of shape (N,)
        See `completeness_error`.
    meaning : str
        What the sum should be.
    advice : str
        What to do.
    volumes : sequence of int, optional
        Their numbers, for the message. Default: 0, 1, ...

    Raises
    ------
    AttributionError
    """
    errors = completeness_error(total, expected, absolute, size)
    for i, error in enumerate(errors.tolist()):
        if not error <= TOLERANCE:  # also if it is not a number
            number = i if volumes is None else volumes[i]
            raise AttributionError(
                f"{method}: the attributions of volume {number} sum to {float(total[i]):.4g}, but {meaning} "
                f"is {float(expected[i]):.4g} (error {error:.0%}, tolerance {TOLERANCE:.0%}); {advice}"
            )

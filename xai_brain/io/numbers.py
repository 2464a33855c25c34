"""Numbers as text, with the same rounding in tables, figures, reports and the viewer; plain values."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np


def fixed_digits(value: float, digits: int) -> str:
    """A finite number with some decimal digits, rounded half away from zero.

    The decimal digits are rounded, because the nearest binary number of 0.735 is smaller than 0.735.

    Examples
    --------
    >>> fixed_digits(0.735, 2), fixed_digits(-0.0004, 3)
    ('0.74', '0.000')
    """
    return f"{Decimal(f'{value:.14g}').quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):zf}"


def plain_value(value: Any) -> Any:
    """Values of numpy and paths as types that JSON knows."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")

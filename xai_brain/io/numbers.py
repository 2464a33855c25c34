"""Numbers as text, with the same rounding in tables, figures, reports and the viewer."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal


def fixed_digits(value: float, digits: int) -> str:
    """A finite number with some decimal digits, rounded half away from zero.

    The decimal digits are rounded, because the nearest binary number of 0.735 is smaller than 0.735.

    Examples
    --------
    >>> fixed_digits(0.735, 2), fixed_digits(-0.0004, 3)
    ('0.74', '0.000')
    """
    return f"{Decimal(f'{value:.14g}').quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):zf}"

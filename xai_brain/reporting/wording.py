"""Numbers and lists as text."""

from __future__ import annotations

from collections.abc import Iterable

from xai_brain.io.numbers import fixed_digits
from xai_brain.reporting.values import Estimate, number


def fixed(value: float | None, digits: int = 3) -> str:
    """Number with a true minus sign; a dash if it is missing."""
    known = number(value)
    return "–" if known is None else fixed_digits(known, digits).replace("-", "−")


def significant(value: float | None, digits: int = 2) -> str:
    """Number of any magnitude, such as values of a map, with a true minus sign."""
    return "–" if number(value) is None else f"{value:.{digits}g}".replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """Limits of an interval; one without width, as of a perfect score, is no measure of precision."""
    known = number(low) is not None and number(high) is not None
    if known and low == high:
        return "without width"
    return f"{fixed(low, digits)} to {fixed(high, digits)}" if known else "–"


def with_interval(estimate: Estimate, digits: int = 3) -> str:
    """An estimate with its 95 % interval, if it is known."""
    known = estimate.low is not None and estimate.high is not None
    limits = f" (95 % CI {interval(estimate.low, estimate.high, digits)})" if known else ""
    return f"{fixed(estimate.value, digits)}{limits}"


def compared(low: float | None, high: float | None) -> str:
    """How the first of two values compares with the second, from the interval of their difference."""
    if low is None or high is None or low <= 0 <= high:
        return "not distinguishable from"
    return "above" if low > 0 else "below"


def listed(names: Iterable[str]) -> str:
    """``a``, ``a and b`` or ``a, b and c``; names may contain commas."""
    *first, last = [*names] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def contrast_in_words(name: str, label: str = "the target") -> str:
    """Name of a contrast (`xai_brain.statistics.group_design.contrast_name`) in words.

    Examples
    --------
    >>> contrast_in_words("male-minus-female"), contrast_in_words("contrast-age", "age")
    ('male minus female', 'association with age')
    """
    first, separator, second = name.partition("-minus-")
    return f"{first} minus {second}" if separator else f"association with {label}"


def count_networks(n_folds: int, n_seeds: int) -> str:
    """Number of networks and how it comes about, such as ``10 networks: 5 folds × 2 seeds``."""
    factors = [f"{n} {what}s" for n, what in ((n_folds, "fold"), (n_seeds, "seed")) if n > 1]
    n = n_folds * n_seeds
    count = f"{n} network{'' if n == 1 else 's'}"
    return f"{count}: {' × '.join(factors)}" if factors else count

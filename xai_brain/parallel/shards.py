"""Which units of work a start has that was given a part of them, as the jobs of an array are. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable


def read_shard(shard: str) -> tuple[int, int]:
    """Number of a shard, from 1 on, and of how many.

    Raises
    ------
    ValueError
        It is not of the form 3/8, or there is no such shard.
    """
    if not (match := re.fullmatch("([0-9]+)/([0-9]+)", shard)) or not (1 <= int(match[1]) <= int(match[2])):
        raise ValueError(f"shard={shard}: the number of a shard, from 1 on, and of how many, such as 3/8")
    return int(match[1]), int(match[2])


def select_shard(units: Iterable[str], shard: str | None) -> set[str]:
    """Units of work of a shard: of 3/8 the third of all, and every eighth after it; of none all.

    Parameters
    ----------
    units : iterable of str
        Names of all units, also of those that are done, so that every shard counts in the same way.
    shard : str or None
    """
    names = sorted(units)
    if shard is None:
        return set(names)
    number, of = read_shard(shard)
    return set(names[number - 1 :: of])

"""Division of the units of work among the jobs of an array. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable


def read_shard(shard: str) -> tuple[int, int]:
    """Number of a shard, counted from 1, and number of shards.

    Raises
    ------
    ValueError
        The text does not have the form 3/8, or there is no such shard.
    """
    if not (match := re.fullmatch("([0-9]+)/([0-9]+)", shard)) or not (1 <= int(match[1]) <= int(match[2])):
        raise ValueError(
            f"shard={shard}: the number of a shard, counted from 1, and the number of shards, such as 3/8"
        )
    return int(match[1]), int(match[2])


def select_shard(units: Iterable[str], shard: str | None) -> set[str]:
    """Units of work of a shard: for 3/8 the third one and every eighth after it; without a shard all.

    Parameters
    ----------
    units : iterable of str
        Names of all units, including finished ones, so that every job divides in the same way.
    shard : str or None
    """
    names = sorted(units)
    if shard is None:
        return set(names)
    number, of = read_shard(shard)
    return set(names[number - 1 :: of])

"""Seeds of random numbers, and names and numbers of files and folds for the network of a seed and fold."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

STEP = 1000  # more than the number of folds


def network_seed(seed: int, fold: int) -> int:
    """Seed of all random numbers of the network of a fold, different for all seeds and folds of a run.

    Examples
    --------
    >>> network_seed(2, 3)
    2003
    """
    return STEP * seed + fold


def split_random_state(random_state: int, seed: int, by_seed: bool) -> int:
    """``random_state`` of validation parts; with `by_seed` each seed has its own parts.

    Examples
    --------
    >>> split_random_state(5, 2, by_seed=True), split_random_state(5, 2, by_seed=False)
    (2005, 5)
    """
    return random_state + (STEP * seed if by_seed else 0)


def network_name(seed: int, fold: int) -> str:
    """Part of the names of files and locks that belong to the network of a seed and a fold.

    Examples
    --------
    >>> network_name(0, 1)
    'seed-0_fold-1'
    """
    return f"seed-{seed}_fold-{fold}"


def seed_folder(seed: int, seeds: Sequence[int]) -> str:
    """Folder of the maps of a seed; empty if the run has only one seed.

    Examples
    --------
    >>> seed_folder(1, [0, 1]), seed_folder(1, [1])
    ('seed-1', '')
    """
    return f"seed-{seed}" if len(seeds) > 1 else ""


def checkpoint_name(seed: int, fold: int, seeds: Sequence[int]) -> str:
    """File name of a checkpoint, without suffix; the seed is part of it if the run has several.

    Examples
    --------
    >>> checkpoint_name(1, 0, [0, 1]), checkpoint_name(1, 0, [1])
    ('seed-1_fold-0', 'fold-0')
    """
    return network_name(seed, fold) if len(seeds) > 1 else f"fold-{fold}"


def counted_from_one(folds: pd.Series) -> pd.Series:
    """Numbers of folds as people read them, from 1; in files and their names they count from 0.

    Parameters
    ----------
    folds : pandas.Series
        Column ``fold`` of a table of a run; -1 (never tested) stays -1.

    Examples
    --------
    >>> counted_from_one(pd.Series([0, 2, -1])).tolist()
    [1, 3, -1]
    """
    return folds.where(folds < 0, folds + 1)

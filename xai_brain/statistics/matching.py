"""Pairs of participants of two classes with similar brain size, and the performance within these pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from xai_brain.statistics.bootstrap import draw_counts, percentile_interval
from xai_brain.statistics.classification import auroc_of_draws

TOLERANCE = 0.02  # of the mean brain size of a pair


def matched_pairs(first: np.ndarray, second: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Pair the members of two groups one to one: the maximum number of pairs with the smallest differences.

    Parameters
    ----------
    first, second : ndarray of shape (n_first,), (n_second,)
        Positive numbers, e.g. brain sizes; NaN is never paired.
    tolerance : float, default 0.02
        Largest relative difference of a pair (divided by its mean).

    Returns
    -------
    int ndarray of shape (n_pairs, 2)
        Positions in `first` and `second`.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if not len(first) or not len(second):
        return np.zeros((0, 2), int)
    distance = 2 * np.abs(first[:, None] - second) / (first[:, None] + second)
    allowed = np.nan_to_num(distance, nan=np.inf) <= tolerance
    # an additional pair outweighs all distances
    forbidden = tolerance * (min(len(first), len(second)) + 1) + 1
    rows, columns = linear_sum_assignment(np.where(allowed, distance, forbidden))
    return np.stack([rows, columns], 1)[allowed[rows, columns]]


def size_matched_pairs(
    folds: pd.DataFrame, sizes: pd.Series, targets: pd.Series, tolerance: float = TOLERANCE
) -> pd.DataFrame:
    """Pairs of test participants of the same fold, which the same network predicts.

    Parameters
    ----------
    folds : pandas.DataFrame
        participant_id, fold.
    sizes, targets : pandas.Series
        Brain size and class (0 or 1) by participant_id.
    tolerance : float, default 0.02

    Returns
    -------
    pandas.DataFrame
        pair, fold, participant_id (two rows for a pair: class 0, class 1).
    """
    rows: list[tuple[int, int, str]] = []
    for fold, part in folds[folds["fold"] >= 0].groupby("fold"):
        ids = part["participant_id"].drop_duplicates()
        groups = [ids[targets.loc[ids].to_numpy() == k].to_numpy() for k in (0, 1)]
        for a, b in matched_pairs(sizes.loc[groups[0]], sizes.loc[groups[1]], tolerance):
            pair = len(rows) // 2
            rows += [(pair, int(fold), groups[0][a]), (pair, int(fold), groups[1][b])]
    return pd.DataFrame(rows, columns=["pair", "fold", "participant_id"])


def matched_auroc(
    predictions: pd.DataFrame, pairs: pd.DataFrame, n_bootstrap: int = 1000, random_state: int = 0
) -> tuple[float, float, float, int]:
    """AUROC in matched pairs: mean over folds, weighted by their number of pairs, and over seeds.

    The bootstrap draws pairs within folds, the same for all seeds. Pairs with a participant without
    prediction are excluded.

    Parameters
    ----------
    predictions : pandas.DataFrame
        participant_id, seed, fold, target, prob_<class> of two classes; of several images the first.
    pairs : pandas.DataFrame
        From `size_matched_pairs`.
    n_bootstrap : int, default 1000
    random_state : int, default 0

    Returns
    -------
    auroc, ci_low, ci_high : float
        NaN without pairs.
    n_pairs : int
    """
    columns = [column for column in predictions if str(column).startswith("prob_")]
    table = predictions.drop_duplicates(["participant_id", "fold", "seed"])
    table = pairs.merge(table[["participant_id", "fold", "seed", "target", columns[1]]])
    complete = table.groupby("pair")["participant_id"].nunique()
    table = table[table["pair"].isin(complete.index[complete == 2])]
    if table.empty:
        return np.nan, np.nan, np.nan, 0
    # scores (n_seeds, n_pairs, 2) of each fold; class 0 first
    wide = [part.pivot_table(index="seed", columns=["pair", "target"], values=columns[1])
            for _, part in table.groupby("fold")]  # fmt: skip
    scores = [part.to_numpy().reshape(len(part), -1, 2) for part in wide]
    sizes = np.array([part.shape[1] for part in scores])

    strata = np.split(np.arange(sizes.sum()), np.cumsum(sizes)[:-1])
    counts = draw_counts(strata, n_bootstrap, np.random.default_rng(random_state))
    counts = np.concatenate([np.ones((1, sizes.sum()), np.int64), counts])
    areas = []  # (1 + n_bootstrap,) of each fold
    for part, stratum in zip(scores, strata, strict=True):
        target, both = np.tile([0, 1], len(stratum)), np.repeat(counts[:, stratum], 2, axis=1)
        flat = part.reshape(len(part), -1)
        of_seeds = [auroc_of_draws(target, np.stack([1 - row, row], 1), both) for row in flat]
        areas.append(np.mean(of_seeds, axis=0))
    draws = np.average(areas, axis=0, weights=sizes)
    low, high = percentile_interval(draws[1:])
    return float(draws[0]), float(low), float(high), int(sizes.sum())

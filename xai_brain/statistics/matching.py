"""Pairs of participants of two classes with similar brain size, and the performance within these pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.stats import t as student

from xai_brain.statistics.classifier_comparison import auroc_influence

MATCHED = "auroc_size_matched"  # name of the score, and of the number of its pairs in metrics.json
N_MATCHED = "test/n_pairs_size_matched"
TOLERANCE = 0.02  # of the mean brain size of a pair
MIN_PAIRS = 10  # below which the variance over pairs is not known well enough for an interval


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


def matched_auroc(predictions: pd.DataFrame, pairs: pd.DataFrame) -> tuple[float, float, float, int]:
    """AUROC in matched pairs: mean over folds, weighted by their number of pairs, and over seeds.

    The 95 % interval is that of DeLong with the pair as the unit of observation and Student's t with one
    degree of freedom less than pairs, because folds contain few pairs: a bootstrap of pairs compares copies
    of a pair with itself, so that its draws are biased towards the comparison within pairs. Folds with a
    single pair have no variance of their own; the variance of their values over folds is used. Pairs with a
    participant without prediction are excluded.

    Parameters
    ----------
    predictions : pandas.DataFrame
        participant_id, seed, fold, target, prob_<class> of two classes; of several images the first.
    pairs : pandas.DataFrame
        From `size_matched_pairs`.

    Returns
    -------
    auroc, ci_low, ci_high : float
        NaN without pairs; the interval also with fewer than 10 pairs, or if pairs do not vary.
    n_pairs : int
    """
    table = pairs.merge(predictions.drop_duplicates(["participant_id", "fold", "seed"]))
    complete = table.groupby("pair")["participant_id"].nunique()
    table = table[table["pair"].isin(complete.index[complete == 2])]
    if table.empty:
        return np.nan, np.nan, np.nan, 0
    n_pairs, value, squares = int(table["pair"].nunique()), 0.0, 0.0
    singles = []  # values of folds with one pair
    for _, part in table.groupby("fold"):
        weight = part["pair"].nunique() / n_pairs
        area, contributions = auroc_influence(part)
        if part["pair"].nunique() == 1:
            singles.append(area)
        pair_of = part.drop_duplicates("participant_id").set_index("participant_id")["pair"]
        of_pairs = contributions.groupby(pair_of.loc[contributions.index].to_numpy()).sum()
        value, squares = value + weight * area, squares + weight**2 * float(of_pairs.pow(2).sum())
    if len(singles) > 1:
        squares += len(singles) * float(np.var(singles, ddof=1)) / n_pairs**2
    if n_pairs < MIN_PAIRS or squares < 1e-12:
        return value, np.nan, np.nan, n_pairs
    half = float(student.ppf(0.975, n_pairs - 1)) * np.sqrt(squares)
    return value, max(value - half, 0.0), min(value + half, 1.0), n_pairs


def missing_interval(n_pairs: float) -> str:
    """Why an AUROC in matched pairs has no interval.

    Examples
    --------
    >>> missing_interval(5)
    '5 pairs: too few for an interval'
    """
    return f"{n_pairs:.0f} pair{'s' if n_pairs != 1 else ''}: too few for an interval"

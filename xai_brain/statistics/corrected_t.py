"""Accuracies of two classifiers over the same folds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t as student

from xai_brain.statistics.classification import probabilities_of
from xai_brain.statistics.delong import Comparison


def corrected_t_test(first: pd.DataFrame, second: pd.DataFrame, n_participants: int) -> Comparison:
    """Compare mean accuracies over folds by the corrected resampled t-test.

    The training parts of folds overlap, so that the differences are not independent. The variance of the mean
    over J folds is therefore estimated as (1 / J + n_test / n_train) times the variance of a difference.

    Parameters
    ----------
    first, second : pandas.DataFrame
        participant_id, seed, fold, target, prob_<class>...; seeds are averaged within a fold, and the folds
        of all repeats are used. Only participants of both tables are used.
    n_participants : int
        Number of participants of the cohort; all that a fold does not test are training participants.

    Returns
    -------
    Comparison
        NaN with fewer than two folds, or if a classifier has no participant in a fold.

    References
    ----------
    Nadeau & Bengio, "Inference for the generalization error", Machine Learning 52:239-281, 2003.
    """
    shared = set(first["participant_id"]) & set(second["participant_id"])
    hits_1, hits_2 = (_accuracies(table[table["participant_id"].isin(shared)]) for table in (first, second))
    differences = hits_1 - hits_2
    n_folds = len(differences)
    if differences.isna().any() or n_folds < first["fold"].nunique():
        return Comparison(*(float("nan"),) * 4)
    if n_folds < 2:
        return Comparison(float(differences.mean()), *(float("nan"),) * 3)
    n_test = first.drop_duplicates(["fold", "participant_id"]).groupby("fold").size()[differences.index]
    ratio = float(np.mean(n_test / (n_participants - n_test)))
    mean = float(differences.mean())
    error = float(np.sqrt((1 / n_folds + ratio) * differences.var(ddof=1)))
    if error == 0:
        return Comparison(mean, mean, mean, 1.0 if mean == 0 else float("nan"))
    half = float(student.ppf(0.975, n_folds - 1)) * error
    p = 2 * float(student.sf(abs(mean) / error, n_folds - 1))
    return Comparison(mean, mean - half, mean + half, p)


def _accuracies(predictions: pd.DataFrame) -> pd.Series:
    hit = probabilities_of(predictions).argmax(1) == predictions["target"].to_numpy()
    return predictions.assign(hit=hit).groupby(["fold", "seed"])["hit"].mean().groupby("fold").mean()

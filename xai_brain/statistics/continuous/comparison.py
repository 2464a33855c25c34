"""Difference of the errors of two regressors for the same participants."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t as student

from xai_brain.statistics.classifier_comparison import Comparison

UNDEFINED = Comparison(*(float("nan"),) * 4)


def paired_error_test(first: pd.DataFrame, second: pd.DataFrame, column: str) -> Comparison:
    """Compare mean absolute errors, as means over folds, for the participants that both predict out of fold.

    The differences of the absolute errors of a participant are averaged over images and seeds within a fold.
    Folds are treated as independent and fitted regressors as fixed; contributions of the repeats of a
    participant are summed before squaring. With one fold it is the paired t-test.

    Parameters
    ----------
    first, second : pandas.DataFrame
        participant_id, fold, target and `column`, as in predictions.tsv.
    column : str

    Returns
    -------
    Comparison
        First minus second, negative where the first has smaller errors; NaN if a fold of `first` has fewer
        than two participants of both.
    """
    errors = [
        table.assign(error=(table[column] - table["target"]).abs())
        .groupby(["fold", "participant_id"])["error"]
        .mean()
        for table in (first, second)
    ]
    differences = (errors[0] - errors[1]).dropna()
    folds = [part.droplevel("fold") for _, part in differences.groupby(level="fold")]
    if len(folds) < first["fold"].nunique() or min(map(len, folds), default=0) < 2:
        return UNDEFINED
    mean = float(np.mean([part.mean() for part in folds]))
    n_folds, n = len(folds), differences.index.get_level_values("participant_id").nunique()
    parts = [(part - part.mean()) / np.sqrt(len(part) * (len(part) - 1)) for part in folds]
    contributions = pd.concat(parts).groupby(level=0).sum() / n_folds
    error = float(np.sqrt(np.square(contributions).sum()))
    if error < 1e-12 * max(abs(mean), 1e-300):  # all participants differ equally
        return Comparison(mean, mean, mean, 1.0 if mean == 0 else float("nan"))
    repeats = len(differences) / n
    dof = n - n_folds / repeats
    half = float(student.ppf(0.975, dof)) * error
    return Comparison(mean, mean - half, mean + half, 2 * float(student.sf(abs(mean) / error, dof)))

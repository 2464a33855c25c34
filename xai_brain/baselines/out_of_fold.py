"""Out-of-fold predictions of what is fitted to the training participants of each fold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from xai_brain.data.folds.tables import fold_numbers
from xai_brain.task.protocol import Task


def out_of_fold(
    participants: pd.DataFrame,
    folds: pd.DataFrame,
    task: Task,
    predict: Callable[[int, pd.DataFrame, pd.DataFrame], np.ndarray],
) -> pd.DataFrame:
    """Predictions of the test participants of every fold.

    Parameters
    ----------
    participants : pandas.DataFrame
        participant_id and target.
    folds : pandas.DataFrame
        participant_id, fold (and repeat): the folds of the network.
    task : Task
    predict : callable(fold, train, test) -> ndarray of shape (n_test, n_columns)
        Fits to the training participants and predicts the others.

    Returns
    -------
    pandas.DataFrame
        As predictions.tsv, with seed 0.
    """
    parts = []
    for fold in fold_numbers(folds):
        row = folds[folds["fold"] == fold]
        is_test = participants["participant_id"].isin(row["participant_id"])
        train, test = participants[~is_test], participants[is_test]
        part = task.prediction_table(test, predict(fold, train, test), fold=fold, seed=0)
        parts.append(part.assign(repeat=row["repeat"].iloc[0]) if "repeat" in row else part)
    return pd.concat(parts, ignore_index=True)

"""How baselines are fitted and read: classifiers of classes, regressors of a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xai_brain.baselines.classifiers import BaselineError, class_probabilities, fit_baseline
from xai_brain.baselines.out_of_fold import out_of_fold
from xai_brain.baselines.regressors import fit_regressor, predicted_numbers
from xai_brain.task.protocol import Task


@dataclass(frozen=True)
class BaselineKind:
    """Baselines of one kind of target.

    Parameters
    ----------
    simple : callable() -> estimator
        Of one feature, such as brain size.
    fit : callable(pipeline, choices, features, targets, groups, random_state) -> (model, chosen)
    predict : callable(model, features, n_outputs) -> ndarray (n_images, n_columns)
    fits : callable(estimator) -> bool
        Whether the last step of a pipeline is of this kind.
    needed : str
        That step, for messages.
    network_features : tuple of str
        What other networks can be trained on as baselines: slabs vote for classes.
    """

    simple: Callable[[], BaseEstimator]
    fit: Callable[..., tuple[Any, dict[str, Any]]]
    predict: Callable[[Any, np.ndarray, int], np.ndarray]
    fits: Callable[[Any], bool]
    needed: str
    network_features: tuple[str, ...] = ("volumes",)


KINDS = {  # by what the report of the task describes
    "classes": BaselineKind(
        *(LogisticRegression, fit_baseline, class_probabilities, is_classifier, "a classifier"),
        ("volumes", "slabs"),
    ),
    "number": BaselineKind(LinearRegression, fit_regressor, predicted_numbers, is_regressor, "a regressor"),
}


def brain_size_predictions(
    participants: pd.DataFrame, folds: pd.DataFrame, column: str, task: Task
) -> pd.DataFrame:
    """Out-of-fold predictions from brain size only, by logistic or linear regression.

    Parameters
    ----------
    participants : pandas.DataFrame
        participant_id, target and the column of brain size.
    folds : pandas.DataFrame
        participant_id, fold (and repeat): the folds of the network.
    column : str
    task : Task

    Returns
    -------
    pandas.DataFrame
        As predictions.tsv, with seed 0; participants without a brain size are excluded.

    Raises
    ------
    BaselineError
        No test participant has a brain size.
    """
    kind = KINDS[str(task.reported_as)]
    size = pd.to_numeric(participants[column], errors="coerce")
    table = participants.assign(brain_size=size)[size.notna().to_numpy()]

    def predict(fold: int, train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
        if test.empty:
            raise BaselineError(
                f"{column}: no number for any test participant of fold {fold + 1}, so that a mean over folds "
                "would be incomplete; add numbers, or leave out data.brain_size_column"
            )
        model = make_pipeline(StandardScaler(), kind.simple())
        model.fit(train[["brain_size"]].to_numpy(), train["target"])
        return kind.predict(model, test[["brain_size"]].to_numpy(), task.n_outputs)

    return out_of_fold(table, folds, task, predict)

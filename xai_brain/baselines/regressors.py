"""Baselines of a continuous target, fitted to the training participants of a fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

from xai_brain.baselines.classifiers import N_INNER_FOLDS, BaselineError, bounded_choices
from xai_brain.baselines.out_of_fold import out_of_fold
from xai_brain.task.protocol import Task


def mean_predictions(participants: pd.DataFrame, folds: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Out-of-fold predictions of the mean target of the training participants, as predictions.tsv.

    Parameters
    ----------
    participants : pandas.DataFrame
        participant_id and target.
    folds : pandas.DataFrame
        participant_id, fold (and repeat): the folds of the network.
    task : Task
    """
    return out_of_fold(
        participants,
        folds,
        task,
        lambda fold, train, test: np.full((len(test), 1), float(train["target"].mean())),
    )


def fit_regressor(
    pipeline: Pipeline,
    choices: Mapping[str, Sequence[Any]],
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    random_state: int = 0,
) -> tuple[Pipeline, dict[str, Any]]:
    """Select the settings of a regressor and fit it, using training participants only.

    Settings are selected by mean absolute error in inner folds.

    Parameters
    ----------
    pipeline, choices, features, targets, groups, random_state
        As for `xai_brain.baselines.classifiers.fit_baseline`; targets are numbers.

    Returns
    -------
    model : sklearn.pipeline.Pipeline
    chosen : dict

    Raises
    ------
    BaselineError
        There are fewer than two groups.
    """
    if (n_groups := len(np.unique(groups))) < 2:
        raise BaselineError("fewer than two training subjects to choose with")
    splitter = GroupKFold(min(N_INNER_FOLDS, n_groups), shuffle=True, random_state=random_state)
    inner = list(splitter.split(features, targets, groups))
    grid = bounded_choices(choices, min(len(train) for train, _ in inner))
    chosen: dict[str, Any] = {name: values[0] for name, values in grid.items()}
    if any(len(values) > 1 for values in grid.values()):
        scoring = "neg_mean_absolute_error"
        search = GridSearchCV(pipeline, grid, scoring=scoring, cv=inner, refit=False, error_score="raise")
        chosen = dict(search.fit(features, targets).best_params_)
    return pipeline.set_params(**chosen).fit(features, targets), chosen


def predicted_numbers(model: Any, features: np.ndarray, n_outputs: int = 1) -> np.ndarray:
    """Predictions of a regressor, (n_images, n_outputs)."""
    return np.asarray(model.predict(features), float).reshape(len(features), n_outputs)

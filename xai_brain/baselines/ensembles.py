"""Ensembles of several seeds, and selection among several kinds of networks within the folds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from xai_brain.statistics.classification import probabilities_of
from xai_brain.task.build import task_of_table
from xai_brain.task.protocol import Task


def mean_over_seeds(predictions: pd.DataFrame, task: Task | None = None) -> pd.DataFrame:
    """Predictions of the ensemble of all seeds: the mean of the logits, or of the numbers, for each image.

    Parameters
    ----------
    predictions : pandas.DataFrame
        As predictions.tsv.
    task : Task, optional
        With the names of the outputs; default: classification.

    Returns
    -------
    pandas.DataFrame
        The same columns; seed is 0.
    """
    task = task or task_of_table(None, predictions.columns)
    columns = task.columns
    images = [name for name in predictions if name not in (*columns, "seed", "predicted")]
    if not task.has_classes:
        means = predictions.groupby(images, sort=False, dropna=False)[columns].mean()
        return means.reset_index().assign(seed=0)[list(predictions)]
    probabilities_of(predictions)
    # the log probability is the logit up to a constant for all classes
    logits = predictions.assign(**np.log(predictions[columns].clip(lower=1e-12)))
    mean = np.exp(logits.groupby(images, sort=False, dropna=False)[columns].mean())
    table = mean.div(mean.sum(axis=1), axis=0).reset_index().assign(seed=0)
    return task.with_labels(table)[list(predictions)]


def log_loss(predictions: pd.DataFrame) -> float:
    """Mean negative logarithm of the probability of the true class."""
    true = probabilities_of(predictions)[np.arange(len(predictions)), predictions["target"]]
    return float(-np.log(np.clip(true, 1e-12, None)).mean())


def mean_absolute_error(predictions: pd.DataFrame, task: Task) -> float:
    """Mean absolute difference between the predicted numbers and the targets."""
    return float((predictions[task.columns[0]] - predictions["target"]).abs().mean())


def chosen_within_folds(
    predictions: Mapping[str, pd.DataFrame], validation: Mapping[str, pd.DataFrame], task: Task | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Select in each fold the kind of network with the lowest error on the validation parts.

    The error is the log loss of classes, or the mean absolute error of a number.

    Parameters
    ----------
    predictions : mapping of name to DataFrame
        Test parts, as predictions.tsv.
    validation : mapping of the same names to DataFrame
        Validation parts, as predictions.tsv.
    task : Task, optional
        With the names of the outputs; default: classification.

    Returns
    -------
    chosen : pandas.DataFrame
        Predictions of the selected networks, averaged over their seeds.
    choices : pandas.DataFrame
        fold, name, log_loss or mae (of all seeds' validation parts), n_validation, chosen.
    """
    known = task or task_of_table(None, next(iter(predictions.values())).columns)
    error = "log_loss" if known.has_classes else "mae"

    def error_of(part: pd.DataFrame) -> float:
        return log_loss(part) if known.has_classes else mean_absolute_error(part, known)

    rows = [
        {"fold": fold, "name": name, error: error_of(part), "n_validation": len(part)}
        for name, table in validation.items()
        for fold, part in table.groupby("fold")
    ]
    choices = pd.DataFrame(rows).sort_values(["fold", error], kind="stable", ignore_index=True)
    choices["chosen"] = ~choices["fold"].duplicated()
    parts = [
        mean_over_seeds(predictions[row.name][predictions[row.name]["fold"] == row.fold], known)
        for row in choices[choices["chosen"]].itertuples(index=False)
    ]
    return pd.concat(parts, ignore_index=True), choices

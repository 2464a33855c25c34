"""Performance of out-of-fold predictions of a number, with confidence intervals over participants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from xai_brain.statistics.bootstrap import figures_with_intervals
from xai_brain.statistics.classification import PredictionError

FIGURES = ("mae", "rmse", "r2", "pearson_r", "residual_r")

Predictions = tuple[np.ndarray, np.ndarray, np.ndarray]  # targets, predictions, folds


def regression_metrics(
    predictions: pd.DataFrame,
    column: str,
    prefix: str = "test",
    n_bootstrap: int = 1000,
    random_state: int = 0,
) -> dict[str, float]:
    """Metrics of predictions.tsv.

    ``mae``, ``rmse``, ``r2``, ``pearson_r`` and ``residual_r`` (Pearson's r of prediction minus target with
    the target) are means over folds and seeds; of each there is also the value of all participants of a seed
    together, ``<metric>_pooled``, averaged over seeds. The mean to which ``r2`` refers is that of the tested
    participants: of the fold, or of all. The bootstrap draws participants within folds, the same for all
    seeds. Repeats of the folds are treated as further seeds, with the strata of the first repeat.

    Parameters
    ----------
    predictions : pandas.DataFrame
        participant_id, seed, fold, target, `column`, and repeat when folds were repeated.
    column : str
        Column of the predicted numbers.
    prefix : str, default "test"
    n_bootstrap, random_state : int

    Returns
    -------
    dict
        ``<prefix>/<metric>``, ``<prefix>/<metric>_ci_low`` and ``..._ci_high``; NaN where a metric is not
        defined, e.g. a correlation of fewer than two different targets in a fold.

    Raises
    ------
    PredictionError
        A prediction is NaN or infinite.
    """
    return figures_with_intervals(
        predictions,
        partial(_arrays, column=column),
        ("fold",),
        figures_of_draws,
        prefix,
        n_bootstrap,
        random_state,
    )


def figures_of_draws(seeds: Sequence[Predictions], counts: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of predictions in draws of their rows, as means over seeds.

    Parameters
    ----------
    seeds : sequence of (targets, predictions, folds)
        Arrays of shape (n,), with the same rows in the same order for all seeds.
    counts : int ndarray of shape (n_draws, n)
        How often each row counts.

    Returns
    -------
    dict of ndarray of shape (n_draws,)
        The metrics of `FIGURES` as means over folds and seeds, and ``<metric>_pooled``.
    """
    pooled = [errors_of_draws(targets, values, counts) for targets, values, _ in seeds]
    by_fold = [
        errors_of_draws(targets[folds == fold], values[folds == fold], counts[:, folds == fold])
        for targets, values, folds in seeds
        for fold in np.unique(folds)
    ]
    result = {name: np.mean([one[name] for one in by_fold], axis=0) for name in FIGURES}
    return result | {f"{name}_pooled": np.mean([one[name] for one in pooled], axis=0) for name in FIGURES}


def errors_of_draws(targets: np.ndarray, values: np.ndarray, counts: np.ndarray) -> Mapping[str, np.ndarray]:
    """Mean absolute error, root of the mean squared error, R² and correlations in each draw.

    Parameters
    ----------
    targets, values : ndarray of shape (n,)
    counts : ndarray of shape (n_draws, n)
        How often each row counts.

    Returns
    -------
    dict of ndarray of shape (n_draws,)
        R² and r are NaN in draws whose targets are all equal, r also where all predictions are, and the
        correlation of the residuals where these are all equal.
    """
    n = counts.sum(1)
    # centred at the mean of all rows, so that the sums of squares keep their digits
    y, p = targets - targets.mean(), values - values.mean()
    squared = counts @ (targets - values) ** 2
    mean_y, mean_p = counts @ y / n, counts @ p / n
    spread_y = np.maximum(counts @ y**2 - n * mean_y**2, 0)
    spread_p = np.maximum(counts @ p**2 - n * mean_p**2, 0)
    shared = counts @ (y * p) - n * mean_y * mean_p
    spread_r = spread_p - 2 * shared + spread_y  # of the residuals
    floor_y, floor_p = (1e-12 * np.square(part).sum() for part in (y, p))
    varies = spread_y > floor_y
    both = varies & (spread_p > floor_p)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "mae": counts @ np.abs(targets - values) / n,
            "rmse": np.sqrt(squared / n),
            "r2": np.where(varies, 1 - squared / spread_y, np.nan),
            "pearson_r": np.where(both, shared / np.sqrt(spread_y * spread_p), np.nan),
            "residual_r": np.where(
                varies & (spread_r > floor_y), (shared - spread_y) / np.sqrt(spread_y * spread_r), np.nan
            ),
        }


def _arrays(table: pd.DataFrame, column: str) -> Predictions:
    values = table[column].to_numpy(float)
    if n_broken := int((~np.isfinite(values)).sum()):
        raise PredictionError(
            f"{n_broken} of {len(values)} predictions of {column} are NaN or infinite; train the networks "
            "again"
        )
    return table["target"].to_numpy(float), values, table["fold"].to_numpy()

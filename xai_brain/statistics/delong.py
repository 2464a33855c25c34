"""Difference of two AUROCs of the same participants, with standard error and p-value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from xai_brain.statistics.classification import probabilities_of, share_below


@dataclass(frozen=True)
class Comparison:
    """First minus second, with 95 % interval and two-sided p; NaN if undefined."""

    difference: float
    ci_low: float
    ci_high: float
    p: float


def auroc_influence(predictions: pd.DataFrame) -> tuple[float, pd.Series]:
    """AUROC as the mean over folds, seeds and repeats, and the contribution of each participant.

    With one fold, the sum of the squared contributions is DeLong's variance of the AUROC. Folds are treated
    as independent; contributions of images, seeds and repeats of a participant are summed before squaring.

    Parameters
    ----------
    predictions : pandas.DataFrame
        participant_id, seed, fold, target and prob_<class>, as in predictions.tsv.

    Returns
    -------
    auroc : float
        NaN if a class is absent in a fold.
    contributions : pandas.Series
        By participant_id; for several classes the mean of one against the rest. Empty if a class is absent
        in a fold.

    References
    ----------
    DeLong, DeLong & Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
    characteristic curves: a nonparametric approach", Biometrics 44:837-845, 1988.
    """
    columns = [column for column in predictions if str(column).startswith("prob_")]
    classes = [1] if len(columns) == 2 else list(range(len(columns)))
    probabilities_of(predictions)
    areas, parts = [], []
    for _, part in predictions.groupby(["seed", "fold"], sort=False):
        targets = part["target"].to_numpy()
        found = [_contributions(targets == k, part[columns[k]].to_numpy(float)) for k in classes]
        known = [pair for pair in found if pair is not None]
        if len(known) < len(classes):
            return float("nan"), pd.Series(dtype=float)
        areas.append(np.mean([area for area, _ in known]))
        parts.append(pd.Series(np.mean([values for _, values in known], axis=0), part["participant_id"]))
    contributions = pd.concat(parts).groupby(level=0).sum() / len(areas)
    return float(np.mean(areas)), contributions


def delong_test(first: pd.DataFrame, second: pd.DataFrame) -> Comparison:
    """Compare the AUROCs of two classifiers for the participants that both predict out of fold.

    The fitted classifiers are fixed; the variation due to the training participants is not included.

    Parameters
    ----------
    first, second : pandas.DataFrame
        As for `auroc_influence`.
    """
    shared = set(first["participant_id"]) & set(second["participant_id"])
    (area_1, c_1), (area_2, c_2) = (
        auroc_influence(table[table["participant_id"].isin(shared)]) for table in (first, second)
    )
    difference = area_1 - area_2
    error = float(np.sqrt((c_1.sub(c_2, fill_value=0) ** 2).sum()))
    if not np.isfinite(difference):
        return Comparison(*(float("nan"),) * 4)
    if error == 0:
        return Comparison(difference, difference, difference, 1.0 if difference == 0 else float("nan"))
    half = norm.ppf(0.975) * error
    p = 2 * norm.sf(abs(difference) / error)
    return Comparison(difference, difference - half, difference + half, float(p))


def _contributions(positive: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray] | None:
    """AUROC of one fold and the contribution of each row; None if a class is absent."""
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        return None
    once = np.ones((1, len(scores)))
    # share of the other class that a participant is on the right side of, ties by half
    placement = np.where(
        positive, share_below(scores, ~positive, once)[0], 1 - share_below(scores, positive, once)[0]
    )
    area = float(placement[positive].mean())
    size = np.where(positive, m, n)
    # (V - A)^2 / (m (m - 1)), as variances of samples are; one subject alone does not vary
    return area, (placement - area) / np.sqrt(size * np.maximum(size - 1, 1))

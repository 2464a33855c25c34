"""Differences of two classifiers on the same participants: DeLong for AUROCs, corrected t for accuracies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

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
    if error < 1e-12:
        return _without_variance(difference)
    half = norm.ppf(0.975) * error
    p = 2 * norm.sf(abs(difference) / error)
    return Comparison(difference, difference - half, difference + half, float(p))


def _without_variance(difference: float) -> Comparison:
    """Equal classifiers differ by 0; any other difference that does not vary has no known interval."""
    if difference == 0:
        return Comparison(0.0, 0.0, 0.0, 1.0)
    return Comparison(difference, *(float("nan"),) * 3)


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
    if error < 1e-12:
        return _without_variance(mean)
    half = float(student.ppf(0.975, n_folds - 1)) * error
    p = 2 * float(student.sf(abs(mean) / error, n_folds - 1))
    return Comparison(mean, mean - half, mean + half, p)


def _accuracies(predictions: pd.DataFrame) -> pd.Series:
    hit = probabilities_of(predictions).argmax(1) == predictions["target"].to_numpy()
    return predictions.assign(hit=hit).groupby(["fold", "seed"])["hit"].mean().groupby("fold").mean()

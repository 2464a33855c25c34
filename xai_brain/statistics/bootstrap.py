"""Confidence intervals over subjects."""

from __future__ import annotations

import numpy as np


def bootstrap_mean(
    values: np.ndarray, n_bootstrap: int = 1000, random_state: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean and percentile bootstrap interval over subjects.

    Parameters
    ----------
    values : ndarray of shape (n_subjects,)
        NaN are left out.
    n_bootstrap : int, default 1000
    random_state : int, default 0
    level : float, default 0.95

    Returns
    -------
    mean, low, high : float
        NaN where there is no value.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return (np.nan,) * 3
    draws = np.random.default_rng(random_state).integers(0, len(values), (n_bootstrap, len(values)))
    low, high = np.quantile(values[draws].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


def over_subjects(
    values: np.ndarray, chance: float | np.ndarray = np.nan, n_bootstrap: int = 1000, random_state: int = 0
) -> dict[str, float]:
    """One figure of a report: mean over subjects, its interval, its chance level and how many there are.

    Parameters
    ----------
    values : ndarray of shape (n_subjects,)
        NaN, for subjects without a figure, are left out and not counted.
    chance : float or ndarray of shape (n_subjects,), default NaN
        The chance of each subject is averaged over those with a value.
    n_bootstrap : int, default 1000
    random_state : int, default 0

    Returns
    -------
    dict
        ``value``, ``ci_low``, ``ci_high``, ``chance``, ``n_subjects``.
    """
    values = np.asarray(values, float)
    known = np.isfinite(values)
    mean, low, high = bootstrap_mean(values, n_bootstrap, random_state)
    levels = np.broadcast_to(np.asarray(chance, float), values.shape)[known]
    return {
        "value": mean,
        "ci_low": low,
        "ci_high": high,
        "chance": float(levels.mean()) if len(levels) else np.nan,
        "n_subjects": int(known.sum()),
    }

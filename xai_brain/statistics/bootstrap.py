"""Bootstrap over participants: draws with replacement and percentile intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

BLOCK = 64  # draws in memory at once

Arrays = TypeVar("Arrays")  # what the figures are computed from, with one row per image


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Lower and upper bound of a statistic from its bootstrap draws.

    Parameters
    ----------
    draws : ndarray of shape (n_bootstrap, ...)
    level : float, default 0.95

    Returns
    -------
    ndarray of shape (2, ...)
    """
    return np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)


def draw_counts(strata: Sequence[np.ndarray], n_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """How often each participant is drawn, with replacement within strata.

    Parameters
    ----------
    strata : sequence of int ndarray
        Positions of the participants of each stratum, 0 to n_subjects - 1.
    n_bootstrap : int
    rng : numpy.random.Generator
        The draws use its stream sequentially, so that they can be computed in parts.

    Returns
    -------
    int ndarray of shape (n_bootstrap, n_subjects)
    """
    counts = np.zeros((n_bootstrap, sum(map(len, strata))), np.int64)
    for row in counts:
        for stratum in strata:
            n = len(stratum)
            row[stratum] = np.bincount(rng.integers(0, n, n), minlength=n)
    return counts


def multinomial_counts(n_subjects: int, n_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """How often each participant is drawn without strata; faster than `draw_counts`, with a different stream.

    Parameters
    ----------
    n_subjects, n_bootstrap : int
    rng : numpy.random.Generator

    Returns
    -------
    int ndarray of shape (n_bootstrap, n_subjects)
    """
    return rng.multinomial(n_subjects, np.full(n_subjects, 1 / n_subjects), n_bootstrap)


def bootstrap_mean(
    values: np.ndarray, n_bootstrap: int = 1000, random_state: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean and percentile bootstrap interval over participants.

    Parameters
    ----------
    values : ndarray of shape (n_subjects,)
        NaN are excluded.
    n_bootstrap : int, default 1000
    random_state : int, default 0
    level : float, default 0.95

    Returns
    -------
    mean, low, high : float
        NaN if there is no value.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return (np.nan,) * 3
    counts = draw_counts([np.arange(len(values))], n_bootstrap, np.random.default_rng(random_state))
    low, high = percentile_interval(counts @ values / len(values), level)
    return float(values.mean()), float(low), float(high)


def over_subjects(
    values: np.ndarray, chance: float | np.ndarray = np.nan, n_bootstrap: int = 1000, random_state: int = 0
) -> dict[str, float]:
    """Mean over participants with its interval, chance level and number of participants.

    Parameters
    ----------
    values : ndarray of shape (n_subjects,)
        NaN, for participants without a value, are excluded and not counted.
    chance : float or ndarray of shape (n_subjects,), default NaN
        The chance level is averaged over participants with a value.
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


def figures_with_intervals(
    predictions: pd.DataFrame,
    arrays_of: Callable[[pd.DataFrame], Arrays],
    strata: Sequence[str],
    figures_of_draws: Callable[[Sequence[Arrays], np.ndarray], Mapping[str, np.ndarray]],
    prefix: str,
    n_bootstrap: int,
    random_state: int,
) -> dict[str, float]:
    """Figures of out-of-fold predictions with 95 % bootstrap intervals over participants.

    Participants are drawn within strata, the same for all seeds, and with all of their images. Repeats of the
    folds are treated as further seeds, with the strata of the first repeat.

    Parameters
    ----------
    predictions : pandas.DataFrame
        participant_id, seed, fold, target, and repeat when folds were repeated, as in predictions.tsv.
    arrays_of : callable(predictions of a seed) -> arrays with one row per image
    strata : sequence of str
        Columns whose combinations are the strata.
    figures_of_draws : callable(arrays of each seed, counts (n_draws, n_images)) -> dict of ndarray (n_draws,)
    prefix : str
    n_bootstrap, random_state : int

    Returns
    -------
    dict
        ``<prefix>/<figure>``, ``<prefix>/<figure>_ci_low`` and ``..._ci_high``.
    """
    session = "session_id" if "session_id" in predictions else "participant_id"
    order = list(dict.fromkeys(["participant_id", session, "seed"]))
    table = predictions.sort_values(order, kind="stable")
    trained = ["seed", "repeat"] if "repeat" in table else ["seed"]
    per_seed = [part.reset_index(drop=True) for _, part in table.groupby(trained, sort=False)]
    arrays = [arrays_of(part) for part in per_seed]
    first = per_seed[0]
    participant = pd.factorize(first["participant_id"])[0]
    kinds = first[list(strata)].groupby(participant, sort=True).first()
    members = list(kinds.groupby(list(strata)).indices.values())
    rng = np.random.default_rng(random_state)
    found = [figures_of_draws(arrays, np.ones((1, len(first)), np.int64))]
    for start in range(0, n_bootstrap, BLOCK):
        counts = draw_counts(members, min(BLOCK, n_bootstrap - start), rng)[:, participant]
        found.append(figures_of_draws(arrays, counts))
    result: dict[str, float] = {}
    for name in found[0]:
        values = np.concatenate([part[name] for part in found])
        low, high = percentile_interval(values[1:])
        result |= {
            f"{prefix}/{name}": float(values[0]),
            f"{prefix}/{name}_ci_low": float(low),
            f"{prefix}/{name}_ci_high": float(high),
        }
    return result

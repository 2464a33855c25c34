"""How well a property of the participants can be read from features of networks by a linear model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from xai_brain.statistics.bootstrap import percentile_interval

N_INNER_FOLDS = 5
PENALTY = 1.0  # of the ridge regression on standardised features, per feature
MIN_PARTICIPANTS = 10  # of a network with the property
MIN_OF_CLASS = 3


@dataclass(frozen=True)
class LastFeatures:
    """Features of the test participants of one network, with a property of theirs.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
    values : ndarray of shape (n,)
        Numbers, or categories as integers; no missing values.
    groups : ndarray of shape (n,)
        Class of each participant; all equal where the target is a number.
    fold : int
        Networks of a fold have the same participants in the same order, and the same permutations.
    """

    features: np.ndarray
    values: np.ndarray
    groups: np.ndarray
    fold: int


def is_testable(part: LastFeatures, categories: bool) -> bool:
    """Whether there are enough participants: 10, of categories at least two with 3 participants or more."""
    counts = np.unique(part.values, return_counts=True)[1]
    varied = len(counts) > 1 and (not categories or (counts >= MIN_OF_CLASS).sum() > 1)
    return bool(len(part.values) >= MIN_PARTICIPANTS and varied)


def confound_score(
    parts: Sequence[LastFeatures], categories: bool, n_perm: int = 1000, random_state: int = 0
) -> dict[str, float]:
    """R² of a number or AUROC of categories, as the mean over networks, with permutation intervals.

    A ridge regression predicts the property within five folds of the test participants of each network. Its
    prediction is linear in the property, so that permutations are matrix products. The AUROC of several
    categories is the mean of one against the rest.

    Parameters
    ----------
    parts : sequence of LastFeatures
        Each `is_testable`.
    categories : bool
    n_perm, random_state : int

    Returns
    -------
    dict
        value; null_low, null_high and p, of permutations of the property over participants; class_low,
        class_high and class_p, of permutations within classes, which keep the relation of property and class.
    """
    function = _areas if categories else _explained
    draws: dict[str, list[np.ndarray]] = {"null": [], "class": []}
    for part in parts:
        rng = np.random.default_rng([random_state, part.fold])
        operator, mean = _cross_validated_ridge(part.features, rng)
        for name, groups in (("null", np.zeros(len(part.values), int)), ("class", part.groups)):
            order = np.stack([np.arange(len(part.values)), *(_permuted(groups, rng) for _ in range(n_perm))])
            draws[name].append(function(part.values[order], operator, mean))
    result = {"value": float(np.mean(draws["null"], axis=0)[0])}
    for name, each in draws.items():
        scores = np.mean(each, axis=0)
        low, high = percentile_interval(scores[1:])
        p = (1 + (scores[1:] >= scores[0]).sum()) / (n_perm + 1)
        ends = {f"{name}_low": float(low), f"{name}_high": float(high)}
        result |= ends | {"p" if name == "null" else f"{name}_p": float(p)}
    return result


def _permuted(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Order of participants in which each takes the place of one of the same group."""
    order = np.arange(len(groups))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        order[members] = rng.permutation(members)
    return order


def _cross_validated_ridge(features: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Matrices that give predictions out of fold: of the deviation from the mean, and of the mean, (n, n)."""
    n = len(features)
    inner = rng.permutation(n) % N_INNER_FOLDS
    deviation, mean = np.zeros((2, n, n))
    for k in range(N_INNER_FOLDS):
        train, test = np.flatnonzero(inner != k), np.flatnonzero(inner == k)
        spread = features[train].std(0)
        used = spread > 1e-12
        scaled = (features[:, used] - features[train][:, used].mean(0)) / spread[used]
        kernel = scaled @ scaled[train].T / max(used.sum(), 1)  # (n, n_train)
        weights = np.linalg.solve(kernel[train] + PENALTY * np.eye(len(train)), kernel[test].T).T
        centering = np.eye(len(train)) - 1 / len(train)
        deviation[np.ix_(test, train)] = weights @ centering
        mean[np.ix_(test, train)] = 1 / len(train)
    return deviation, mean


def _explained(values: np.ndarray, operator: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """R² of each row of values (n_draws, n)."""
    errors = values - values @ (operator + mean).T
    return 1 - (errors**2).sum(1) / ((values - values.mean(1, keepdims=True)) ** 2).sum(1)


def _areas(values: np.ndarray, operator: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """AUROC of each row of categories (n_draws, n), without the mean, which differs between inner folds."""
    names, counts = np.unique(values[0], return_counts=True)
    frequent = names[counts >= MIN_OF_CLASS]
    areas = []
    for name in frequent if len(names) > 2 else frequent[:1]:
        positive = values == name
        ranks = rankdata(positive @ operator.T, axis=1)
        n = positive.sum(1)
        areas.append(((ranks * positive).sum(1) - n * (n + 1) / 2) / (n * (values.shape[1] - n)))
    return np.mean(areas, axis=0)

"""Localisation of a planted effect with a known location."""

from __future__ import annotations

import numpy as np


def ranked(values: np.ndarray, random_state: int = 0) -> np.ndarray:
    """Indices in the order of decreasing values, with ties in random order.

    Masks have thousands of equal values, whose array order would favour one corner of the brain.
    """
    shuffled = np.argsort(np.random.default_rng(random_state).permutation(len(values)))
    return shuffled[np.argsort(-values[shuffled], kind="stable")]


def localization(
    attribution: np.ndarray,
    truth: np.ndarray,
    brain_mask: np.ndarray,
    random_state: int = 0,
    order: np.ndarray | None = None,
) -> dict[str, float]:
    """Compare a map with the true location.

    Parameters
    ----------
    attribution : ndarray of shape (X, Y, Z)
        Raw, signed values, which are compared by absolute value.
    truth : bool ndarray of shape (X, Y, Z)
    brain_mask : bool ndarray of shape (X, Y, Z)
    random_state : int, default 0
        Order of equal values.
    order : ndarray of shape (n_brain,), optional
        Result of `ranked`, if already computed.

    Returns
    -------
    dict
        ``rma`` (relevance mass accuracy), ``rra`` (relevance rank accuracy), ``pointing`` (highest voxel
        is true) and ``chance``, the share of true voxels in the brain: the expectation of all three for
        a random map. All 0 for an empty map.

    References
    ----------
    Arras et al., "CLEVR-XAI", Information Fusion 2022; Zhang et al., "Top-down neural attention by
    excitation backprop", IJCV 2018 (pointing game).
    """
    values = np.abs(attribution[brain_mask]).astype(np.float64)
    true = truth[brain_mask]
    n_true = int(true.sum())
    chance = n_true / len(values)
    total = values.sum()
    if total == 0 or n_true == 0:
        return {"rma": 0.0, "rra": 0.0, "pointing": 0.0, "chance": chance}
    order = ranked(values, random_state) if order is None else order
    return {
        "rma": float(values[true].sum() / total),
        "rra": float(true[order[:n_true]].mean()),
        "pointing": float(true[order[0]]),
        "chance": chance,
    }


def average_precision(true_in_order: np.ndarray) -> float:
    """Area under the precision-recall curve, computed as the mean precision at the true voxels.

    Parameters
    ----------
    true_in_order : bool ndarray of shape (n,)
        Whether each voxel is true, in the order of decreasing values.
    """
    places = np.flatnonzero(true_in_order) + 1
    return float((np.arange(1, len(places) + 1) / places).mean())


def average_precision_of_chance(n_true: int, n: int) -> float:
    """Expectation of `average_precision` for a random order; slightly above the share of true voxels.

    A true voxel is at each place k with probability 1 / n, and each of the k - 1 before it is true
    with probability (n_true - 1) / (n - 1).
    """
    if n == 1:
        return 1.0
    others = (n_true - 1) / (n - 1)
    return float(others + (1 - others) * (1 / np.arange(1, n + 1)).sum() / n)

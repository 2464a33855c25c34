"""Performance of out-of-fold probabilities, with confidence intervals over subjects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata


class PredictionError(ValueError):
    """Predictions that no figure can be computed from."""


def probabilities_of(predictions: pd.DataFrame) -> np.ndarray:
    """Columns ``prob_<class>`` of a table of predictions, (n, n_classes).

    Raises
    ------
    PredictionError
        A probability is missing, NaN or infinite: a figure of the others would be one of fewer participants
        and folds than it seems.
    """
    columns = [column for column in predictions if str(column).startswith("prob_")]
    values = predictions[columns].to_numpy(float)
    broken = ~np.isfinite(values).all(1)
    if broken.any():
        first = predictions[broken].iloc[0]
        about = ", ".join(
            f"{name} {first[name]}" for name in ("participant_id", "seed", "fold") if name in first
        )
        raise PredictionError(
            f"{broken.sum()} of {len(values)} predictions are NaN or infinite (the first: {about}); train "
            "the networks again"
        )
    return values


def auroc(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve; for several classes the mean of one against the rest.

    Parameters
    ----------
    targets : int ndarray of shape (n,)
    probabilities : ndarray of shape (n, n_classes)

    Returns
    -------
    float
        NaN when a class is absent.
    """
    n_classes = probabilities.shape[1]
    classes = [1] if n_classes == 2 else range(n_classes)
    areas = []
    for k in classes:
        positive = targets == k
        n_positive, n_negative = positive.sum(), (~positive).sum()
        if not n_positive or not n_negative:
            return float("nan")
        rank_sum = rankdata(probabilities[:, k])[positive].sum()
        areas.append((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
    return float(np.mean(areas))


def defined_figures(figures: dict[str, float]) -> dict[str, float]:
    """Figures for metrics.json, without those that are not defined."""
    return {name: float(value) for name, value in figures.items() if np.isfinite(value)}


def balanced_accuracy(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the classes present of the share of their subjects that is recognised."""
    hit = probabilities.argmax(1) == targets
    return float(np.mean([hit[targets == k].mean() for k in np.unique(targets)]))


def accuracy(targets: np.ndarray, probabilities: np.ndarray) -> float:
    return float((probabilities.argmax(1) == targets).mean())


def brier_score(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared error of the probabilities: of the second of two classes, else summed over all.

    Guessing the share of each class gives 0.25 for two equal ones; less is better.

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78:1-3, 1950.
    """
    happened = targets[:, None] == np.arange(probabilities.shape[1])
    total = ((probabilities - happened) ** 2).sum(1).mean()
    return float(total / 2 if probabilities.shape[1] == 2 else total)


def classification_metrics(
    predictions: pd.DataFrame, prefix: str = "test", n_bootstrap: int = 1000, random_state: int = 0
) -> dict[str, float]:
    """Figures of predictions.tsv.

    Accuracies and the Brier score pool all subjects of a seed and are averaged over seeds. ``auroc`` is
    the mean over folds and seeds, since scores of different networks need not share a scale (NaN when a
    fold tests one class only: a mean over the other folds would be one of another cohort);
    ``auroc_pooled`` ranks all subjects of a seed together. The bootstrap draws subjects within class and
    fold, the same subjects for all seeds. Repeats of the folds count as further seeds; strata are those
    of the first.

    Parameters
    ----------
    predictions : pandas.DataFrame
        participant_id, seed, fold, target, prob_<class>... and repeat when folds were repeated
    prefix : str, default "test"
    n_bootstrap, random_state : int

    Returns
    -------
    dict
        ``<prefix>/<metric>``, ``<prefix>/<metric>_ci_low`` and ``..._ci_high``.

    Raises
    ------
    PredictionError
        A probability is NaN or infinite.
    """
    session = "session_id" if "session_id" in predictions else "participant_id"
    order = ["participant_id", session, "seed"]
    table = predictions.sort_values(list(dict.fromkeys(order)), kind="stable")
    trained = ["seed", "repeat"] if "repeat" in table else ["seed"]
    per_seed = [part.reset_index(drop=True) for _, part in table.groupby(trained, sort=False)]
    arrays = [(t["target"].to_numpy(), probabilities_of(t), t["fold"].to_numpy()) for t in per_seed]

    def figures(rows: np.ndarray) -> dict[str, float]:
        found: dict[str, list[float]] = {
            "accuracy": [],
            "balanced_accuracy": [],
            "auroc": [],
            "auroc_pooled": [],
            "brier": [],
        }
        for targets, probabilities, folds in arrays:
            t, p, f = targets[rows], probabilities[rows], folds[rows]
            found["accuracy"].append(accuracy(t, p))
            found["balanced_accuracy"].append(balanced_accuracy(t, p))
            found["auroc_pooled"].append(auroc(t, p))
            found["brier"].append(brier_score(t, p))
            found["auroc"] += [auroc(t[f == k], p[f == k]) for k in np.unique(f)]
        return {name: float(np.mean(values)) for name, values in found.items()}

    targets = arrays[0][0]
    # a participant with several images is drawn with all of them
    rows_of_participant = [
        group.index.to_numpy() for _, group in per_seed[0].groupby("participant_id", sort=False)
    ]
    kinds = (
        per_seed[0].loc[[rows[0] for rows in rows_of_participant], ["target", "fold"]].reset_index(drop=True)
    )
    strata = [group.index.to_numpy() for _, group in kinds.groupby(["target", "fold"])]
    rng = np.random.default_rng(random_state)
    draws = [
        figures(
            np.concatenate(
                [rows_of_participant[i] for stratum in strata for i in rng.choice(stratum, len(stratum))]
            )
        )
        for _ in range(n_bootstrap)
    ]
    result: dict[str, Any] = {}
    for name, value in figures(np.arange(len(targets))).items():
        low, high = np.quantile([draw[name] for draw in draws], [0.025, 0.975])
        result |= {
            f"{prefix}/{name}": value,
            f"{prefix}/{name}_ci_low": float(low),
            f"{prefix}/{name}_ci_high": float(high),
        }
    return result

"""Performance of out-of-fold probabilities, with confidence intervals over participants."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from xai_brain.statistics.bootstrap import figures_with_intervals

Predictions = tuple[np.ndarray, np.ndarray, np.ndarray]  # targets, probabilities, folds


class PredictionError(ValueError):
    """No metric can be computed from the predictions."""


def probabilities_of(predictions: pd.DataFrame) -> np.ndarray:
    """Columns ``prob_<class>`` of a table of predictions, (n, n_classes).

    Raises
    ------
    PredictionError
        A probability is missing, NaN or infinite. Metrics of the other rows would silently refer to fewer
        participants or folds.
    """
    values = predictions[[f"prob_{name}" for name in class_names_of(predictions)]].to_numpy(float)
    broken = ~np.isfinite(values).all(1)
    if broken.any():
        first = predictions[broken].iloc[0]
        about = ", ".join(
            f"{name} {first[name] + 1 if name == 'fold' else first[name]}"
            for name in ("participant_id", "seed", "fold")
            if name in first
        )
        raise PredictionError(
            f"{broken.sum()} of {len(values)} predictions are NaN or infinite (the first: {about}); train "
            "the networks again"
        )
    return values


def share_below(scores: np.ndarray, others: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Share of other rows with a lower score than each row; ties count half.

    Parameters
    ----------
    scores : ndarray of shape (n,)
    others : bool ndarray of shape (n,)
        Rows with which each row is compared.
    counts : ndarray of shape (n_draws, n)
        How often each row counts.

    Returns
    -------
    ndarray of shape (n_draws, n)
        NaN in draws without other rows.
    """
    order = np.argsort(scores, kind="stable")
    in_order = scores[order]
    totals = np.zeros((len(counts), len(scores) + 1))
    np.cumsum((counts * others)[:, order], axis=1, out=totals[:, 1:])
    below = totals[:, np.searchsorted(in_order, scores, "left")]
    up_to = totals[:, np.searchsorted(in_order, scores, "right")]
    return _fraction((below + up_to) / 2, totals[:, -1:])


def auroc_of_draws(targets: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean of `areas_of_draws` over the classes, (n_draws,)."""
    return areas_of_draws(targets, probabilities, counts).mean(0)


def areas_of_draws(targets: np.ndarray, probabilities: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class against the rest, in each draw; of two classes one area.

    Parameters
    ----------
    targets : int ndarray of shape (n,)
    probabilities : ndarray of shape (n, n_classes)
    counts : ndarray of shape (n_draws, n)
        How often each row counts.

    Returns
    -------
    ndarray of shape (n_classes, n_draws), or (1, n_draws) of the second of two classes
        NaN if the class, or all others, are absent.
    """
    n_classes = probabilities.shape[1]
    areas = []
    for k in [1] if n_classes == 2 else range(n_classes):
        positive = targets == k
        weights = counts * positive
        below = share_below(probabilities[:, k], ~positive, counts)
        areas.append(_fraction((below * weights).sum(1), weights.sum(1)))
    return np.array(areas)


def auroc(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve; for several classes the mean of one against the rest.

    Parameters
    ----------
    targets : int ndarray of shape (n,)
    probabilities : ndarray of shape (n, n_classes)

    Returns
    -------
    float
        NaN if a class is absent.
    """
    return float(auroc_of_draws(targets, probabilities, np.ones((1, len(targets))))[0])


def defined_figures(figures: dict[str, float]) -> dict[str, float]:
    """Metrics for metrics.json, without undefined ones."""
    return {name: float(value) for name, value in figures.items() if np.isfinite(value)}


def balanced_accuracy(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over the present classes of the share of correctly classified participants."""
    hit = probabilities.argmax(1) == targets
    return float(np.mean([hit[targets == k].mean() for k in np.unique(targets)]))


def accuracy(targets: np.ndarray, probabilities: np.ndarray) -> float:
    return float((probabilities.argmax(1) == targets).mean())


def brier_score(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared error of the probabilities: of the second of two classes, otherwise summed over all.

    Lower is better; the constant prediction of the class shares gives 0.25 for two equally frequent classes.

    References
    ----------
    Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78:1-3, 1950.
    """
    return float(squared_errors(targets, probabilities).mean())


def squared_errors(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Contribution of each row to the Brier score, (n,)."""
    happened = targets[:, None] == np.arange(probabilities.shape[1])
    total = ((probabilities - happened) ** 2).sum(1)
    return total / 2 if probabilities.shape[1] == 2 else total


def classification_metrics(
    predictions: pd.DataFrame, prefix: str = "test", n_bootstrap: int = 1000, random_state: int = 0
) -> dict[str, float]:
    """Metrics of predictions.tsv.

    With three classes or more, ``auroc/<class>`` and ``auroc_pooled/<class>`` are those of one class against
    the rest, whose means over classes are ``auroc`` and ``auroc_pooled``; ``sensitivity/<class>`` is the
    share of a class that is classified correctly, whose mean is ``balanced_accuracy``.

    Accuracies and the Brier score are computed for all participants of a seed and averaged over seeds.
    ``auroc`` is the mean over folds and seeds, because scores of different networks need not have the same
    scale; it is NaN if a fold tests only one class. ``auroc_pooled`` ranks all participants of a seed
    together. The bootstrap draws participants within class and fold, the same for all seeds. Repeats of the
    folds are treated as further seeds, with the strata of the first repeat.

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
    names = class_names_of(predictions)
    figures = partial(figures_of_draws, class_names=names if len(names) > 2 else ())
    return figures_with_intervals(
        predictions, _arrays, ("target", "fold"), figures, prefix, n_bootstrap, random_state
    )


def class_names_of(predictions: pd.DataFrame) -> list[str]:
    """Classes of the columns ``prob_<class>``, in their order."""
    return [str(column).removeprefix("prob_") for column in predictions if str(column).startswith("prob_")]


def _arrays(table: pd.DataFrame) -> Predictions:
    return table["target"].to_numpy(), probabilities_of(table), table["fold"].to_numpy()


def figures_of_draws(
    seeds: Sequence[Predictions], counts: np.ndarray, class_names: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Metrics of predictions in draws of their rows, as means over seeds.

    Parameters
    ----------
    seeds : sequence of (targets, probabilities, folds)
        Arrays of shape (n,), (n, n_classes) and (n,), with the same rows in the same order for all seeds.
    counts : int ndarray of shape (n_draws, n)
        How often each row counts.
    class_names : sequence of str, default ()
        Classes whose own figures are returned too.

    Returns
    -------
    dict of ndarray of shape (n_draws,)
        accuracy, balanced_accuracy, auroc (mean over folds and seeds), auroc_pooled, brier; and
        ``auroc/<class>``, ``auroc_pooled/<class>`` and ``sensitivity/<class>``.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("accuracy", "balanced_accuracy", "brier")}
    pooled, areas, tested = [], [], []
    for targets, probabilities, folds in seeds:
        hit, n = probabilities.argmax(1) == targets, counts.sum(1)
        of_class = [targets == k for k in np.unique(targets)]
        recalls = [_fraction(counts[:, rows] @ hit[rows], counts[:, rows].sum(1)) for rows in of_class]
        found["accuracy"].append(counts @ hit / n)
        found["balanced_accuracy"].append(np.nanmean(recalls, axis=0))  # over the classes of a draw
        found["brier"].append(counts @ squared_errors(targets, probabilities) / n)
        pooled.append(areas_of_draws(targets, probabilities, counts))
        for k, name in enumerate(class_names):
            rows = targets == k
            right = _fraction(counts[:, rows] @ hit[rows], counts[:, rows].sum(1))
            found.setdefault(f"sensitivity/{name}", []).append(right)
        for fold in np.unique(folds):
            rows = folds == fold
            areas.append(areas_of_draws(targets[rows], probabilities[rows], counts[:, rows]))
            tested.append(counts[:, rows].any(1))  # a fold without a row in a draw is not part of its mean
    # (n_classes, n_draws); of two classes (1, n_draws)
    area = np.where(np.array(tested)[:, None], areas, 0).sum(0) / np.sum(tested, axis=0)
    of_all = np.mean(pooled, axis=0)
    means = {name: np.mean(values, axis=0) for name, values in found.items()}
    means |= {"auroc": area.mean(0), "auroc_pooled": of_all.mean(0)}
    for k, name in enumerate(class_names):
        means |= {f"auroc/{name}": area[k], f"auroc_pooled/{name}": of_all[k]}
    return means


def _fraction(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Quotient; NaN if the total is 0."""
    return np.divide(part, total, out=np.full(np.broadcast(part, total).shape, np.nan), where=total > 0)

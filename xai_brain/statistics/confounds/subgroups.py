"""Performance of predictions in subgroups of participants, and the difference of each from the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.statistics.bootstrap import BLOCK, draw_counts, percentile_interval
from xai_brain.statistics.classification import auroc_of_draws, probabilities_of
from xai_brain.statistics.continuous.metrics import errors_of_draws

MIN_PARTICIPANTS = 10  # smaller subgroups have no figures
MIN_OF_CLASS = 3  # participants of every class, for the same reason
MANY_NUMBERS = 8  # a column with more different numbers is divided into bands
MANY_SUBGROUPS = 30  # a column with more different texts names no subgroups
NEVER_NUMBERS = ("site",)  # columns whose numbers are codes
CLASS_METRICS, NUMBER_METRICS = ("auroc_pooled", "balanced_accuracy"), ("mae_pooled", "pearson_r_pooled")

Arrays = tuple[np.ndarray, np.ndarray]  # targets and predictions of the images
Figures = Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, np.ndarray]]


def subgroups_of(values: pd.Series) -> pd.Series | None:
    """Subgroup of each participant: the value, or of a number with many different values its third.

    Parameters
    ----------
    values : pandas.Series
        Column of a table with one row per participant, with its name.

    Returns
    -------
    pandas.Series of str, or None
        NaN where there is no value; categorical in the order of the subgroups. None if there are fewer than
        two or more than 30 subgroups.
    """
    known = values.dropna()
    numbers = pd.to_numeric(known, errors="coerce")
    are_numbers = bool(numbers.notna().all())
    are_codes = str(values.name).lower() in NEVER_NUMBERS
    if are_numbers and not are_codes and numbers.nunique() > MANY_NUMBERS:
        low, high = (float(f"{edge:.3g}") for edge in numbers.quantile([1 / 3, 2 / 3]))
        names = [f"up to {low:g}", f"above {low:g}, up to {high:g}", f"above {high:g}"]
        found = pd.cut(numbers, [-np.inf, low, high, np.inf], labels=names) if low < high else None
    else:
        order = sorted(known.unique(), key=float if are_numbers else str)
        names = [f"{name:g}" if isinstance(name, float) else str(name) for name in order]
        texts = known.map(dict(zip(order, names, strict=True)))
        found = pd.Series(pd.Categorical(texts, names), known.index)
    if found is None or not 2 <= found.nunique() <= MANY_SUBGROUPS:
        return None
    return found.cat.remove_unused_categories().reindex(values.index)


def class_figures(targets: np.ndarray, values: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC and balanced accuracy in draws of images; all classes occur."""
    hit = values.argmax(1) == targets
    classes = range(values.shape[1])
    recalls = [counts[:, targets == k] @ hit[targets == k] / counts[:, targets == k].sum(1) for k in classes]
    areas = auroc_of_draws(targets, values, counts)
    return dict(zip(CLASS_METRICS, (areas, np.mean(recalls, axis=0)), strict=True))


def number_figures(targets: np.ndarray, values: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Mean absolute error and Pearson's r in draws of images."""
    found = errors_of_draws(targets, values, counts)
    return dict(zip(NUMBER_METRICS, (found["mae"], found["pearson_r"]), strict=True))


def subgroup_table(
    predictions: pd.DataFrame,
    subgroups: Mapping[str, pd.Series],
    column: str | None = None,
    class_names: Sequence[str] = (),
    n_bootstrap: int = 1000,
    random_state: int = 0,
) -> pd.DataFrame:
    """Figures of every subgroup and their difference from the rest, with 95 % bootstrap intervals.

    The images of all folds are pooled, and figures are averaged over seeds and repeats of the folds.
    Participants are drawn with all of their images within subgroup and class, the same in all seeds.

    Parameters
    ----------
    predictions : pandas.DataFrame
        participant_id, target and predictions, as predictions.tsv.
    subgroups : mapping of str to pandas.Series
        From `subgroups_of`, by the name of the column, with the participant_id as index.
    column : str, optional
        Column of the predicted number; default: classes, with ``prob_<class>``.
    class_names : sequence of str, default ()
        In the order of the targets; their counts are columns ``n_<class>``.
    n_bootstrap, random_state : int

    Returns
    -------
    pandas.DataFrame
        column, subgroup, n_participants, n_<class>..., metric, value, ci_low, ci_high, difference,
        difference_ci_low, difference_ci_high (subgroup minus rest). The figures of subgroups with fewer
        than 10 participants, or 3 of a class, are NaN, as is the difference if the rest is so small.
    """
    trained = [name for name in ("seed", "repeat") if name in predictions]
    order = ["participant_id", *(["session_id"] if "session_id" in predictions else [])]
    table = predictions.sort_values(order, kind="stable")
    parts = [part for _, part in table.groupby(trained, sort=False)] if trained else [table]
    values = [part[column].to_numpy(float) if column else probabilities_of(part) for part in parts]
    targets, ids = parts[0]["target"].to_numpy(), parts[0]["participant_id"]
    figures = number_figures if column else class_figures
    rows: list[dict[str, Any]] = []
    for name, of_participant in subgroups.items():
        group = ids.map(of_participant.astype(object)).to_numpy()
        known = ~pd.isna(group)
        kept = [each[known] for each in values]
        draws = _draws(targets[known], ids[known], group[known], column is None, n_bootstrap, random_state)
        for subgroup in of_participant.cat.categories:
            inside = group[known] == subgroup
            sides = [
                _figures(figures, targets[known], kept, draws, rows_, ids[known], len(class_names))
                for rows_ in (inside, ~inside)
            ]
            about = {"column": name, "subgroup": subgroup, "n_participants": ids[known][inside].nunique()}
            for k, class_name in enumerate(class_names):
                members = inside & (targets[known] == k)
                about[f"n_{class_name}"] = ids[known][members].nunique()
            rows += _rows(about, sides[0], sides[1], NUMBER_METRICS if column else CLASS_METRICS)
    return pd.DataFrame(rows)


def _draws(
    targets: np.ndarray, ids: pd.Series, group: np.ndarray, by_class: bool, n_bootstrap: int, seed: int
) -> np.ndarray:
    """How often each image counts: all once, then in each draw of participants, (1 + n_bootstrap, n)."""
    participant = pd.factorize(ids)[0]
    kinds = pd.DataFrame({"group": group, "target": targets if by_class else 0})
    members = kinds.groupby(participant).first().groupby(["group", "target"]).indices.values()
    counts = draw_counts(list(members), n_bootstrap, np.random.default_rng(seed))
    return np.concatenate([np.ones((1, len(ids)), np.int64), counts[:, participant]])


def _figures(
    figures: Figures,
    targets: np.ndarray,
    values: Sequence[np.ndarray],
    draws: np.ndarray,
    rows: np.ndarray,
    ids: pd.Series,
    n_classes: int,
) -> dict[str, np.ndarray] | None:
    """Figures of some images in all draws, as means over seeds; None if there are too few participants."""
    if ids[rows].nunique() < MIN_PARTICIPANTS:
        return None
    if any(ids[rows & (targets == k)].nunique() < MIN_OF_CLASS for k in range(n_classes)):
        return None
    found: dict[str, list[np.ndarray]] = {}
    for each in values:
        blocks = [
            figures(targets[rows], each[rows], draws[start : start + BLOCK][:, rows])
            for start in range(0, len(draws), BLOCK)
        ]
        for name in blocks[0]:
            found.setdefault(name, []).append(np.concatenate([block[name] for block in blocks]))
    return {name: np.mean(each, axis=0) for name, each in found.items()}


def _rows(
    about: dict[str, Any],
    inside: dict[str, np.ndarray] | None,
    rest: dict[str, np.ndarray] | None,
    metrics: Sequence[str],
) -> list[dict[str, Any]]:
    rows = []
    for metric in metrics:
        row = {**about, "metric": metric}
        row |= _with_interval("value", "ci", None if inside is None else inside[metric])
        both = None if inside is None or rest is None else inside[metric] - rest[metric]
        rows.append(row | _with_interval("difference", "difference_ci", both))
    return rows


def _with_interval(name: str, interval: str, draws: np.ndarray | None) -> dict[str, float]:
    low, high = (np.nan, np.nan) if draws is None else percentile_interval(draws[1:])
    return {name: np.nan if draws is None else draws[0], f"{interval}_low": low, f"{interval}_high": high}

"""Ranking of the settings of a sweep by metrics of their jobs, independent of torch."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from scipy.stats import t as student

from xai_brain.metrics.table import METRICS
from xai_brain.statistics.sweeps import COMPLETE, REPLICATES, SweepError

LOWER_IS_BETTER = ("loss", "brier", "ece", "empty_maps")  # ends of names of other figures


def ranked_metrics(table: pd.DataFrame) -> list[str]:
    """Metrics that are ranked by default."""
    localizations = [name for name in table if re.fullmatch(r"localization/[^/]+/rra", str(name))]
    return [*(name for name in ("objective", "test/auroc") if name in table), *localizations]


def ranking(table: pd.DataFrame, metrics: list[str] | None = None, level: float = 0.95) -> pd.DataFrame:
    """Rank settings by a metric; jobs that differ only in seed or fold belong to one setting.

    Parameters
    ----------
    table : pandas.DataFrame
        From `read_sweep`.
    metrics : list of str, optional
        Default: the objective, test/auroc and the rra of every method.
    level : float, default 0.95
        Level of the Student interval of the mean over jobs, which describes the variation over seeds; the
        intervals in metrics.json describe the variation over participants.

    Returns
    -------
    pandas.DataFrame
        metric, rank, the settings, value, ci_low, ci_high (NaN for one job or several folds), n_jobs
        (complete) and n_planned. A setting with incomplete jobs has neither rank nor value, because the mean
        over its other seeds or folds cannot be compared with that of other settings.

    Raises
    ------
    SweepError
        No job has the metric.
    """
    parameters = [key for key in table.attrs["parameters"] if key not in REPLICATES]
    rows = []
    for metric in ranked_metrics(table) if metrics is None else metrics:
        if metric not in table or not table[metric].notna().any():
            raise SweepError(f"metric={metric}: no job has it; figures are, for example, {_examples(table)}")
        groups = table.groupby(parameters, dropna=False, sort=False) if parameters else [((), table)]
        found = []
        for values, part in groups:
            complete = (part["state"] == COMPLETE) & part[metric].notna()
            if not part[metric].notna().any() and (part["state"] == COMPLETE).all():
                continue  # these jobs have no such figure
            mean, low, high = t_interval(part[metric].where(complete).to_numpy(float), level)
            if "folds.only" in part and part["folds.only"].nunique() > 1:
                low = high = float("nan")  # folds of one cohort share their training subjects
            about = dict(zip(parameters, values, strict=True))
            figures = {"value": mean, "ci_low": low, "ci_high": high}
            found.append({**about, **figures, "n_jobs": int(complete.sum()), "n_planned": len(part)})
        rising = lower_is_better(metric) or (
            metric == "objective" and table.attrs.get("direction") == "minimize"
        )
        ranked = [row for row in found if np.isfinite(row["value"])]
        ranked.sort(key=lambda row: row["value"], reverse=not rising)
        rows += [{"metric": metric, "rank": rank, **row} for rank, row in enumerate(ranked, 1)]
        rows += [{"metric": metric, **row} for row in found if not np.isfinite(row["value"])]
    columns = ["metric", "rank", *parameters, "value", "ci_low", "ci_high", "n_jobs", "n_planned"]
    return pd.DataFrame(rows, columns=columns)


def lower_is_better(name: str) -> bool:
    """Whether lower values of a metric are better, as for test/brier and masks/GradCAM/remove_10/auroc."""
    parts = name.split("/")
    lower = tuple(metric.name for metric in METRICS.values() if metric.direction == "lower")
    return any(part.endswith((*lower, *LOWER_IS_BETTER)) or part.startswith("remove_") for part in parts)


def _examples(table: pd.DataFrame) -> str:
    about = {"job", "state", "error", *table.attrs["parameters"]}
    names = [str(name) for name in table if name not in about and "_ci_" not in str(name)]
    return ", ".join(names[:6])


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student interval; the bounds are NaN for a single value.

    Parameters
    ----------
    values : ndarray of shape (n,)
    level : float, default 0.95
    """
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = student.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, mean - float(half), mean + float(half)

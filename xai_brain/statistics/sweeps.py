"""Jobs of a sweep: what each was asked, how far it came, and its figures. No torch.

A sweep's directory holds ``sweep.json`` (what was planned) and one run directory per job with
``job.json`` (what the job was asked, and how it ended).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from xai_brain.config.overrides import unquoted
from xai_brain.runs.directory import RunDirectory, read_json

PLAN, RECORD = "sweep.json", "job.json"
COMPLETE, FAILED, MISSING = "complete", "failed", "missing"
REPLICATES = ("seeds", "folds.only", "data.cohort.seed", "folds.random_state")  # the same asked again
LESS_IS_BETTER = (  # ends of a part of a figure's name
    "loss",
    "brier",
    "ece",
    "emd_mm",
    "infidelity",
    "max_sensitivity",
    "seconds",
    "peak_mb",
    "false_positive",
    "empty_maps",
)
UNFINISHED = "begun, not finished: it is running, or was killed"
WHERE = ("sweep", "launcher", "overwrite", "run_dir")  # of how jobs are started, not of what they are


class SweepError(ValueError):
    """A directory without a sweep, or a figure that no job has: one line."""


def settings_of(overrides: list[str]) -> dict[str, str]:
    """Settings of a job by name, without those of where it runs."""
    found = dict(text.split("=", 1) for text in overrides if "=" in text)
    named = {key.lstrip("+~"): unquoted(value) for key, value in found.items()}
    return {k: v for k, v in named.items() if k not in WHERE and not k.startswith(("hydra.", "hydra/"))}


def swept_keys(jobs: list[dict[str, str]]) -> list[str]:
    """Settings that differ between jobs, in the order of their first job."""
    keys = dict.fromkeys(key for job in jobs for key in job)
    return [key for key in keys if len({job.get(key) for job in jobs}) > 1]


def read_sweep(folder: Path) -> pd.DataFrame:
    """One row per job: parameters, how it ended, figures.

    Parameters
    ----------
    folder : Path
        Of the sweep, ``outputs/<name>``.

    Returns
    -------
    pandas.DataFrame
        job, state (complete, failed, missing), error, seconds, objective when there is one, a column per
        setting that differs between jobs, and one per figure of metrics.json (NaN where a job has none).
        ``attrs["parameters"]`` names the settings, ``attrs["strays"]`` jobs of an earlier plan, left out.

    Raises
    ------
    SweepError
        The directory holds no sweep.
    """
    plan = read_json(folder / PLAN) if (folder / PLAN).exists() else {}
    there = {path.parent.name for path in folder.glob(f"*/{RECORD}")} if folder.is_dir() else set()
    if not plan and not there:
        raise SweepError(f"{folder}: there is no sweep; the folder of its jobs is needed, as outputs/<name>")
    planned: dict[str, list[str]] = plan.get("jobs") or {}
    names = sorted(planned or there, key=_natural)
    rows, asked = [], []
    for name in names:
        path = folder / name / RECORD
        record = read_json(path) if path.exists() else {}
        asked.append(settings_of(planned.get(name) or record.get("overrides", [])))
        rows.append({"job": name, **_outcome(record), **_figures(folder / name, record)})
    parameters = swept_keys(asked)
    table = pd.DataFrame(rows)
    given = pd.DataFrame([{key: job.get(key) for key in parameters} for job in asked], columns=parameters)
    table = pd.concat([table[["job", "state"]], given.apply(_numbers), table.iloc[:, 2:]], axis=1)
    table.attrs = {"parameters": parameters, "strays": sorted(there - set(names), key=_natural)}
    return table


def is_whole(table: pd.DataFrame) -> pd.Series:
    """Whether all jobs of a job's setting, which differ in seed or fold only, are complete."""
    parameters = [key for key in table.attrs["parameters"] if key not in REPLICATES]
    complete = table["state"] == COMPLETE
    keys = [table[key] for key in parameters] or [pd.Series(0, index=table.index)]
    return complete.groupby(keys, dropna=False).transform("all")


def _outcome(record: dict[str, Any]) -> dict[str, Any]:
    state = record.get("state")
    error = record.get("error", "") if state == FAILED else UNFINISHED if state == "running" else ""
    known = state if state in (COMPLETE, FAILED) else MISSING
    outcome = {"state": known, "error": error, "seconds": record.get("seconds", np.nan)}
    if record.get("objective") is not None:
        outcome["objective"] = record["objective"]
    return outcome


def _figures(folder: Path, record: dict[str, Any]) -> dict[str, float]:
    """Figures of a job that is complete; those of a half-finished one would be compared with whole ones."""
    metrics = RunDirectory(folder).metrics
    return read_json(metrics) if record.get("state") == COMPLETE and metrics.exists() else {}


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().all() else column


def ranked_metrics(table: pd.DataFrame) -> list[str]:
    """Figures that are ranked unless others are asked for."""
    places = [name for name in table if re.fullmatch(r"localization/[^/]+/rra", str(name))]
    return [*(name for name in ("objective", "test/auroc") if name in table), *places]


def ranking(table: pd.DataFrame, metrics: list[str] | None = None, level: float = 0.95) -> pd.DataFrame:
    """Settings by a figure, best first; jobs that differ in seed or fold only are one setting.

    Parameters
    ----------
    table : pandas.DataFrame
        From `read_sweep`.
    metrics : list of str, optional
        Default: the objective, test/auroc and the rra of every method.
    level : float, default 0.95
        Of the interval of the mean over jobs, by Student's t: what to expect of further seeds. (Those in
        metrics.json are over subjects.)

    Returns
    -------
    pandas.DataFrame
        metric, rank, the settings, value, ci_low, ci_high (NaN of one job, and of several folds), n_jobs
        (complete) and n_planned. A setting with jobs that are not complete has neither rank nor value, since
        the mean over its other seeds or folds cannot be compared with that of other settings.

    Raises
    ------
    SweepError
        No job has the figure.
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
        rising = less_is_better(metric) or (
            metric == "objective" and table.attrs.get("direction") == "minimize"
        )
        ranked = [row for row in found if np.isfinite(row["value"])]
        ranked.sort(key=lambda row: row["value"], reverse=not rising)
        rows += [{"metric": metric, "rank": rank, **row} for rank, row in enumerate(ranked, 1)]
        rows += [{"metric": metric, **row} for row in found if not np.isfinite(row["value"])]
    columns = ["metric", "rank", *parameters, "value", "ci_low", "ci_high", "n_jobs", "n_planned"]
    return pd.DataFrame(rows, columns=columns)


def less_is_better(metric: str) -> bool:
    """Whether the lowest value of a figure is the best: test/brier, masks/GradCAM/remove_10/auroc."""
    parts = metric.split("/")
    return any(part.endswith(LESS_IS_BETTER) or part.startswith("remove_") for part in parts)


def _examples(table: pd.DataFrame) -> str:
    about = {"job", "state", "error", *table.attrs["parameters"]}
    names = [str(name) for name in table if name not in about and "_ci_" not in str(name)]
    return ", ".join(names[:6])


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and Student's interval; NaN bounds of a single value.

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

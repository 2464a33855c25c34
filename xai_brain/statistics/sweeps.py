"""Jobs of a sweep: settings, state and metrics; independent of torch.

A sweep's directory holds ``sweep.json`` (what was planned) and one run directory per job with
``job.json`` (what the job was asked, and how it ended).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.inputs import PLAN, RECORD, require_sweep
from xai_brain.config.overrides import unquoted
from xai_brain.runs.directory import RunDirectory, read_json

COMPLETE, FAILED, MISSING = "complete", "failed", "missing"
REPLICATES = ("seeds", "folds.only", "data.cohort.seed", "folds.random_state")  # the same asked again
UNFINISHED = "begun, not finished: it is running, or was killed"
WHERE = ("sweep", "launcher", "overwrite", "run_dir")  # of how jobs are started, not of what they are


class SweepError(ValueError):
    """A metric that no job has, or arguments that name no sweep."""


def settings_of(overrides: list[str]) -> dict[str, str]:
    """Settings of a job by name, without those of the launcher."""
    found = dict(text.split("=", 1) for text in overrides if "=" in text)
    named = {key.lstrip("+~"): unquoted(value) for key, value in found.items()}
    return {k: v for k, v in named.items() if k not in WHERE and not k.startswith(("hydra.", "hydra/"))}


def swept_keys(jobs: list[dict[str, str]]) -> list[str]:
    """Settings that differ between jobs, in the order of their first job."""
    keys = dict.fromkeys(key for job in jobs for key in job)
    return [key for key in keys if len({job.get(key) for job in jobs}) > 1]


def read_sweep(folder: Path) -> pd.DataFrame:
    """One row per job: parameters, state, metrics.

    Parameters
    ----------
    folder : Path
        Folder of the sweep, ``outputs/<name>``.

    Returns
    -------
    pandas.DataFrame
        job, state (complete, failed, missing), error, seconds, objective if there is one, a column for each
        setting that differs between jobs and for each metric of metrics.json (NaN if a job has none).
        ``attrs["parameters"]`` lists the settings, ``attrs["strays"]`` excluded jobs of an earlier plan.

    Raises
    ------
    ConfigError
        The directory contains no sweep.
    """
    require_sweep(folder)
    plan = read_json(folder / PLAN) if (folder / PLAN).exists() else {}
    there = {path.parent.name for path in folder.glob(f"*/{RECORD}")}
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
    """Whether all jobs with the setting of a job (which differ in seed or fold only) are complete."""
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
    """Metrics of a complete job; those of an incomplete job cannot be compared with others."""
    metrics = RunDirectory(folder).metrics
    return read_json(metrics) if record.get("state") == COMPLETE and metrics.exists() else {}


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().all() else column

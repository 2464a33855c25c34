"""Section of the report: cohort."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.data.folds.summary import STRONG_DIFFERENCE
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.figures.style import for_screens
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.values import number
from xai_brain.reporting.wording import fixed, interval
from xai_brain.runs.directory import read_tsv
from xai_brain.statistics.group_design import confound_names

POSITION, TITLE, REPORTED_AS = 10, "Cohort", "classes"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    cohort_table = contents.participants
    if cohort_table is None or "label" not in cohort_table:
        return None
    size = contents.setting("data.brain_size_column")
    columns = {"age": "age (years)"} if is_numeric(cohort_table, "age") else {}
    if size and is_numeric(cohort_table, size):
        columns[size] = f"brain size ({size})"
    cohort_table = cohort_table.drop_duplicates("participant_id")
    there = set(cohort_table["label"].dropna())
    names = [name for name in contents.class_names if name in there] or sorted(there)
    rows = [described(cohort_table[cohort_table["label"] == name], name, columns) for name in names]
    differences = {c: _standardised_difference(cohort_table, c, names) for c in columns if len(names) == 2}
    largest = _largest_differences(contents, differences)
    return {
        "n": cohort_table["participant_id"].nunique(),
        "columns": columns,
        "rows": [*rows, described(cohort_table, "all", columns)],
        "differences": differences,
        "sites": cohort_table["site"].dropna().astype(str).value_counts().to_dict()
        if "site" in cohort_table
        else {},
        "figure": gallery.add("cohort", **for_screens(figures.cohort_figure, cohort_table, columns, names))
        if columns
        else None,
        "quarantine": contents.quarantine,
        "folds": fold_rows(contents),
        "largest_differences": largest,
        "adjusted": [name for name in largest if name in used_confounds(contents)],
        "not_adjusted": [name for name in largest if name not in used_confounds(contents)],
    }


def _largest_differences(contents: ReportContents, differences: dict[str, float | None]) -> dict[str, float]:
    """Variables in which the classes differ strongly, from metrics.json and the table of participants."""
    found = {name: abs(value) for name, value in differences.items() if value is not None}
    of_training = contents.metrics.items()
    found |= {key.removeprefix("confound/"): v for key, v in of_training if key.startswith("confound/")}
    label = contents.setting("data.label")
    return {name: value for name, value in found.items() if value > STRONG_DIFFERENCE and name != label}


def used_confounds(contents: ReportContents) -> set[str]:
    """Variables that the comparisons of the classes are adjusted for, or would be by the settings."""
    found: set[str] = set()
    for table in (contents.evaluation("group_tests"), contents.evaluation("region_groups")):
        columns = table["confounds"].dropna() if table is not None and "confounds" in table else []
        found |= set(confound_names(name for text in columns for name in str(text).split(", ")))
    size = contents.setting("data.brain_size_column")
    default = ["age", "sex", "site", *([size] if size else [])]
    return found | set(contents.setting("evaluation.group.confounds", default))


def fold_rows(contents: ReportContents) -> list[dict[str, Any]]:
    """Rows of fold_summary.tsv, with folds numbered from 1."""
    path = contents.run.fold_summary
    if not path.exists():
        return []
    table = read_tsv(path)
    return table.assign(fold=table["fold"] + 1).fillna("–").to_dict("records")


def is_numeric(table: pd.DataFrame, column: str) -> bool:
    return column in table and bool(pd.to_numeric(table[column], errors="coerce").notna().any())


def described(cohort_table: pd.DataFrame, name: str, columns: dict[str, str]) -> dict[str, Any]:
    cells = []
    for column in columns:
        values = pd.to_numeric(cohort_table[column], errors="coerce").dropna()
        digits = 1 if len(values) and values.abs().max() < 1000 else 0
        spread = f" ± {fixed(values.std(), digits)}" if len(values) > 1 else ""
        shown = f"{fixed(values.mean(), digits)}{spread} ({interval(values.min(), values.max(), digits)})"
        cells.append(shown if len(values) else "–")
    return {"name": name, "n": cohort_table["participant_id"].nunique(), "cells": cells}


def _standardised_difference(cohort_table: pd.DataFrame, column: str, names: Sequence[str]) -> float | None:
    """Cohen's d, second class minus first."""
    first, second = (
        pd.to_numeric(cohort_table.loc[cohort_table["label"] == name, column], errors="coerce").dropna()
        for name in names
    )
    spread = np.sqrt((first.var() + second.var()) / 2) if min(len(first), len(second)) > 1 else 0
    return number((second.mean() - first.mean()) / spread) if spread > 0 else None

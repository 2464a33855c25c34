"""Section of the report: cohort of networks that predict a number."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.sections.cohort import described, fold_rows, is_numeric
from xai_brain.statistics.continuous.outliers import OUTLIER_SD, outliers

POSITION, TITLE, REPORTED_AS = 10, "Cohort", "number"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    table = contents.participants
    if table is None or "target" not in table:
        return None
    table = table.drop_duplicates("participant_id").assign(label="all")
    label = str(contents.setting("data.label", "target"))
    columns = {"target": label}
    if is_numeric(table, "age") and label.lower() != "age":
        columns["age"] = "age (years)"
    size = contents.setting("data.brain_size_column")
    if size and is_numeric(table, size):
        columns[size] = f"brain size ({size})"
    targets = pd.to_numeric(table["target"], errors="coerce")
    missing = [why for _, why in contents.quarantine if why.startswith("no value of")]
    return {
        "n": len(table),
        "label": label,
        "columns": columns,
        "cells": described(table, "all", columns)["cells"],
        "n_outliers": int(outliers(targets.dropna().to_numpy()).sum()) if targets.notna().any() else 0,
        "outlier_sd": OUTLIER_SD,
        "n_missing": len(missing),
        "sex": table["sex"].dropna().astype(str).value_counts().to_dict() if "sex" in table else {},
        "figure": gallery.add("cohort", figures.cohort_figure(table, columns, ["all"])),
        "quarantine": contents.quarantine,
        "folds": fold_rows(contents),
    }

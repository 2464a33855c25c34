"""Section of the report: performance by subgroup of the participants."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.values import Estimate, number
from xai_brain.statistics.confounds.subgroups import MIN_OF_CLASS, MIN_PARTICIPANTS

POSITION, TITLE = 21, "Performance by subgroup"
TITLES = {"auroc_pooled": "AUROC, pooled", "balanced_accuracy": "Balanced accuracy"}
TITLES |= {"mae_pooled": "MAE", "pearson_r_pooled": "Pearson r"}


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    table = contents.evaluation("subgroups")
    if table is None:
        return None
    metrics = list(table["metric"].unique())
    counts = [name for name in table if str(name).startswith("n_") and name != "n_participants"]
    columns: dict[str, list[dict[str, Any]]] = {}
    for (column, subgroup), part in table.groupby(["column", "subgroup"], sort=False):
        by_metric = part.set_index("metric")
        one = part.iloc[0]
        columns.setdefault(str(column), []).append(
            {
                "name": str(subgroup),
                "n": int(one["n_participants"]),
                "counts": [int(one[name]) for name in counts],
                "values": {name: _estimate(by_metric.loc[name], "value", "ci") for name in metrics},
                "differences": {
                    name: _estimate(by_metric.loc[name], "difference", "difference_ci") for name in metrics
                },
            }
        )
    cells = [row["differences"][name] for rows in columns.values() for row in rows for name in metrics]
    compared = [each for each in cells if each is not None and each.low is not None]
    return {
        "columns": columns,
        "titles": {name: TITLES[name] for name in metrics},
        "n_compared": len(compared),
        "n_different": sum(not each.low <= 0 <= each.high for each in compared),
        "min_participants": MIN_PARTICIPANTS,
        "min_of_class": MIN_OF_CLASS,
    }


def _estimate(row: pd.Series, name: str, interval: str) -> Estimate | None:
    value = number(row[name])
    if value is None:
        return None
    return Estimate(value, number(row[f"{interval}_low"]), number(row[f"{interval}_high"]), None)

"""The page of a regional benchmark: figure, tables, the published values, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.metrics.regional.summary import (
    ALL_REGIONS,
    LEARNT_REGIONS,
    learned_regions,
    matrix,
    networks_of_table,
)
from xai_brain.reporting.benchmarks.pages import write_benchmark_page
from xai_brain.reporting.figures.regional import regional_figure
from xai_brain.reporting.figures.style import style
from xai_brain.reporting.texts.references import PUBLISHED_RMA

PUBLISHED_METHODS = {**PUBLISHED_RMA, "LRP": 0.198}  # mean over twelve regions
PUBLISHED_REGIONS = {  # by the name of the region, without spaces and in lower case
    "hippocampus": 0.382,
    "putamen": 0.433,
    "caudate": 0.316,
    "lateralventricle": 0.281,
    "pallidum": 0.336,
    "brainstem": 0.556,
}
METRICS = {
    "rma": "Relevance mass accuracy (RMA)",
    "top_region": "Hit of the top region",
    "false_positive": "Mass outside the dilated region",
    "rma_mirrored": "Mass in the mirrored region",
}


def published_of_region(region: str) -> float | None:
    """Published RMA of a region, if it is known."""
    return PUBLISHED_REGIONS.get("".join(filter(str.isalnum, region)).lower())


def write_page(
    folder: Path, table: pd.DataFrame, settings: Mapping[str, Any], kinds: Mapping[str, str]
) -> None:
    """Write ``siegel.png`` and ``report.html``.

    Parameters
    ----------
    folder : Path
    table : pandas.DataFrame
        From `xai_brain.metrics.regional.summary.summarise`.
    settings : mapping
        Settings of the benchmark, as config.yaml contains them.
    kinds : mapping of method to {"method", "baseline"}
    """
    networks = networks_of_table(table)
    learned = learned_regions(networks)
    context = {
        "title": settings["name"],
        "networks": [
            {**row, "learned": row["region"] in learned, "published": published_of_region(row["region"])}
            for row in networks.to_dict("records")
        ],
        "learned": learned,
        "methods": _methods(table, kinds),
        "not_run": {name: value for name, value in PUBLISHED_METHODS.items() if name not in kinds},
        "regions": _regions(table, list(networks["region"])),
        "has_mirror": (table["metric"] == "rma_mirrored").any(),
        "metrics": METRICS,
        "planted": settings["regional"]["columns"] is None,
        "regional": settings["regional"],
        "grid": settings["preprocessing"]["grid"],
        "network": str(settings["model"]["_target_"]).rpartition(".")[2],
        "n_test": int(networks["n"].max()),
    }
    with style():
        figures = {"siegel": regional_figure(table, kinds, PUBLISHED_METHODS)}
        write_benchmark_page(folder, "regional.html.j2", figures, context)


def _methods(table: pd.DataFrame, kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """Means over regions of every method, the highest RMA first; baselines last."""
    cells = table.set_index(["region", "method", "metric"])
    rows = []
    for method in matrix(table, "rma").index:
        row: dict[str, Any] = {
            "method": method,
            "kind": kinds[method],
            "published": PUBLISHED_METHODS.get(method),
        }
        for metric in METRICS:
            key = (ALL_REGIONS, method, metric)
            row[metric] = cells.loc[key].to_dict() if key in cells.index else None
        key = (LEARNT_REGIONS, method, "rma")
        row["learned"] = cells.loc[key].to_dict() if key in cells.index else None
        rows.append(row)
    return sorted(rows, key=lambda row: (row["kind"] == "baseline", -row["rma"]["mean"]))


def _regions(table: pd.DataFrame, regions: list[str]) -> list[dict[str, Any]]:
    """The RMA of every method in each region."""
    rma, chance = matrix(table, "rma"), matrix(table, "rma", "chance")
    return [
        {
            "region": region,
            "published": published_of_region(region),
            "chance": float(chance[region].mean()),
            "values": {method: float(rma.loc[method, region]) for method in rma.index},
        }
        for region in regions
    ]

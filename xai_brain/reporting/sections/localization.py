"""Section of the report: localisation of the planted effect."""

from __future__ import annotations

from typing import Any

from xai_brain.metrics.table import METRICS
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import comparison as comparison_figures
from xai_brain.reporting.figures.style import for_screens, method_styles
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.values import number

POSITION, TITLE = 80, "Localisation"
LOCALIZATION = ("rra", "rma", "pointing")  # shown in this order; methods are sorted by the first


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    table = contents.summary("localization")
    if table.empty:
        return None
    table = table[table["metric"].isin(LOCALIZATION)]
    first = table[table["metric"] == LOCALIZATION[0]].sort_values("mean", ascending=False)
    order = list(dict.fromkeys([*first["method"], *table["method"]]))
    rows: dict[str, dict[str, Any]] = {method: {} for method in order}
    panels: dict[str, list[dict[str, Any]]] = {}
    for metric in LOCALIZATION:
        part = table[table["metric"] == metric].set_index("method")
        for method in [m for m in order if m in part.index]:
            row = part.loc[method]
            chance = number(row["chance"])
            cell = {
                "name": method, "value": float(row["mean"]), "low": number(row["ci_low"]),
                "high": number(row["ci_high"]), "chance": chance, "n": row["n"],
                "ratio": float(row["mean"]) / chance if chance else None,
            }  # fmt: skip
            rows[method][metric] = cell
            panels.setdefault(METRICS[metric].title, []).append(cell)
    figures = for_screens(comparison_figures.interval_figure, panels, method_styles(contents.methods))
    return {
        "rows": rows,
        "best": order[0],
        "chance": {metric: number(part["chance"].mean()) for metric, part in table.groupby("metric")},
        "n": int(table["n"].max()),
        "figure": gallery.add("localization", **figures),
    }

"""Section of the report with the report card: which maps are reliable."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.metrics.cells.reference import similar_cells
from xai_brain.metrics.report_card import COLUMNS, verdicts
from xai_brain.metrics.table import METRICS
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import card as card_figures
from xai_brain.reporting.figures.style import for_screens, method_styles
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.ratings import MEANINGS, reasons_of
from xai_brain.reporting.wording import interval
from xai_brain.runs.directory import read_tsv

POSITION, TITLE = 90, "Report card"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """The report card of this run: figure, conclusions, table."""
    table = contents.evaluation("report_card")
    if table is None:
        return None
    table = table[[column for column in COLUMNS if column in table]]
    rated = verdicts(table)
    cascade = _cascade(contents)
    drawn = {}
    if cascade is not None:
        styles = method_styles([*contents.methods, *cascade["method"]])
        drawn = for_screens(card_figures.cascade_figure, cascade, styles)
    return {
        "figure": gallery.add("report-card", card_figures.card_figure(table, rated)),
        "cascade": gallery.add("random-weights", **drawn) if drawn else None,
        "verdicts": [verdict for verdict in rated if verdict.kind != "baseline"],
        "baselines": [verdict for verdict in rated if verdict.kind == "baseline"],
        "metrics": [metric for metric in METRICS.values() if (table["metric"] == metric.name).any()],
        "n": table.groupby("metric")["n_subjects"].max().to_dict(),
        "meanings": MEANINGS,
        "reasons": {verdict.method: reasons_of(verdict) for verdict in rated},
        "not_rated": [name for name in contents.methods if not (table["method"] == name).any()],
        "planted": contents.setting("planted.kind"),
        "rows": table.to_dict("records"),
        "similar": _similar_cells(contents, table),
    }


def _similar_cells(contents: ReportContents, card: pd.DataFrame) -> dict[str, Any] | None:
    """Cells of the detection benchmark with this kind of effect and a similar AUROC; None without any."""
    kind, auroc = contents.setting("planted.kind"), contents.metrics.get("test/auroc")
    methods = card.loc[card["kind"] == "method", "method"].unique()
    found = similar_cells(kind, auroc, methods) if kind and auroc is not None else None
    if found is None:
        return None
    texts = [
        f"{row.method} in {row.n_found} of {row.n_cells} ({interval(row.low, row.high, 2)})"
        for row in found.methods.itertuples()
    ]
    about = {"n": len(found.names), "auroc": auroc, "low": min(found.aurocs), "high": max(found.aurocs)}
    return about | {"methods": texts, "of": found.provenance}


def _cascade(contents: ReportContents) -> pd.DataFrame | None:
    files = sorted((contents.run.path / "evaluation" / "metrics").glob("*_cascade.tsv"))
    return pd.concat([read_tsv(path) for path in files], ignore_index=True) if files else None

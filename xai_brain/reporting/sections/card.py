"""Section of the report with the report card: which maps are reliable."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.metrics.report_card import COLUMNS, verdicts
from xai_brain.metrics.table import METRICS
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import card as card_figures
from xai_brain.reporting.figures.style import for_screens, method_styles
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.ratings import MEANINGS, reasons_of
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
    }


def _cascade(contents: ReportContents) -> pd.DataFrame | None:
    files = sorted((contents.run.path / "evaluation" / "metrics").glob("*_cascade.tsv"))
    return pd.concat([read_tsv(path) for path in files], ignore_index=True) if files else None

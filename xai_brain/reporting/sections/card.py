"""Section of the report with the report card: which map to believe, and how far."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.metrics.report_card import COLUMNS, JUDGES, verdicts
from xai_brain.reporting.contents import RunContents
from xai_brain.reporting.figures import card as card_figures
from xai_brain.reporting.gallery import Gallery
from xai_brain.runs.directory import read_tsv


def card(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    """The card of this run: figure, verdicts in words, table."""
    table = contents.evaluation("report_card")
    if table is None:
        return None
    table = table[[column for column in COLUMNS if column in table]]
    told = verdicts(table)
    methods = [verdict.method for verdict in told if verdict.kind != "baseline"]
    cascade = _cascade(contents)
    drawn = card_figures.cascade_figure(cascade, methods) if cascade is not None else None
    return {
        "figure": gallery.add("report-card", card_figures.card_figure(table, told)),
        "cascade": gallery.add("random-weights", drawn) if drawn is not None else None,
        "verdicts": [verdict for verdict in told if verdict.kind != "baseline"],
        "baselines": [verdict for verdict in told if verdict.kind == "baseline"],
        "judges": {judge: JUDGES[judge][0] for judge in JUDGES if (table["judge"] == judge).any()},
        "n": table.groupby("judge")["n_subjects"].max().to_dict(),
        "planted": contents.setting("planted.kind"),
        "rows": table.to_dict("records"),
    }


def _cascade(contents: RunContents) -> pd.DataFrame | None:
    files = sorted((contents.run.path / "evaluation" / "judges").glob("*_cascade.tsv"))
    return pd.concat([read_tsv(path) for path in files], ignore_index=True) if files else None


def calibration(contents: RunContents) -> dict[str, Any] | None:
    """What a card of planted effects in the same cohort says of this run's methods."""
    table = contents.evaluation("calibration")
    if table is None:
        return None
    told = {verdict.method: verdict for verdict in verdicts(table[COLUMNS])}
    rra = table[table["judge"] == "rra"].set_index("method")
    return {
        "planted": str(table["planted"].iloc[0]),
        "methods": {
            method: {
                "verdict": told[method],
                "rra": rra.loc[method].to_dict() if method in rra.index else None,
            }
            for method in contents.methods
            if method in told
        },
    }

"""Section of the report: report card of a run on planted effects in the same cohort."""

from __future__ import annotations

from typing import Any

from xai_brain.metrics.report_card import COLUMNS, verdicts
from xai_brain.reporting.contents import RunContents
from xai_brain.reporting.gallery import Gallery

POSITION, TITLE = 100, "How far maps can be trusted here"


def section(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    """Conclusions about the methods of this run from a report card of planted effects in the same cohort."""
    table = contents.evaluation("calibration")
    if table is None:
        return None
    rated = {verdict.method: verdict for verdict in verdicts(table[COLUMNS])}
    rra = table[table["metric"] == "rra"].set_index("method")
    return {
        "planted": str(table["planted"].iloc[0]),
        "methods": {
            method: {
                "verdict": rated[method],
                "rra": rra.loc[method].to_dict() if method in rra.index else None,
            }
            for method in contents.methods
            if method in rated
        },
    }

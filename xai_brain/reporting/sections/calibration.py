"""Section of the report: report card of a run on planted effects in the same cohort."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.ratings import calibration_of

POSITION, TITLE, REPORTED_AS = 100, "How far maps can be trusted here", "classes"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Conclusions about the methods of this run from a report card of planted effects in the same cohort."""
    table = contents.evaluation("calibration")
    if table is None:
        return None
    return {"planted": str(table["planted"].iloc[0]), "methods": calibration_of(contents)}

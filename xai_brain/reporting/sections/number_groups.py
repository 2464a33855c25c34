"""Section of the report: association of the maps with a number, over participants."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.method_descriptions import describe_methods
from xai_brain.reporting.sections import groups

POSITION, TITLE, REPORTED_AS = 60, "Association of the maps with the target", "number"
FILLED = ("MeaningfulPerturbation", "OppositeDifference")  # their fill changes with the prediction


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Contents of the section of classes, and the methods whose fill depends on the prediction."""
    found = groups.section(contents, gallery)
    if found is None:
        return None
    filled = [method["name"] for method in describe_methods(contents) if method["kind"] in FILLED]
    return {**found, "filled": filled}

"""Section of the report: limits of the maps."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.gallery import Gallery

POSITION, TITLE, REPORTED_AS = 170, "What these maps do not show", "classes"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any]:
    """How many networks the maps explain."""
    return {"networks": contents.count_networks(contents.setting("explain.seeds") or contents.run.seeds)}

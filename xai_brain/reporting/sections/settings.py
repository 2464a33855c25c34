"""Section of the report: settings and provenance, which the template reads from the run."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.gallery import Gallery

POSITION, TITLE = 200, "Settings and provenance"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any]:
    return {}

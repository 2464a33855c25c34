"""Section of the report: references. Those that the page cites are added when its text is complete."""

from __future__ import annotations

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.method_descriptions import describe_methods

POSITION, TITLE = 190, "References"


def section(contents: ReportContents, gallery: Gallery) -> list[str]:
    """References of the methods."""
    return [described["reference"] for described in describe_methods(contents)]

"""Section of the report: paragraph for the methods section of a paper."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.method_descriptions import describe_methods

POSITION, TITLE = 180, "Methods paragraph"


def section(contents: ReportContents, gallery: Gallery) -> list[dict[str, Any]]:
    return describe_methods(contents)

"""Section of the report: limits of the maps."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.contents import RunContents
from xai_brain.reporting.gallery import Gallery

POSITION, TITLE = 170, "What these maps do not show"


def section(contents: RunContents, gallery: Gallery) -> dict[str, Any]:
    return {}

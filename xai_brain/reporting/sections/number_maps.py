"""Section of the report: mean maps of all participants, for a predicted number."""

from __future__ import annotations

from xai_brain.reporting.sections.maps import section as section

POSITION, TITLE, REPORTED_AS = 50, "Mean maps", "number"

"""Section of the report: limits of the maps of a predicted number."""

from __future__ import annotations

from xai_brain.reporting.sections.limits import section as section

POSITION, TITLE, REPORTED_AS = 170, "What these maps do not show", "number"

"""Section of the report: maps of single participants, for a predicted number."""

from __future__ import annotations

from xai_brain.reporting.sections.subjects import section as section

POSITION, TITLE, REPORTED_AS = 70, "Single participants", "number"

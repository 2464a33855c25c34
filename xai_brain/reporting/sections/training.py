"""Section of the report: training curves."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.figures.style import for_screens
from xai_brain.reporting.gallery import Gallery

POSITION, TITLE = 30, "Training curves"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    curves = contents.curves
    if curves is None or not {"train/loss", "val/loss", "val/auroc"} & set(curves["metric"]):
        return None
    return {
        "figure": gallery.add(
            "training", **for_screens(figures.training_figure, curves, max(len(contents.class_names), 2))
        ),
        "n": curves["run"].nunique(),
    }

"""Section of the report: properties of participants that can be read from the last layer of the networks."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.gallery import Gallery
from xai_brain.statistics.confounds.confound_score import N_INNER_FOLDS

POSITION, TITLE = 22, "Confounds in the last layer"
MEASURES = {"r2": "R²", "auroc": "AUROC within networks"}


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    table = contents.evaluation("confounds")
    if table is None:
        return None
    rows = [{**row, "measure": MEASURES[row["measure"]]} for row in table.to_dict("records")]
    return {
        "rows": rows,
        "has_classes": contents.task.has_classes,
        "n_inner_folds": N_INNER_FOLDS,
        "layer": str(table["layer"].iloc[0]),
    }

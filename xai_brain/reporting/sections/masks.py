"""Section of the report: performance on images that contain only, or lack, the top-ranked voxels."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import masks as mask_figures
from xai_brain.reporting.figures.style import for_screens
from xai_brain.reporting.gallery import Gallery

POSITION, TITLE, REPORTED_AS = 150, "Masks", "classes"
METRIC = "balanced_accuracy"
AREA_IN_TEXT = 10.0  # percent; the text gives the results for the nearest area


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Curves by area with and without retraining, and their description."""
    table = contents.evaluation("mask_validation")
    if table is None:
        return None
    tested = table.loc[table["control"] != "none", "method"].unique().tolist()
    configured = [str(name) for name in contents.setting("attribution", {})]
    methods = [m for m in configured if m in tested] + [m for m in tested if m not in configured]
    if not methods:
        return None
    whole = table[table["control"] == "none"]
    described: dict[str, Any] = {"trained": None, "again": None}
    for again in (False, True):
        rows = table[(table["control"] != "none") & (table["retrained"] == again)]
        if rows.empty:
            continue
        present = [method for method in methods if (rows["method"] == method).any()]
        both = pd.concat([whole, rows], ignore_index=True)
        figures = for_screens(mask_figures.mask_figure, both, present, contents.class_names, METRIC)
        area = min(rows["area_percent"].unique(), key=lambda percent: (abs(percent - AREA_IN_TEXT), percent))
        described["again" if again else "trained"] = {
            "figure": gallery.add("masks_retrained" if again else "masks", **figures),
            "area": area,
            "rows": [found for method in present if (found := _row(rows, method, area)) is not None],
        }
    return {
        **described,
        "whole": {row["metric"]: row for row in whole.to_dict("records")},
        "n": int(table["n_subjects"].max()),
        "removal": contents.setting("evaluation.masks.removal"),
        "n_explained": contents.setting("evaluation.masks.n_subjects"),
        "n_random": contents.setting("evaluation.masks.n_random"),
        "regions": bool((table["control"] == "regions").any()),
    }


def _row(rows: pd.DataFrame, method: str, area: float) -> dict[str, Any] | None:
    """Results for the joint mask of a method at one area, compared with random masks."""
    rows = rows[(rows["method"] == method) & (rows["area_percent"] == area) & (rows["mask"] == "joint")]
    if not (rows["control"] == "map").any():
        return None
    cells = {(row["control"], row["kept"], row["metric"]): row for row in rows.to_dict("records")}
    alone, without = cells["map", "mask", METRIC], cells["map", "complement", METRIC]
    return {
        "method": method,
        "alone": alone,
        "without": without,
        "alone_auroc": cells["map", "mask", "auroc"],
        "random_alone": cells["random", "mask", METRIC],
        "random_without": cells["random", "complement", METRIC],
        "enough": alone["above_random_ci_low"] > 0,
        "needed": without["above_random_ci_high"] < 0,
    }

"""Section of the report: what exceeds maps of networks of permuted labels, or with randomised parameters."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures.style import for_screens, method_styles
from xai_brain.reporting.figures.thresholds import threshold_figure
from xai_brain.reporting.gallery import Gallery
from xai_brain.runs.threshold_statement import RANDOMIZED, reference_of, threshold_text

POSITION, TITLE = 78, "Thresholds"
WHAT = {
    "max": "largest |value| in the brain",
    "extent": "extent of the largest cluster",
    "mass": "mass of the heaviest cluster",
}

UNITS = {"max": "× root mean square", "extent": "mm³", "mass": "× root mean square × mm³"}


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Thresholds and shares of participants above them; None without `xai-brain threshold`."""
    thresholds, maps = contents.evaluation("thresholds"), contents.evaluation("threshold_maps")
    null = contents.evaluation("threshold_null")
    if thresholds is None or maps is None or null is None:
        return None
    rows = [
        row
        for row in thresholds.dropna(subset="share").to_dict("records")
        if row["method"] in contents.methods
    ]
    if not rows:
        return None
    first, values = rows[0], {}
    for row in rows:
        own, of_null = (table[table["method"] == row["method"]] for table in (maps, null))
        row["n_empty"], row["n_maps_of_run"] = int((own["n_voxels"] == 0).sum()), len(own)
        scale = row["threshold"] or 1.0
        values[row["method"]] = (of_null[row["statistic"]] / scale, own["value"] / scale)
    charts = for_screens(threshold_figure, values, method_styles(contents.methods))
    return {
        "rows": rows,
        "what": WHAT[first["statistic"]],
        "unit": UNITS[first["statistic"]],
        "randomized": reference_of(thresholds) == RANDOMIZED,
        "statement": threshold_text(reference_of(thresholds)),
        "alpha": first["alpha"],
        "n_perm": int(first["n_perm"]),
        "cluster_forming": first["cluster_forming"] if first["statistic"] != "max" else None,
        "blocks": first["blocks"] if isinstance(first["blocks"], str) else None,
        "truth": any(row["hit"] == row["hit"] for row in rows),
        "figure": gallery.add("thresholds", **charts),
    }

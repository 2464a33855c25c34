"""Section of the report: share of the variance of maps due to participants and networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from xai_brain.io.nifti import load_img
from xai_brain.reporting.anatomy import cuts_through, underlay_of
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures import comparison as comparison_figures
from xai_brain.reporting.figures import slices
from xai_brain.reporting.figures.style import for_screens, method_styles
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.values import number
from xai_brain.statistics.colour_scale import ColourScale

POSITION, TITLE = 120, "Participant or network"
COMPONENTS = {"subject": "Participant", "model": "Model", "residual": "Residual"}


SCALINGS = {"none": "raw values", "l2": "each map divided by its L2 norm", "rank": "ranks of each map"}


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Contents of evaluation/variance.tsv; None for a single seed."""
    table = contents.evaluation("variance")
    if table is None:
        return None
    methods = list(dict.fromkeys(table["method"]))
    rows = {
        method: {row["component"]: row for row in part.to_dict("records")}
        for method, part in table.groupby("method", sort=False)
    }
    panels = {
        title: [
            {"name": method, "value": cell["share"], "low": number(cell["ci_low"]),
             "high": number(cell["ci_high"]), "chance": None}
            for method in methods if (cell := rows[method][component])["share"] == cell["share"]
        ]
        for component, title in COMPONENTS.items()
    }  # fmt: skip
    known = [method for method in methods if number(rows[method]["subject"]["share"]) is not None]
    first = rows[known[0]] if known else None
    charts = for_screens(
        comparison_figures.interval_figure, panels, method_styles(contents.methods), shares=True
    )
    shown = gallery.add("variance", **charts) if known else None
    return {
        "rows": rows,
        "columns": COMPONENTS,
        "figure": shown,
        "example": {"method": known[0], **first} if first else None,
        "about": table.iloc[0].to_dict(),
        "scaling": SCALINGS.get(str(table["scaling"].iloc[0]), str(table["scaling"].iloc[0])),
        "set_to_0": table.loc[table["set_to_0"].astype(bool), ["method", "component"]].to_dict("records"),
        "maps": _model_shares(contents, gallery, methods),
    }


def _model_shares(contents: ReportContents, gallery: Gallery, methods: list[str]) -> dict[str, Any] | None:
    paths = {method: contents.run.group_map(method, "variance-model", "share") for method in methods}
    images = {method: load_img(path) for method, path in paths.items() if path.exists()}
    if not images:
        return None
    underlay = underlay_of(contents, next(path for path in paths.values() if path.exists()))
    if underlay is None:
        return None
    point = slices.strongest_mm(list(images.values()), underlay)
    values = [slices.brain_values(img, underlay) for img in images.values()]
    scale = ColourScale.of(np.concatenate(values))
    label = "Share of the variance of the maps that is due to the model, 0 to 1"
    figures = brain_figures.slice_figures(underlay, images, cuts_through(point, underlay), scale, label=label)
    return {"figure": gallery.add("variance-model", raster=True, **figures), "limit": scale.limit}

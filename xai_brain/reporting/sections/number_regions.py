"""Section of the report: atlas regions, for a predicted number."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import regions as region_figures
from xai_brain.reporting.figures.style import class_colours, for_screens
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.sections.groups import label_of
from xai_brain.reporting.sections.regions import (
    ROWS,
    Q,
    confounds_of,
    glass_brains,
    in_order,
    region_sentences,
)
from xai_brain.statistics.continuous.regions import CONSTANT
from xai_brain.statistics.group_design import contrast_name

POSITION, TITLE, REPORTED_AS = 140, "Regions", "number"
EVERYONE = "all participants"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Strongest regions, and the association of regional values with the target."""
    top, table = contents.evaluation("region_top"), contents.evaluation("region_groups")
    if top is None or table is None:
        return None
    methods = [method for method in contents.methods if (top["method"] == method).any()]
    if not methods:
        return None
    label, colours = label_of(contents), class_colours([EVERYONE])
    figures = for_screens(
        region_figures.top_regions_figure, top.assign(**{"class": EVERYONE}), methods, colours
    )
    density = table[(table["measure"] == "mean") & table["method"].isin(methods)]
    tested = [m for m in methods if density.loc[density["method"] == m, "common_output"].eq(True).any()]
    rows = {m: in_order(density[density["method"] == m], "slope").head(ROWS) for m in tested}
    figure, atlas = glass_brains(contents, gallery, contrast_name((label,)), rows, "slope")
    return {
        "k": int(top["rank"].max()),
        "n": int(top["n"].max()),
        "top": gallery.add("regions_top", **figures),
        "figure": figure,
        "atlas": atlas,
        "confounds": confounds_of(contents, density[density["method"].isin(tested)]),
        "n_regions": density["index"].nunique(),
        "n_tested": int(density["n"].max()) if tested else 0,
        "rows": {method: shown.to_dict("records") for method, shown in rows.items()},
        "found": {m: associated_regions(table[table["method"] == m], label) for m in tested},
        "any_found": bool((density.loc[density["method"].isin(tested), "q"] <= Q).any()),
        "left_out": {method: _why_not_tested(density, method) for method in methods if method not in tested},
    }


def _why_not_tested(density: pd.DataFrame, method: str) -> str:
    own = density[density["method"] == method]
    return CONSTANT if own.empty else str(own["explained"].iloc[0])


def associated_regions(rows: pd.DataFrame, label: str) -> str:
    """Sentences that name the regions in which one method is associated with a number.

    Parameters
    ----------
    rows : DataFrame with measure, index, region, slope, p, q
    label : str
        Name of the number.
    """
    verbs = (f"is associated with {label}", f"are associated with {label}")
    return region_sentences(rows, "slope", f"with higher {label}", verbs)

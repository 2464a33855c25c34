"""Section of the report: atlas regions."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.io.nifti import is_mni152, load_img
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import regions as region_figures
from xai_brain.reporting.figures.style import class_colours
from xai_brain.reporting.gallery import Gallery
from xai_brain.runs.directory import read_json, sidecar
from xai_brain.statistics.group_design import confound_names

POSITION, TITLE = 140, "Regions"
Q = 0.05  # false discovery rate
ROWS = 10  # of the table of differences, per method


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Top regions of each class, and differences between classes for comparable maps."""
    top = contents.evaluation("region_top")
    if top is None:
        return None
    methods = [method for method in contents.methods if (top["method"] == method).any()]
    top["class"] = top["class"].astype(str)
    names = [name for name in contents.class_names if (top["class"] == name).any()]
    if not methods or not names:
        return None
    colours = {name: class_colours(contents.class_names)[name] for name in names}
    return {
        "k": int(top["rank"].max()),
        "n": top.groupby("class")["n"].max().to_dict(),
        "names": names,
        "figure": gallery.add("regions_top", region_figures.top_regions_figure(top, methods, colours)),
        "repeated": _repeated(top, methods, names),
        "comparisons": _comparisons(contents, gallery, methods),
    }


def _repeated(top: pd.DataFrame, methods: list[str], names: list[str]) -> dict[str, int]:
    """Number of regions of each method that are top regions of all classes."""
    return {
        method: len(
            set.intersection(
                *(set(top[(top["method"] == method) & (top["class"] == name)]["index"]) for name in names)
            )
        )
        for method in methods
    }


def _comparisons(contents: ReportContents, gallery: Gallery, methods: list[str]) -> list[dict[str, Any]]:
    """One entry for each pair of classes (b minus a): figures and rows of the comparable methods."""
    groups = contents.evaluation("region_groups")
    if groups is None:
        return []
    groups = groups[groups["method"].isin(methods)].astype({"class_a": str, "class_b": str})
    result = []
    for (a, b), pair in groups.groupby(["class_a", "class_b"], sort=False):
        density = pair[pair["measure"] == "mean"]
        comparable = [
            m for m in methods if density.loc[density["method"] == m, "common_output"].eq(True).any()
        ]
        images = {}
        for method in comparable:
            path = contents.run.group_map(method, f"{b}-minus-{a}", "regionmean")
            if path.exists():
                images[method] = path
        atlas = read_json(sidecar(next(iter(images.values())))).get("Atlas") if images else None
        loaded = {method: load_img(path) for method, path in images.items()}
        drawn = loaded and is_mni152(contents.run.space)
        fig = region_figures.glass_brain_figure(loaded, ROWS) if drawn else None
        result.append(
            {
                "a": a,
                "b": b,
                "confounds": _confounds(density[density["method"].isin(comparable)]),
                "atlas": atlas,
                "n_regions": density["index"].nunique(),
                "figure": gallery.add(f"regions_{b}-minus-{a}", fig, raster=True) if fig else None,
                "rows": {method: _strongest(density[density["method"] == method]) for method in comparable},
                "n_found": {
                    method: {
                        measure: int((rows["q"] <= Q).sum())
                        for measure, rows in pair[pair["method"] == method].groupby("measure")
                    }
                    for method in comparable
                },
                "left_out": {
                    method: rows["explained"].iloc[0]
                    for method, rows in density.groupby("method", sort=False)
                    if method not in comparable
                },
            }
        )
    return result


def _confounds(rows: pd.DataFrame) -> list[str]:
    """Confounds of a comparison, each once."""
    listed = rows["confounds"].dropna() if "confounds" in rows else []
    return confound_names(column for text in listed for column in str(text).split(", ") if column)


def _strongest(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return rows.sort_values(["p", "index"]).head(ROWS).to_dict("records")

"""Section of the report: differences between classes (t maps, clusters, overlap with the images)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.io.nifti import load_img
from xai_brain.reporting.anatomy import cuts_through, underlay_of
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures import comparison as comparison_figures
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.figures import slices
from xai_brain.reporting.gallery import Gallery
from xai_brain.statistics.group_design import confound_names

POSITION, TITLE = 60, "Differences between classes"
IMAGE = "image"  # name of the test of the prepared images in the tables
IMAGES = "Prepared images"
COUNTS = ("n_first", "n_second", "n_empty", "n_left_out", "dof", "n_voxels", "n_perm", "n_significant")


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Contents of evaluation/group_tests.tsv; None if no comparison was requested."""
    table = contents.evaluation("group_tests")
    if table is None:
        return None
    rows = table.astype(object).where(table.notna(), "").to_dict("records")
    made = [row for row in rows if not row["reason"]]
    shown = [_test(contents, gallery, row) for row in made]
    return {
        "shown": shown,
        "refused": [
            {**row, "method": _name(row["method"]), "difference": _words(row["comparison"])}
            for row in rows
            if row["reason"]
        ],
        "has_maps": any(row["method"] != IMAGE for row in made),
        "has_folds": any("fold=" in str(row["confounds"]) for row in made),
        "fwhm_mm": contents.setting("evaluation.group.fwhm_mm", 0),
        "scaling": contents.setting("evaluation.group.scaling", "none"),
        "overlap": _overlap(contents, gallery),
    }


def _name(method: str) -> str:
    return IMAGES if method == IMAGE else method


def _words(comparison: str) -> str:
    return " minus ".join(comparison.split("-minus-"))


def _dropped(text: str) -> str:
    """Dropped columns of confounds; folds are numbered from 1."""
    return re.sub(r"\bfold=(\d+)", lambda match: f"fold {int(match[1]) + 1}", text)


def _test(contents: ReportContents, gallery: Gallery, row: dict[str, Any]) -> dict[str, Any]:
    path = contents.run.group_map(row["method"], row["comparison"], "t")
    t_img, underlay = load_img(path), underlay_of(contents, path)
    if underlay is None:
        underlay = t_img
    t = np.asanyarray(t_img.dataobj)
    threshold = float(row["threshold_t"]) if row["threshold_t"] != "" else np.inf
    above = nib.Nifti1Image((np.abs(t) > threshold).astype(np.float32), t_img.affine)
    scale = slices.Scale.of(t[t != 0])
    if np.isfinite(threshold):  # the strongest colour is used for significant voxels only
        scale = slices.Scale(max(scale.limit, threshold), True)
    point = nib.affines.apply_affine(t_img.affine, np.unravel_index(np.abs(t).argmax(), t.shape))
    fig = brain_figures.slice_figure(
        underlay,
        {"t": t_img},
        cuts_through(point, underlay),
        scale,
        above if row["n_significant"] else None,
    )
    second, _, first = str(row["comparison"]).partition("-minus-")
    clusters = _clusters(contents, row)
    return {
        "name": _name(row["method"]),
        "difference": _words(row["comparison"]),
        "first": first,
        "second": second,
        "test": {**row, **{name: int(row[name]) for name in COUNTS}},
        "confounds": confound_names(c for c in str(row["confounds"]).split(", ") if c),
        "dropped": _dropped(str(row["dropped"])),
        "figure": gallery.add(f"group_{row['method']}_{row['comparison']}", fig, raster=True),
        "files": contents.files(*(str(each.relative_to(contents.run.path)) for each in _maps(contents, row))),
        "point": [round(float(mm)) for mm in point],
        "clusters": clusters,
        "has_regions": any(cluster.get("region") for cluster in clusters),
    }


def _maps(contents: ReportContents, row: dict[str, Any]) -> list[Path]:
    """Statistical maps of a test; the maps of regions belong to another section."""
    return [
        contents.run.group_map(row["method"], row["comparison"], stat)
        for stat in ("t", "difference", "logpfwe")
    ]


def _clusters(contents: ReportContents, row: dict[str, Any]) -> list[dict[str, Any]]:
    table = contents.evaluation("group_clusters")
    if table is None:
        return []
    rows = table[(table["method"] == row["method"]) & (table["comparison"] == row["comparison"])]
    rows = rows.assign(p=10 ** -rows["logp_fwe"].astype(float)).astype(object)
    return rows.where(rows.notna(), None).to_dict("records")


def _overlap(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    table = contents.evaluation("group_overlap")
    if table is None:
        return None
    at_ten = table[(table["metric"] != "dice") | (table["top_percent"] == 10)]
    names = {"t": "t", "difference": "difference of the means"}
    rows = [
        {
            "method": method,
            "difference": _words(comparison),
            "map": names[what],
            **dict(zip(part["metric"], part["value"], strict=True)),
        }
        for (method, comparison, what), part in at_ten.groupby(["method", "comparison", "map"], sort=False)
    ]
    curves = table[(table["metric"] == "dice") & (table["map"] == "t")]
    lines = {
        f"{method}, {_words(comparison)}" if table["comparison"].nunique() > 1 else method: part
        for (method, comparison), part in curves.groupby(["method", "comparison"], sort=False)
    }
    fig = comparison_figures.curve_figure(
        {name: (part["top_percent"], part["value"]) for name, part in lines.items()},
        figures.method_colours(list(lines)),
    )
    chance: pd.Series = at_ten.groupby("metric")["chance"].mean()
    return {"rows": rows, "chance": chance.to_dict(), "figure": gallery.add("group_overlap", fig)}

"""Section of the report: group tests of classes or a number (t maps, clusters, overlap with images)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from xai_brain.io.nifti import load_img
from xai_brain.reporting.anatomy import cuts_through, underlay_of
from xai_brain.reporting.brain_size import confounds_in_words
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures import comparison as comparison_figures
from xai_brain.reporting.figures.style import LINES, for_screens, method_styles
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.wording import contrast_in_words, listed
from xai_brain.statistics.cluster_tables import significant_clusters
from xai_brain.statistics.colour_scale import ColourScale
from xai_brain.statistics.group_design import confound_names

POSITION, TITLE, REPORTED_AS = 60, "Differences between classes", "classes"
IMAGE = "image"  # name of the test of the prepared images in the tables
IMAGES = "Prepared images"
STATISTICS = {"t": "t", "difference": "difference of the means", "slope": "slope"}
NAMED = 10  # regions that are named in a sentence
COUNTS = (
    *(
        "n_first",
        "n_second",
        "n_subjects",
        "n_empty",
        "n_left_out",
        "dof",
        "n_voxels",
        "n_perm",
        "n_significant",
    ),
    *("min_cluster_voxels", "n_small_clusters"),
)


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
        "refused": refused_comparisons(rows, label_of(contents)),
        "dropped": dropped_confounds(made),
        "has_maps": any(row["method"] != IMAGE for row in made),
        "has_folds": any("fold=" in str(row["confounds"]) for row in made),
        "fwhm_mm": contents.setting("evaluation.group.fwhm_mm", 0),
        "scaling": contents.setting("evaluation.group.scaling", "none"),
        "overlap": _overlap(contents, gallery),
    }


def _name(method: str) -> str:
    return IMAGES if method == IMAGE else method


def label_of(contents: ReportContents) -> str:
    """Name of the predicted number or of the column of the classes."""
    return str(contents.setting("data.label", "the target"))


def refused_comparisons(rows: list[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    """Comparisons that were not made: each reason once, with its methods."""
    methods: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["reason"]:
            methods.setdefault((row["comparison"], row["reason"]), []).append(_name(row["method"]))
    return [
        {
            "methods": names,
            "difference": contrast_in_words(comparison, label) if comparison else "",
            "reason": reason,
        }
        for (comparison, reason), names in methods.items()
    ]


def dropped_confounds(rows: list[dict[str, Any]]) -> list[str]:
    """Dropped columns of confounds, each text once, with the tests in brackets if it does not hold for all.

    Folds are numbered from 1.
    """
    tests: dict[str, list[str]] = {}
    for row in rows:
        if text := re.sub(r"\bfold=(\d+)", lambda match: f"fold {int(match[1]) + 1}", str(row["dropped"])):
            tests.setdefault(text, []).append(_name(row["method"]))
    of_all = len(rows)
    return [
        text if len(names) == of_all else f"{text} ({listed(dict.fromkeys(names))})"
        for text, names in tests.items()
    ]


def significance(row: dict[str, Any], n_clusters: int) -> str:
    """What is significant in a test, in words.

    Parameters
    ----------
    row : dict
        Row of group_tests.tsv.
    n_clusters : int
        Significant clusters of at least ``min_cluster_voxels`` voxels.
    """
    n, least, level = int(row["n_significant"]), int(row["min_cluster_voxels"]), f"{row['alpha']:g}"
    if n_clusters:
        clusters = "1 significant cluster" if n_clusters == 1 else f"{n_clusters} significant clusters"
        return f"{clusters} (family-wise p ≤ {level}, at least {least} voxels)"
    if n:
        alone = "1 scattered voxel is" if n == 1 else f"{n} scattered voxels are"
        return f"No cluster of at least {least} voxels is significant (family-wise p ≤ {level}); {alone}"
    what = "an association" if "n_subjects" in row else "a difference"
    return f"No voxel is significant (family-wise p ≤ {level}): no evidence of {what}"


def _test(contents: ReportContents, gallery: Gallery, row: dict[str, Any]) -> dict[str, Any]:
    path = contents.run.group_map(row["method"], row["comparison"], "t")
    t_img, underlay = load_img(path), underlay_of(contents, path)
    if underlay is None:
        underlay = t_img
    t = np.asanyarray(t_img.dataobj)
    threshold = float(row["threshold_t"]) if row["threshold_t"] != "" else np.inf
    voxels, _ = significant_clusters(t, threshold, int(row["min_cluster_voxels"]))
    scale, ends = ColourScale(ColourScale.of(t[t != 0]).limit, signed=True), brain_figures.ENDS
    if np.isfinite(threshold) and threshold > scale.limit:  # only significant voxels have the last colour
        scale, ends = ColourScale(threshold, signed=True), f"ends at family-wise p = {row['alpha']:g}"
    point = nib.affines.apply_affine(t_img.affine, np.unravel_index(np.abs(t).argmax(), t.shape))
    second, _, first = str(row["comparison"]).partition("-minus-")
    words = contrast_in_words(str(row["comparison"]), label_of(contents))
    label = f"t, {words}, {int(row['dof'])} degrees of freedom"
    outline = nib.Nifti1Image(voxels.astype(np.float32), t_img.affine) if voxels.any() else None
    cuts = cuts_through(point, underlay)
    clusters = _clusters(contents, row)
    n_clusters = sum(ndimage.label(voxels & sign)[1] for sign in (t > 0, t < 0))
    finding = significance(row, n_clusters)
    figures = brain_figures.slice_figures(
        underlay, {"t": t_img}, cuts, scale, outline, label=label, ends=ends, note=f"{finding}."
    )
    return {
        "name": _name(row["method"]),
        "difference": words,
        "first": first,
        "second": second,
        "test": {**row, **{name: int(row[name]) for name in COUNTS if name in row}},
        "confounds": confounds_in_words(
            contents, confound_names(c for c in str(row["confounds"]).split(", ") if c)
        ),
        "finding": finding,
        "regions": _regions(clusters),
        "figure": gallery.add(f"group_{row['method']}_{row['comparison']}", raster=True, **figures),
        "files": contents.files(*(str(each.relative_to(contents.run.path)) for each in _maps(contents, row))),
        "point": [round(float(mm)) for mm in point],
        "outlined": outline is not None,
        "clusters": clusters,
        "has_regions": any(cluster.get("region") for cluster in clusters),
    }


def _regions(clusters: list[dict[str, Any]]) -> str:
    """Names of the regions of the peaks of clusters, each once."""
    names = list(dict.fromkeys(str(cluster["region"]) for cluster in clusters if cluster.get("region")))
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return listed([*names[:NAMED], *more])


def _maps(contents: ReportContents, row: dict[str, Any]) -> list[Path]:
    """Statistical maps of a test; the maps of regions belong to another section."""
    return [
        contents.run.group_map(row["method"], row["comparison"], stat)
        for stat in ("t", "difference", "slope", "logpfwe")
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
    rows = [
        {
            "method": method,
            "difference": contrast_in_words(comparison, label_of(contents)),
            "map": STATISTICS[what],
            **dict(zip(part["metric"], part["value"], strict=True)),
        }
        for (method, comparison, what), part in at_ten.groupby(["method", "comparison", "map"], sort=False)
    ]
    curves = table[(table["metric"] == "dice") & (table["map"] == "t")]
    comparisons, own = (
        list(table["comparison"].unique()),
        method_styles([*contents.methods, *curves["method"]]),
    )
    lines, styles = {}, {}
    for (method, comparison), part in curves.groupby(["method", "comparison"], sort=False):
        name = f"{method}, {contrast_in_words(comparison)}" if len(comparisons) > 1 else method
        lines[name] = part["top_percent"], part["value"]
        different = {"linestyle": LINES[comparisons.index(comparison) % len(LINES)]}
        styles[name] = own[method] | (different if len(comparisons) > 1 else {})
    figures = for_screens(comparison_figures.curve_figure, lines, styles)
    chance: pd.Series = at_ten.groupby("metric")["chance"].mean()
    return {"rows": rows, "chance": chance.to_dict(), "figure": gallery.add("group_overlap", **figures)}

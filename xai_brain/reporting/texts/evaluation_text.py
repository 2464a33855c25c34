"""Sentences for the methods section of a paper about the evaluation of maps and the tests of groups."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from xai_brain.io.nifti import parse_entities
from xai_brain.metrics.table import METRICS
from xai_brain.reporting.brain_size import confounds_in_words
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.wording import contrast_in_words, listed
from xai_brain.runs.contents import IMAGE
from xai_brain.runs.directory import read_json, sidecar
from xai_brain.runs.group_maps import find_group_maps
from xai_brain.statistics.group import BRAIN_SHARE
from xai_brain.statistics.group_design import confound_names

SCALINGS = {"l2": "divided by its root mean square", "rank": "replaced by ranks"}


def localisation(contents: ReportContents) -> str:
    """Scores of a known location, and the report card."""
    text = []
    if not contents.summary("localization").empty:
        text.append(
            "Localisation of the planted effect was measured inside the brain by relevance rank accuracy "
            "(share of the K strongest voxels that lie inside the effect of K voxels), relevance mass "
            "accuracy (share of the sum of |value| that lies inside the effect; Arras 2022) and the "
            "pointing game (share of maps whose strongest voxel lies inside the effect; Zhang 2018)."
        )
    card = contents.evaluation("report_card")
    if card is not None:
        used = [metric for metric in METRICS.values() if (card["metric"] == metric.name).any()]
        meanings = "; ".join(f"{metric.title}: {metric.description}" for metric in used)
        text.append(f"The report card contains the following metrics. {meanings}.")
    return " ".join(text)


def agreement(contents: ReportContents) -> str:
    """Comparison of methods with each other."""
    table = contents.summary("agreement")
    if table.empty:
        return ""
    percents = sorted(table.loc[table["metric"] == "dice", "top_percent"].dropna().unique())
    strongest = (
        f"the strongest {listed(f'{percent:g}' for percent in percents)} % of voxels"
        if percents
        else "voxels"
    )
    return (
        "Agreement between methods was measured inside the brain by the Dice coefficient and the "
        f"intersection over union of {strongest} by absolute value, by Spearman’s ρ of absolute values and "
        "by the cosine of signed values, as means over participants."
    )


def group_test(contents: ReportContents) -> str:
    """Model, confounds, permutations and correction of the voxel-wise test."""
    table = contents.evaluation("group_tests")
    if table is None or table["reason"].isna().sum() == 0:
        return ""
    rows = table[table["reason"].isna()]
    first, settings = rows.iloc[0], contents.setting("evaluation.group", {}) or {}
    compared = [name for name in rows["method"].unique() if name != IMAGE]
    label = str(contents.setting("data.label", "the target"))
    differences = listed(contrast_in_words(str(text), label) for text in rows["comparison"].unique())
    explained = rows["explains"].dropna().unique() if "explains" in rows else []
    output = f", which explain one output for all participants ({listed(explained)})," * bool(len(explained))
    objects = [f"the maps of {listed(compared)}{output}"] if compared else []
    objects += ["the prepared images"] if (rows["method"] == IMAGE).any() else []
    confounds = _confounds(contents, rows[rows["method"] != IMAGE]) + _confounds_of_images(contents, rows)
    classes = contents.task.has_classes
    tested = f"Classes were compared ({differences})" if classes else (
        f"The association with {label} over participants was tested"
    )  # fmt: skip
    text = [
        f"{tested} at each voxel in {' and in '.join(objects)}. A general "
        f"linear model with {'the class' if classes else label} as the regressor of interest and "
        f"{confounds} was fitted to one map of "
        "each participant, the mean over seeds and "
        f"sessions{_smoothing(settings.get('fwhm_mm') or 0, settings.get('scaling', 'none'))}. Two-sided p "
        f"values of the t statistic were obtained from {int(first['n_perm'])} permutations of the residuals "
        f"of the model without {'the class' if classes else label} (Freedman & Lane 1983; Winkler 2014) and "
        "corrected for all voxels "
        f"by the distribution of the maximum of |t| (family-wise error rate {first['alpha']:g})"
        f"{_not_corrected(len(compared), rows['comparison'].nunique())}. Voxels "
        f"were tested that lie in the brains of at least {100 * BRAIN_SHARE:g} % of the participants "
        f"({int(first['n_voxels'])} voxels)."
    ]
    if settings.get("tfce"):
        text.append("Threshold-free cluster enhancement (Smith & Nichols 2009) was computed in addition.")
    if settings.get("cluster_p"):
        text.append(f"Clusters were formed at an uncorrected p of {settings['cluster_p']:g}.")
    return " ".join(text)


def region_test(contents: ReportContents) -> str:
    """Atlas, and the comparison of classes in its regions."""
    regions = contents.evaluation("regions")
    if regions is None:
        return ""
    filled = regions.loc[regions["n_voxels"] > 0, "index"] if "n_voxels" in regions else regions["index"]
    n_empty = regions["index"].nunique() - filled.nunique()
    without = f"; {n_empty} further region{'s have' if n_empty > 1 else ' has'} no such voxel" * bool(n_empty)
    text = [
        f"The mean of each map was computed in {filled.nunique()} regions of the atlas "
        f"{atlas_name(contents)}, resampled to the grid of the maps, for voxels that lie in most "
        f"brains{without}."
    ]
    groups = contents.evaluation("region_groups")
    tested = groups[groups["common_output"].eq(True)] if groups is not None else pd.DataFrame()
    if len(tested):
        n_pairs = 1
        if contents.task.has_classes:
            pairs = sorted({f"{row.class_b} minus {row.class_a}" for row in tested.itertuples()})
            what, n_pairs = f"compared between the classes ({listed(pairs)}) by", len(pairs)
        else:
            what = f"tested for an association with {contents.setting('data.label', 'the target')} by"
        text.append(
            f"Regional means and shares of the map were {what} "
            f"a linear model with {_confounds(contents, tested)}; two-sided p values come from "
            f"{contents.setting('evaluation.n_perm', 10_000)} permutations of residuals within folds "
            "(Freedman & Lane 1983; Winkler 2014), q values control the false discovery rate over the "
            "regions of one method (Benjamini & Hochberg 1995)"
            f"{_not_corrected(tested['method'].nunique(), n_pairs)}, "
            "and intervals were bootstrapped over "
            f"participants within {'classes and ' * contents.task.has_classes}folds."
        )
    return " ".join(text)


def other_analyses(contents: ReportContents) -> str:
    """Masks, variance and the first layer."""
    text = []
    if contents.evaluation("mask_validation") is not None:
        areas = contents.setting("evaluation.masks.areas", [])
        text.append(
            "Networks were tested on images that contain only, or lack, the strongest voxels of the mean "
            f"maps of training participants ({listed(f'{area:g}' for area in areas)} % of the brain), and "
            "on images with random masks of the same size and smoothness"
            + ("; networks were also retrained on masked images (Hooker 2019)." if
               contents.setting("evaluation.masks.retrain") else " (Hooker 2019).")
        )  # fmt: skip
    if contents.evaluation("variance") is not None:
        text.append(
            "The variance of maps was divided into shares of participant, model and residual by a two-way "
            "analysis of variance within folds."
        )
    if contents.evaluation("first_layer_networks") is not None:
        text.append(
            "Mean and histogram entropy of the feature maps of the first layer were compared between "
            "classes by Welch tests with a false discovery rate of 0.05 over channels (Benjamini & Hochberg "
            "1995), as in Kan 2020, and "
            "with permuted labels."
        )
    return " ".join(text)


def atlas_name(contents: ReportContents) -> str:
    """Name of the atlas, from the sidecars of regional maps or the name of its file."""
    for each in find_group_maps(contents.run, statistic="regionmean"):
        if name := read_json(sidecar(each.path)).get("Atlas"):
            return str(name)
    file = Path(str(contents.setting("evaluation.atlas", "")))
    return parse_entities(file).get("atlas") or file.name.split(".")[0]


def _confounds(contents: ReportContents, rows: pd.DataFrame) -> str:
    listed_columns = rows["confounds"].dropna() if "confounds" in rows else []
    names = confound_names(name for text in listed_columns for name in str(text).split(", ") if name)
    shown = confounds_in_words(contents, names)
    return f"the confounds {listed(shown)}" if shown else "no confounds"


def _confounds_of_images(contents: ReportContents, rows: pd.DataFrame) -> str:
    """The images do not come from the networks of folds, so that they can have fewer confounds."""
    own, others = (
        _confounds(contents, rows[(rows["method"] == IMAGE) == images]) for images in (True, False)
    )
    return f", for the images {own}," if own != others and (rows["method"] == IMAGE).any() else ""


def _not_corrected(n_methods: int, n_pairs: int) -> str:
    """That several methods or pairs of classes were tested, which the thresholds do not consider."""
    others = [f"the {n_methods} methods"] * (n_methods > 1)
    others += [f"the {n_pairs} pairs of classes"] * (n_pairs > 1)
    return f", without correction over {listed(others)}" if others else ""


def _smoothing(fwhm_mm: float, scaling: str) -> str:
    parts = [f"smoothed with {fwhm_mm:g} mm FWHM inside the brain"] if fwhm_mm else []
    parts += [SCALINGS[scaling]] if scaling in SCALINGS else []
    return f", {listed(parts)}" if parts else ""

"""Sentences about the design of a study, from its settings: preparation of the images, folds."""

from __future__ import annotations

from xai_brain.io.nifti import GRIDS
from xai_brain.reporting.contents import ReportContents

STANDARDISED = {
    "mean": "subtracting the mean of the training participants at each voxel",
    "zscore": "z-scoring each voxel with the mean and standard deviation of the training participants",
}


def origin(contents: ReportContents) -> str | None:
    """First line of the report and of its methods paragraph; None for a study without a planted effect."""
    kind = contents.setting("planted.kind")
    if contents.setting("data.layout") == "synthetic":
        settings = contents.setting("data.cohort", {}) or {}
        changes = [settings.get(f"effect_{what}_change") or 0 for what in ("volume", "intensity")]
        if kind is None and not any(changes):
            return "Synthetic cohort without a planted effect: simulated images, not images of people."
        return (
            "Synthetic cohort with a planted effect: simulated images, not images of people. The results "
            "show how well the methods find a known effect."
        )
    if kind is not None:
        return (
            f"Planted effect ({kind}) in the images of a cohort: the classes are assigned at random. The "
            "results show how well the methods find a known effect, and nothing about the participants."
        )
    if contents.group_truth is not None or not contents.summary("localization").empty:
        return (
            "Cohort with a planted effect: the location of the difference between the classes is known. The "
            "results show how well the methods find it."
        )
    return None


def image_preparation(contents: ReportContents) -> str:
    """How the images were prepared, as the end of the sentence "The images were ..."."""
    name = contents.setting("preprocessing.grid")
    grid = "a common grid" if name is None else name
    if name in GRIDS:
        shape = "×".join(str(n) for n in GRIDS[name].shape)
        grid = f"{shape} voxels of {GRIDS[name].spacing_mm.max():g} mm"
    space = " in MNI152 space" if contents.run.space.startswith("MNI") else ""
    if contents.setting("preprocessing") is None:
        return f"resampled to {grid}{space}"
    raw = ""
    if contents.setting("preprocessing.raw"):
        alignment = contents.setting("preprocessing.alignment", "affine")
        raw = f"prepared from raw images (brain extraction, bias field correction, {alignment} alignment), "
    how = "linear interpolation"
    if contents.setting("preprocessing.antialias"):
        how += ", smoothed against aliasing where the voxels become larger"
    return f"{raw}resampled ({how}) to {grid}{space} and {_scaling(contents)}"


def earlier_preparation(contents: ReportContents) -> str:
    """That the images were prepared with other software before; empty if they were not."""
    simulated = contents.setting("data.layout") == "synthetic"
    if simulated or contents.setting("preprocessing") is None or contents.setting("preprocessing.raw"):
        return ""
    if not contents.run.space.startswith("MNI"):
        return "Brain extraction had been done before, with other software [to be added]."
    rigid = "rigid " if contents.setting("preprocessing.alignment") == "rigid" else ""
    return (
        f"Brain extraction and {rigid}alignment to MNI152 space had been done before, with other software "
        "[to be added]."
    )


def _scaling(contents: ReportContents) -> str:
    median = contents.setting("preprocessing.brain_median")
    unscaled = f"scaled to a median of {median:g} inside the brain" if median else "not scaled in intensity"
    texts = {
        "zscore": "z-scored inside the brain",
        "percentile": "scaled linearly (1st percentile inside the brain to 0, 99th percentile to 1, "
        "values beyond them clipped)",
        "quantile": "scaled such that the 1st to 99th percentiles inside the brain are those of a standard "
        "normal distribution (values beyond them clipped)",
        "none": unscaled,
    }
    scaling = contents.setting("preprocessing.scaling")
    return texts.get(scaling, f"scaled by {scaling}")


def standardisation(contents: ReportContents) -> str:
    """Standardisation of the inputs inside the network; empty if there is none."""
    return STANDARDISED.get(contents.setting("trainer.standardize", ""), "")


def class_balance(contents: ReportContents) -> str:
    """How unequal numbers of images of the classes were balanced in training; empty if they were not."""
    counted = "the numbers of training images of each fold"
    if contents.setting("trainer.class_weights"):
        return f"The loss was weighted such that all classes contribute equally, by {counted}."
    if contents.setting("trainer.sampling"):
        return f"Every epoch contained equally many images of each class, drawn by {counted}."
    return ""


def fold_design(contents: ReportContents) -> str:
    """How participants were divided, as in the methods section of a paper."""
    kind, group = contents.setting("folds.kind", "stratified"), contents.setting("folds.group_column")
    by = f"participant and {group}" if group else "participant"
    if contents.setting("folds.path"):
        return f"on given folds, split by {by}"
    if kind == "column":
        column = contents.setting("folds.column")
        return f"in cross-validation that leaves out one value of {column} at a time, split by {by}"
    if kind == "hold_out":
        return f"and tested on a held-out part, stratified and split by {by}"
    n_folds, n_repeats = contents.setting("folds.n_folds"), contents.setting("folds.n_repeats", 1)
    repeated = f", repeated {n_repeats} times" if n_repeats > 1 else ""
    if (only := contents.setting("folds.only")) is not None:
        repeated += f" (fold {only + 1} only)"
    count = f"{n_folds}-fold " if n_folds else ""
    return f"in {count}cross-validation{repeated}, stratified and split by {by}"

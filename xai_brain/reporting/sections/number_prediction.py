"""Section of the report: predicted numbers with intervals, and baselines on the same folds."""

from __future__ import annotations

from typing import Any

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import continuous as figures
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.number_verdict import baseline_rows, number_scores
from xai_brain.reporting.sections.baseline import HARMONIZED, chosen_networks

POSITION, TITLE, REPORTED_AS = 20, "Prediction", "number"
WORDS = {
    "network": "network",
    "network_calibrated": "network, linear calibration",
    "network_bias_corrected": "network, bias towards the mean corrected",
    "mean": "mean of the training participants",
    "brain_size": "brain size only",
    "ridge": "ridge regression on voxels",
    "pca_ridge": "PCA, ridge regression",
    "linear_svr": "linear SVR on voxels",
    "chosen_network": "network chosen in each fold",
}


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    predictions, task = contents.predictions, contents.task
    known = None if predictions is None else predictions[task.is_known(predictions["target"].to_numpy())]
    chance = task.chance_levels(None if known is None else known["target"].tolist())
    rows = {
        title: estimate
        for score, title in task.score_titles.items()
        if (contents.n_networks is None or score.endswith("_pooled"))  # without folds both are equal
        and (estimate := contents.estimate(f"test/{score}", chance.get(score))) is not None
    }
    if predictions is None or not task.columns:
        return None
    label, drawn = str(contents.setting("data.label", "target")), None
    if known is not None and len(known):
        drawn = gallery.add("prediction", figures.scatter_figure(known, task.columns[0], label))
    return {
        "rows": rows,
        "label": label,
        "scores": number_scores(contents),
        "n": predictions["participant_id"].nunique(),
        "n_predictions": len(predictions),
        "n_folds": predictions["fold"].nunique() if "fold" in predictions else None,
        "figure": drawn,
        "baselines": baseline_rows(contents, words_of),
        "chosen": chosen_networks(contents, words_of),
    }


def words_of(name: str) -> str:
    """Name of a regressor in the report."""
    for method, words in HARMONIZED.items():
        if name.endswith(f"_{method}"):
            return f"{words_of(name.removesuffix(f'_{method}'))}, {words}"
    if name.endswith("_ensemble"):
        return f"{words_of(name.removesuffix('_ensemble'))}, mean of seeds"
    return WORDS.get(name, name.replace("_", " "))

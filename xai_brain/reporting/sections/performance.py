"""Section of the report: predictions, with intervals."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.figures.style import for_screens
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.wording import fixed

POSITION, TITLE, REPORTED_AS = 20, "Prediction", "classes"


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    predictions, names = contents.predictions, contents.class_names
    known = predictions is not None and bool((predictions["target"] >= 0).all())
    task = contents.task
    chance = task.chance_levels(None if predictions is None else predictions["target"])
    rows = {
        title: contents.estimate(f"test/{score}", chance.get(score))
        for score, title in task.score_titles.items()
        if contents.n_networks is None or score != "auroc"  # without folds it equals the pooled one
    }
    rows = {name: estimate for name, estimate in rows.items() if estimate is not None}
    if not rows and predictions is None:
        return None
    area = task.score_titles.get(contents.auroc)
    area = area if area in rows else None
    result: dict[str, Any] = {"rows": rows, "auroc_title": area, "figures": None}
    result["networks"] = contents.count_networks()
    result["classes"] = [] if predictions is None else class_rows(contents, predictions)
    balanced = (contents.setting(f"trainer.{name}") for name in ("class_weights", "sampling"))
    result["weighted"] = any(balanced)
    if predictions is not None:
        result["n"] = predictions["participant_id"].nunique()
        result["n_networks"] = contents.n_networks
        agreement = predictions.get("networks_agree")
        result["agreement"] = float(agreement.mean()) if agreement is not None else None
        result["known"] = known
    if predictions is not None and len(names) > 1 and predictions["target"].nunique() > 1:
        pooled = rows.get(task.score_titles["auroc_pooled"])
        title = task.score_titles["auroc_pooled"]
        label = f"{title}: {fixed(pooled.value)}" if pooled else title
        result["figures"] = [
            gallery.add("performance", **for_screens(figures.performance_figure, predictions, names, label)),
            gallery.add("probabilities", **for_screens(figures.probability_figure, predictions, names)),
        ]
        result["n_predictions"] = len(predictions)
    return result


def class_rows(contents: ReportContents, predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """Number of participants and scores of each class; empty for two classes, which have one AUROC."""
    scores = ["auroc", "auroc_pooled", "sensitivity"]
    if contents.n_networks is not None or contents.auroc == "auroc_pooled":  # equal, or not defined
        scores.remove("auroc")
    n_of_class = predictions.drop_duplicates("participant_id")["target"].value_counts()
    rows = []
    for k, name in enumerate(contents.class_names):
        found = {score: contents.estimate(f"test/{score}/{name}") for score in scores}
        if any(found.values()):
            rows.append({"name": name, "n": int(n_of_class.get(k, 0)), "scores": found})
    return rows

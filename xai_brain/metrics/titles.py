"""Titles of the figures of metrics.json, for people."""

from __future__ import annotations

from collections.abc import Mapping

from xai_brain.metrics.table import METRICS

OTHERS = {"auroc_size_matched": "AUROC, matched for brain size"}
CLASS_SCORES = {"auroc": "AUROC", "auroc_pooled": "AUROC, pooled", "sensitivity": "Sensitivity"}


def figure_title(name: str, score_titles: Mapping[str, str]) -> str:
    """Title of a figure of metrics.json and what it describes; the name itself if there is no title.

    Parameters
    ----------
    name : str
        Such as ``test/auroc`` or ``localization/GradCAM/rra``.
    score_titles : mapping of str to str
        Titles of the scores of the task.

    Examples
    --------
    >>> figure_title("localization/GradCAM/rra", {})
    'Relevance rank accuracy: GradCAM'
    >>> figure_title("test/sensitivity/MCI", {})
    'Sensitivity: MCI'
    >>> figure_title("baseline/rbf_svm/auroc", {"auroc": "AUROC, mean over folds"})
    'AUROC, mean over folds: rbf_svm'
    """
    _, _, rest = name.partition("/")
    item, _, metric = rest.rpartition("/")
    if name.startswith("test/") and item in CLASS_SCORES:  # of one class
        return f"{score_titles.get(item, CLASS_SCORES[item])}: {metric}"
    title = score_titles.get(metric) or OTHERS.get(metric)
    if title is None and metric in METRICS:
        title = METRICS[metric].title
    return name if title is None else f"{title}: {item}" if item else title

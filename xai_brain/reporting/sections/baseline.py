"""Section of the report: baselines on the same folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pandas as pd

from xai_brain.metrics.titles import OTHERS
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import comparison as comparison_figures
from xai_brain.reporting.figures.style import SOFT, for_screens
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.values import Estimate, number
from xai_brain.reporting.wording import compared, fixed
from xai_brain.statistics.matching import MATCHED, missing_interval

POSITION, TITLE, REPORTED_AS = 40, "Baselines", "classes"
BASELINE_WORDS = {
    "brain_size": "brain size only",
    "pca_logistic": "PCA, logistic regression",
    "linear_svm": "linear SVM on voxels",
    "rbf_svm": "RBF SVM on voxels",
    "slabs3": "2-D network, slabs of 3",
    "slabs5": "2-D network, slabs of 5",
}

HARMONIZED = {"combat": "ComBat", "residualize": "confounds removed"}  # ends of names


def section(contents: ReportContents, gallery: Gallery) -> dict[str, Any] | None:
    """Comparison of the networks with the baselines, from evaluation/baselines.tsv."""
    table = contents.evaluation("baselines")
    if table is None:
        return None
    names = [name for name in table["name"].unique() if name != "network"]
    others = [name for name in names if name not in ("network_ensemble", "chosen_network")]
    if not others:
        return None
    # a fold that tests one class has no AUROC, and then there is no mean over folds
    in_folds = table.loc[table["metric"] == "auroc", "value"].notna().all()
    area = "auroc" if in_folds else "auroc_pooled"
    best = max(others, key=lambda name: _cell(table, name, area).value)
    titles = {
        area: contents.task.score_titles[area],
        "balanced_accuracy": "Balanced accuracy",
        "brier": "Brier score",
    }
    if table.loc[table["metric"] == MATCHED, "ci_low"].notna().any():  # too few pairs: in the text only
        titles[MATCHED] = OTHERS[MATCHED]
    chance = contents.task.chance_levels()
    there = [name for name in ("network", *names) if name in set(table["name"])]
    shown = {name: _in_words(name) for name in there}
    panels = {
        title: [
            {"name": shown[name], **asdict(_cell(table, name, metric, chance.get(metric)))}
            for name in there
            if metric in set(table.loc[table["name"] == name, "metric"])
        ]
        for metric, title in titles.items()
    }
    rows = [
        {
            "name": shown[name],
            "n": int(_row(table, name, area)["n_subjects"]),
            "cells": [_cell(table, name, metric) if _has(table, name, metric) else None for metric in titles],
            "auroc": _difference(table, name, area),
            "accuracy": _difference(table, name, "accuracy"),
        }
        for name in there
    ]
    drawn = dict(list(panels.items())[:2] + list(panels.items())[3:])  # the Brier score has no common chance
    styles = {shown[name]: {"color": SOFT} for name in names}
    n_matched = table.loc[table["metric"] == MATCHED, "n_subjects"].max()
    return {
        "titles": list(titles.values()),
        "auroc_title": titles[area],
        "rows": rows,
        "figure": gallery.add("baselines", **for_screens(comparison_figures.interval_figure, drawn, styles)),
        "brain_size": _cell(table, "brain_size", area, chance[area]) if "brain_size" in names else None,
        "size_test": _difference(table, "brain_size", area) if "brain_size" in names else None,
        "best": {"name": shown[best], "is_brain_size": best == "brain_size",
                 "estimate": _cell(table, best, area, chance[area]),
                 "test": _difference(table, best, area)},
        "tested": "network" in there,
        "averaged": any(name.endswith("_ensemble") for name in names),
        "chosen": chosen_networks(contents, _in_words),
        "n_pairs": int(n_matched // 2) if number(n_matched) else None,
        "too_few": missing_interval(n_matched // 2) if number(n_matched) else None,
        "matched": _cell(table, "network", MATCHED, chance[MATCHED])
        if _has(table, "network", MATCHED) else None,
    }  # fmt: skip


def chosen_networks(contents: ReportContents, words: Callable[[str], str]) -> str | None:
    """In how many folds each kind of network was selected, from evaluation/chosen_network.tsv."""
    choices = contents.evaluation("chosen_network")
    if choices is None:
        return None
    counts = choices[choices["chosen"]]["name"].value_counts()
    return ", ".join(f"{words(str(name))} in {n}" for name, n in counts.items())


def _in_words(name: str) -> str:
    """Name of a classifier in the report."""
    for method, words in HARMONIZED.items():
        if name.endswith(f"_{method}"):
            return f"{_in_words(name.removesuffix(f'_{method}'))}, {words}"
    if name.endswith("_ensemble"):
        return f"{_in_words(name.removesuffix('_ensemble'))}, mean of seeds"
    return BASELINE_WORDS.get(name, name.replace("_", " "))


def _has(table: pd.DataFrame, name: str, metric: str) -> bool:
    return bool(((table["name"] == name) & (table["metric"] == metric)).any())


def _row(table: pd.DataFrame, name: str, metric: str) -> pd.Series:
    return table[(table["name"] == name) & (table["metric"] == metric)].iloc[0]


def _cell(table: pd.DataFrame, name: str, metric: str, chance: float | None = None) -> Estimate:
    row = _row(table, name, metric)
    return Estimate(float(row["value"]), number(row["ci_low"]), number(row["ci_high"]), chance)


def _difference(table: pd.DataFrame, name: str, metric: str) -> dict[str, Any] | None:
    """Network minus baseline, with a description that follows from the interval."""
    row = _row(table, name, metric)
    if number(row["difference"]) is None:
        return None
    low, high = number(row["difference_ci_low"]), number(row["difference_ci_high"])
    p = number(row["p"])
    p_value = "–" if p is None else "< 0.001" if p < 0.001 else fixed(p)
    return {
        "value": float(row["difference"]),
        "low": low,
        "high": high,
        "p": p_value,
        "word": compared(low, high),
    }

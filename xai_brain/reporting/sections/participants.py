"""Sections of the report about participants and predictions: cohort, performance, training, baselines.

Every function takes the contents of a run and a gallery for its figures, and returns what the template
shows, or None when the run does not hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.data.folds.summary import STRONG_DIFFERENCE
from xai_brain.reporting.contents import RunContents
from xai_brain.reporting.figures import comparison as comparison_figures
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.values import Estimate, number
from xai_brain.runs.directory import read_tsv

BASELINE_WORDS = {
    "brain_size": "brain size alone",
    "pca_logistic": "PCA, logistic regression",
    "linear_svm": "linear SVM on voxels",
    "rbf_svm": "RBF SVM on voxels",
    "slabs3": "2-D network, slabs of 3",
    "slabs5": "2-D network, slabs of 5",
}


def cohort(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    cohort_table = contents.participants
    if cohort_table is None or "label" not in cohort_table:
        return None
    size = contents.setting("data.brain_size_column")
    columns = {"age": "age (years)"} if _numeric(cohort_table, "age") else {}
    if size and _numeric(cohort_table, size):
        columns[size] = f"brain size ({size})"
    cohort_table = cohort_table.drop_duplicates("participant_id")
    there = set(cohort_table["label"])
    names = [name for name in contents.class_names if name in there] or sorted(there)
    rows = [_described(cohort_table[cohort_table["label"] == name], name, columns) for name in names]
    differences = {c: _standardised_difference(cohort_table, c, names) for c in columns if len(names) == 2}
    return {
        "n": cohort_table["participant_id"].nunique(),
        "columns": columns,
        "rows": [*rows, _described(cohort_table, "all", columns)],
        "differences": differences,
        "sites": cohort_table["site"].dropna().astype(str).value_counts().to_dict()
        if "site" in cohort_table
        else {},
        "figure": gallery.add("cohort", figures.cohort_figure(cohort_table, columns, names))
        if columns
        else None,
        "quarantine": contents.quarantine,
        "folds": _folds(contents),
        "apart": _apart(contents, differences),
    }


def _apart(contents: RunContents, differences: dict[str, float | None]) -> dict[str, float]:
    """In what classes differ strongly: what training found, of other runs what their tables say."""
    found = {name: abs(value) for name, value in differences.items() if value is not None}
    of_training = contents.metrics.items()
    found |= {key.removeprefix("confound/"): v for key, v in of_training if key.startswith("confound/")}
    return {name: value for name, value in found.items() if value > STRONG_DIFFERENCE}


def _folds(contents: RunContents) -> list[dict[str, Any]]:
    """Rows of fold_summary.tsv; folds count from 1."""
    path = contents.run.fold_summary
    if not path.exists():
        return []
    table = read_tsv(path)
    return table.assign(fold=table["fold"] + 1).fillna("–").to_dict("records")


def _numeric(table: pd.DataFrame, column: str) -> bool:
    return column in table and bool(pd.to_numeric(table[column], errors="coerce").notna().any())


def _described(cohort_table: pd.DataFrame, name: str, columns: dict[str, str]) -> dict[str, Any]:
    cells = []
    for column in columns:
        values = pd.to_numeric(cohort_table[column], errors="coerce").dropna()
        digits = 1 if len(values) and values.abs().max() < 1000 else 0
        spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
        shown = f"{values.mean():.{digits}f}{spread} ({values.min():.{digits}f} to {values.max():.{digits}f})"
        cells.append(shown if len(values) else "–")
    return {"name": name, "n": cohort_table["participant_id"].nunique(), "cells": cells}


def _standardised_difference(cohort_table: pd.DataFrame, column: str, names: Sequence[str]) -> float | None:
    """Cohen's d, second class minus first."""
    first, second = (
        pd.to_numeric(cohort_table.loc[cohort_table["label"] == name, column], errors="coerce").dropna()
        for name in names
    )
    spread = np.sqrt((first.var() + second.var()) / 2) if min(len(first), len(second)) > 1 else 0
    return number((second.mean() - first.mean()) / spread) if spread > 0 else None


def performance(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    predictions, names = contents.predictions, contents.class_names
    known = predictions is not None and bool((predictions["target"] >= 0).all())
    shares = predictions["target"].value_counts(normalize=True) if predictions is not None else None
    most_common = float(shares.max()) if shares is not None else None
    rows = {
        "AUROC, mean over folds": contents.estimate("test/auroc", 0.5),
        "AUROC, pooled": contents.estimate("test/auroc_pooled", 0.5),
        "Balanced accuracy": contents.estimate("test/balanced_accuracy", 1 / max(len(names), 2)),
        "Accuracy": contents.estimate("test/accuracy", most_common),
    }
    rows = {name: estimate for name, estimate in rows.items() if estimate is not None}
    if not rows and predictions is None:
        return None
    result: dict[str, Any] = {"rows": rows, "figures": None, "n_folds": contents.setting("folds.n_folds")}
    if predictions is not None:
        result["n"] = predictions["participant_id"].nunique()
        result["n_networks"] = contents.n_networks
        agreement = predictions.get("networks_agree")
        result["agreement"] = float(agreement.mean()) if agreement is not None else None
        result["known"] = known
    if predictions is not None and len(names) > 1 and predictions["target"].nunique() > 1:
        pooled = rows.get("AUROC, pooled")
        label = f"{pooled.value:.3f}, 95 % band" if pooled else "with 95 % band"
        drawn = (
            figures.performance_figure(predictions, names, label),
            figures.probability_figure(predictions, names),
        )
        kinds = "performance", "probabilities"
        result["figures"] = [gallery.add(kind, fig) for kind, fig in zip(kinds, drawn, strict=True)]
        result["n_predictions"] = len(predictions)
        result["n_folds"] = predictions["fold"].nunique() if "fold" in predictions else result["n_folds"]
    return result


def training(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    curves = contents.curves
    if curves is None or not {"train/loss", "val/loss", "val/auroc"} & set(curves["metric"]):
        return None
    return {
        "figure": gallery.add("training", figures.training_figure(curves, max(len(contents.class_names), 2))),
        "n": curves["run"].nunique(),
        "epochs": int(curves["epoch"].nunique()),
    }


def baseline(contents: RunContents, gallery: Gallery) -> dict[str, Any] | None:
    """The networks beside everything that is simpler, from evaluation/baselines.tsv."""
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
        area: "AUROC, mean over folds" if in_folds else "AUROC, pooled",
        "balanced_accuracy": "Balanced accuracy",
        "brier": "Brier score",
    }
    if (table["metric"] == "auroc_size_matched").any():
        titles["auroc_size_matched"] = "AUROC, matched for brain size"
    chance = {area: 0.5, "auroc_size_matched": 0.5}
    chance["balanced_accuracy"] = 1 / max(len(contents.class_names), 2)
    there = [name for name in ("network", *names) if name in set(table["name"])]
    shown = {name: _in_words(name) for name in there}
    choices = contents.evaluation("chosen_network")
    chosen = None if choices is None else choices[choices["chosen"]]["name"].value_counts()
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
    colours = {shown[name]: figures.SOFT for name in names}
    n_matched = table.loc[table["metric"] == "auroc_size_matched", "n_subjects"].max()
    return {
        "titles": list(titles.values()),
        "rows": rows,
        "figure": gallery.add("baselines", comparison_figures.interval_figure(drawn, colours)),
        "brain_size": _cell(table, "brain_size", area, 0.5) if "brain_size" in names else None,
        "size_test": _difference(table, "brain_size", area) if "brain_size" in names else None,
        "best": {"name": shown[best], "estimate": _cell(table, best, area, 0.5),
                 "test": _difference(table, best, area)},
        "tested": "network" in there,
        "averaged": any(name.endswith("_ensemble") for name in names),
        "chosen": None if chosen is None
        else ", ".join(f"{_in_words(str(name))} in {n}" for name, n in chosen.items()),
        "n_pairs": int(n_matched // 2) if number(n_matched) else None,
        "matched": _cell(table, "network", "auroc_size_matched", 0.5)
        if _has(table, "network", "auroc_size_matched") else None,
    }  # fmt: skip


def _in_words(name: str) -> str:
    """A classifier as the page calls it."""
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
    """Network minus baseline, with words that follow from its interval."""
    row = _row(table, name, metric)
    if number(row["difference"]) is None:
        return None
    low, high = number(row["difference_ci_low"]), number(row["difference_ci_high"])
    word = "not distinguishable from"
    if low is not None and high is not None and (low > 0 or high < 0):
        word = "above" if low > 0 else "below"
    p = number(row["p"])
    p_value = "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
    return {"value": float(row["difference"]), "low": low, "high": high, "p": p_value, "word": word}

"""Verdict on networks that predict a number: has the network learned more than the mean of the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.values import Estimate, number
from xai_brain.reporting.wording import interval

MEAN, NETWORK = "mean", "network"  # rows of evaluation/baselines.tsv


@dataclass(frozen=True)
class NumberScores:
    """Performance of networks that predict a number, for participants that were not used for training.

    Parameters
    ----------
    kind : str
        ``mean over folds`` or, where there are no folds, ``pooled``.
    mae, r2 : Estimate, optional
        Of the networks.
    mae_of_mean : Estimate, optional
        Of the mean target of the training participants.
    difference : Estimate, optional
        MAE of the networks minus that of the mean, with its interval.
    learned, doubt : str
        As in `xai_brain.reporting.verdict.Verdict`.
    """

    kind: str
    mae: Estimate | None
    r2: Estimate | None
    mae_of_mean: Estimate | None
    difference: Estimate | None
    learned: str
    doubt: str


def number_scores(contents: ReportContents) -> NumberScores:
    """Scores and what they mean, from metrics.json and evaluation/baselines.tsv."""
    in_folds = contents.n_networks is None and contents.estimate("test/r2") is not None
    suffix = "" if in_folds else "_pooled"
    mae, r2 = contents.estimate(f"test/mae{suffix}"), contents.estimate(f"test/r2{suffix}", 0.0)
    table = contents.evaluation("baselines")
    of_mean = difference = None
    if table is not None and not (rows := _rows(table, MEAN, "mae")).empty:
        row = rows.iloc[0]
        of_mean = Estimate(float(row["value"]), number(row["ci_low"]), number(row["ci_high"]))
        if number(row["difference"]) is not None:
            limits = number(row["difference_ci_low"]), number(row["difference_ci_high"])
            difference = Estimate(float(row["difference"]), *limits)
    learned, doubt = rate_number(r2, difference, "mean over folds" if in_folds else "pooled")
    kind = "mean over folds" if in_folds else "pooled"
    return NumberScores(kind, mae, r2, of_mean, difference, learned, doubt)


def rate_number(r2: Estimate | None, difference: Estimate | None, kind: str) -> tuple[str, str]:
    """Whether networks predict a number better than its mean, from intervals.

    Parameters
    ----------
    r2 : Estimate, optional
    difference : Estimate, optional
        MAE of the networks minus that of the mean.
    kind : str
        Of R².

    Returns
    -------
    learned, doubt : str
        As in `xai_brain.reporting.verdict.Verdict`: ``no`` if the interval of the difference contains values
        of 0 or above, ``weak`` if that of R² begins at 0 or below.
    """
    if r2 is None:
        return "unknown", ""
    if difference is not None and difference.high is not None and difference.high >= 0:
        limits = interval(difference.low, difference.high)
        return "no", (
            "There is no evidence that the network predicts better than the mean of the training "
            f"participants: the 95 % interval of the difference of their MAE, {limits}, is not below 0"
        )
    if r2.low is not None and r2.low <= 0:
        limits = interval(r2.low, r2.high, 2)
        return ("weak" if difference is not None else "no"), (
            f"The evidence is weak: the 95 % interval of R² ({kind}), {limits}, begins at 0 or below"
        )
    return "yes", ""


def baseline_rows(contents: ReportContents, words: Callable[[str], str]) -> list[dict[str, Any]]:
    """Network and baselines with their scores and the difference of the network, for a table."""
    table = contents.evaluation("baselines")
    if table is None:
        return []
    rows = []
    for name in dict.fromkeys(table["name"]):
        own = table[table["name"] == name]
        cells = {}
        for row in own.to_dict("records"):
            low, high = number(row["ci_low"]), number(row["ci_high"])
            cells[row["metric"]] = Estimate(float(row["value"]), low, high)
        first = _rows(own, name, "mae").iloc[0]
        rows.append(
            {
                "name": words(str(name)),
                "n": int(first["n_subjects"]),
                "cells": cells,
                "difference": number(first["difference"]),
                "low": number(first["difference_ci_low"]),
                "high": number(first["difference_ci_high"]),
                "p": number(first["p"]),
            }
        )
    return rows


def _rows(table: pd.DataFrame, name: str, metric: str) -> pd.DataFrame:
    return table[(table["name"] == name) & (table["metric"] == metric)]

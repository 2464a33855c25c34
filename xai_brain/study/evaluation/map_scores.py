"""Agreement and localisation of the maps of one participant."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.config.evaluation import EvaluationConfig
from xai_brain.io.nifti import load_img
from xai_brain.metrics.comparison.agreement import compare, rank_map
from xai_brain.metrics.localization import localization
from xai_brain.metrics.table import METRICS, select_metrics
from xai_brain.metrics.true_effect import TrueEffect
from xai_brain.runs.directory import (
    RunDirectory,
)
from xai_brain.study.run_images import map_values, truth_of


def score_participant(
    run: RunDirectory, labels: np.ndarray | None, settings: EvaluationConfig, rows: pd.DataFrame
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Agreement of the maps of one participant and seed; localisation if the true location is known."""
    first = rows.iloc[0]
    about = {key: first[key] for key in ("participant_id", "session_id", "seed", "fold")}
    t1w_img = load_img(run.image(first["participant_id"], first["session_id"]))
    brain_mask = np.asanyarray(t1w_img.dataobj) > 0
    arrays = {row.method: map_values(row.path) for row in rows.itertuples()}
    named = {"level": "subject", "name": about["participant_id"]}
    named |= {key: about[key] for key in ("session_id", "seed")}
    agreements = agreements_of(arrays, brain_mask, named, settings)
    if (truth := truth_of(run, first["participant_id"], first["session_id"])) is None:
        return agreements, []
    return agreements, [
        {**about, **row} for row in localizations_of(arrays, truth, t1w_img, labels, settings)
    ]


def agreements_of(
    arrays: dict[str, np.ndarray], brain_mask: np.ndarray, about: dict[str, Any], settings: EvaluationConfig
) -> list[dict[str, Any]]:
    maps = {
        method: rank_map(values[brain_mask], settings.random_state + i)
        for i, (method, values) in enumerate(arrays.items())
    }
    return [
        {**about, "method_a": a, "method_b": b, **found}
        for a, b in combinations(maps, 2)
        for found in compare(maps[a], maps[b], brain_mask.size, settings.top_percents)
    ]


def localizations_of(
    arrays: dict[str, np.ndarray],
    truth: np.ndarray,
    img: nib.Nifti1Image,
    labels: np.ndarray | None,
    settings: EvaluationConfig,
) -> list[dict[str, Any]]:
    """Localisation of the maps of one participant: metrics of low cost, or all for the report card."""
    brain_mask = np.asanyarray(img.dataobj) > 0
    found = []
    selected = [METRICS[name] for name in select_metrics(settings.card.metrics)]
    if any(metric.is_localization and metric.cost == "high" for metric in selected):
        place = TrueEffect(truth, brain_mask, nib.affines.voxel_sizes(img.affine), labels=labels)
        chance = place.chance(n_maps=3, random_state=settings.random_state)
        for method, values in arrays.items():
            scores = place.scores(values, settings.random_state)
            found += [
                {"method": method, "metric": metric, "value": value, "chance": chance[metric]}
                for metric, value in scores.items()
            ]
        return found
    for method, values in arrays.items():
        scores = localization(values, truth & brain_mask, brain_mask, settings.random_state)
        by_chance = scores.pop("chance")
        found += [
            {"method": method, "metric": metric, "value": value, "chance": by_chance}
            for metric, value in scores.items()
        ]
    return found

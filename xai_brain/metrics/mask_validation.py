"""Evaluate networks on images that contain only the voxels of a mask, or only the other voxels.

If the accuracy is kept, the mask contains enough information for this network, which does not show that the
network uses it; if the accuracy is kept without the voxels of the mask, they are not needed. Without
retraining, masked images differ from all training images, and the accuracy may decrease for this reason alone
(Hooker 2019). Random masks of the same size and smoothness show how large this effect is.

Kan et al. 2020 report accuracies of 58.6, 59.2 and 82.5 % with the masks of men, of women and their sum. They
are not comparable with the values computed here: the explained network was trained on all participants and
the masks were tested on the same participants; the summed mask has values up to 2, which changes intensities;
and there were no random masks of the same area. Here the masks are computed from the training participants of
each fold, tested on the test participants, and have equal sizes.

References
----------
Hooker et al., "A Benchmark for Interpretability Methods in Deep Neural Networks", NeurIPS 2019.
Kan et al., "Interpretation of 3D CNNs for Brain MRI Data Classification", AIST 2020.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from xai_brain.attribution.model_state import preserved
from xai_brain.attribution.perturbation.eval_copy import eval_copy
from xai_brain.attribution.reduced_precision import reliable_precision
from xai_brain.parallel.progress import ShowProgress
from xai_brain.statistics.bootstrap import draw_counts, multinomial_counts, percentile_interval
from xai_brain.statistics.classification import figures_of_draws, probabilities_of
from xai_brain.task.build import task_of_table

CONDITION = ["method", "mask", "area_percent", "kept", "control", "retrained"]
FIGURES = ("accuracy", "balanced_accuracy", "auroc")
COLUMNS = [
    *CONDITION[:5], "retrained", "metric", "value", "ci_low", "ci_high", "chance", "n_subjects",
    "above_random", "above_random_ci_low", "above_random_ci_high",
]  # fmt: skip


@torch.no_grad()
def masked_probabilities(
    model: nn.Module,
    inputs: torch.Tensor,
    baselines: torch.Tensor,
    masks: Sequence[np.ndarray],
    batch_size: int = 8,
) -> np.ndarray:
    """Class probabilities of images that contain only the voxels of a mask.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits (N, n_classes); in eval mode.
    inputs, baselines : Tensor of shape (N, 1, X, Y, Z)
        The baseline replaces all voxels outside the mask, including those outside the brain, whose number
        would indicate head size.
    masks : sequence of bool ndarray of shape (X, Y, Z)
    batch_size : int, default 8

    Returns
    -------
    ndarray of shape (n_masks, N, n_classes)
    """
    found = []
    size = min(batch_size, len(inputs))
    with preserved(model):
        network = eval_copy(model, inputs)
        with reliable_precision(model, network, inputs[:1], size):
            for mask in masks:
                kept = torch.from_numpy(mask).to(inputs.device)
                batches = zip(inputs.split(size), baselines.split(size), strict=True)
                volumes = (torch.where(kept, image, fill) for image, fill in batches)
                found.append(np.concatenate([network(x).softmax(1).cpu().numpy() for x in volumes]))
    return np.stack(found)


def validation_table(
    predictions: pd.DataFrame,
    n_bootstrap: int = 1000,
    random_state: int = 0,
    progress: ShowProgress = iter,
) -> pd.DataFrame:
    """Metrics of all masks with intervals over participants, and their differences from random masks.

    Parameters
    ----------
    predictions : pandas.DataFrame
        The columns of `CONDITION`, draw (number of the random mask, else 0), participant_id, session_id,
        seed, fold, target, prob_<class>...
    n_bootstrap : int, default 1000
        Participants are drawn within class and fold, the same for all masks; random masks are also drawn;
        seeds are averaged. ``auroc`` is the mean over folds.
    random_state : int, default 0
    progress : function that wraps the list of masks

    Returns
    -------
    pandas.DataFrame
        The columns of `COLUMNS`. ``chance`` of accuracy is the share of the largest class in the test
        participants. ``above_random`` is the paired difference from the mean of the random masks of the same
        method, area, side and training; for complements, good maps have negative values.
    """
    probabilities_of(predictions)
    images = predictions.drop_duplicates(["participant_id", "session_id"])
    images = images.set_index(["participant_id", "session_id"])[["target", "fold"]]
    draws = _draws(images, n_bootstrap, random_state)
    found = {}
    conditions = list(predictions.groupby(CONDITION, sort=False, dropna=False))
    for condition, rows in progress(conditions):
        replicates, numbers, there = _replicates(rows, images.index)
        targets, folds = (images[name].to_numpy()[there] for name in ("target", "fold"))
        n_subjects = images.index[there].get_level_values("participant_id").nunique()
        weights = _drawn_masks(numbers, n_bootstrap, random_state)
        figures = {
            metric: (values * weights).sum(1) / weights.sum(1)
            for metric, values in _figures(replicates, targets, folds, draws[:, there]).items()
        }
        found[condition] = (figures, targets, n_subjects)
    task, table = task_of_table(None, predictions.columns), []
    for condition, (figures, targets, n_subjects) in found.items():
        about = dict(zip(CONDITION, condition, strict=True))
        random = ("joint", about["area_percent"], about["kept"], "random", about["retrained"])
        other = found.get((about["method"], *random)) if about["control"] in ("map", "regions") else None
        paired = other is not None and len(other[1]) == len(targets)
        chance = task.chance_levels(targets)
        for metric in FIGURES:
            value, low, high = _interval(figures[metric])
            row = {**about, "metric": metric, "value": value, "ci_low": low, "ci_high": high}
            row |= {"chance": chance[metric], "n_subjects": n_subjects}
            if paired and other is not None:
                difference = _interval(figures[metric] - other[0][metric])
                names = ("above_random", "above_random_ci_low", "above_random_ci_high")
                row |= dict(zip(names, difference, strict=True))
            table.append(row)
    return pd.DataFrame(table).reindex(columns=COLUMNS)


def _draws(images: pd.DataFrame, n_bootstrap: int, random_state: int) -> np.ndarray:
    """How often each image counts, (1 + n_bootstrap, n_images); all images count once in the first row."""
    participant = pd.factorize(images.index.get_level_values("participant_id"))[0]
    kinds = images.groupby(participant, sort=True).first()
    strata = list(kinds.groupby(["target", "fold"]).indices.values())
    counts = draw_counts(strata, n_bootstrap, np.random.default_rng(random_state))
    return np.concatenate([np.ones((1, len(images)), np.int64), counts[:, participant]])


def _drawn_masks(numbers: np.ndarray, n_bootstrap: int, random_state: int) -> np.ndarray:
    """How often each replicate counts, by its random mask, (1 + n_bootstrap, n_replicates)."""
    _, of = np.unique(numbers, return_inverse=True)
    n_masks = of.max() + 1
    rng = np.random.default_rng([random_state, 1])
    counts = multinomial_counts(n_masks, n_bootstrap, rng)
    return np.concatenate([np.ones((1, n_masks), np.int64), counts])[:, of]


def _replicates(rows: pd.DataFrame, images: pd.Index) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions of every seed and random mask.

    Returns
    -------
    probabilities : ndarray of shape (n_replicates, n_there, n_classes)
    numbers : int ndarray of shape (n_replicates,)
        Numbers of the random masks.
    there : bool ndarray of shape (n_images,)
        Images that are part of all replicates.
    """
    columns = rows.filter(regex="^prob_").columns
    keys, arrays = [], []
    for (_, number), part in rows.groupby(["seed", "draw"]):
        keys.append(number)
        predicted = part.set_index(["participant_id", "session_id"])[columns]
        arrays.append(predicted.reindex(images).to_numpy(float))
    stacked = np.stack(arrays)
    there = np.isfinite(stacked).all((0, 2))
    return stacked[:, there], np.array(keys), there


def _figures(
    probabilities: np.ndarray, targets: np.ndarray, folds: np.ndarray, draws: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics for all draws of participants and all replicates, (1 + n_bootstrap, n_replicates)."""
    found = [figures_of_draws([(targets, replicate, folds)], draws) for replicate in probabilities]
    return {metric: np.stack([figures[metric] for figures in found], axis=1) for metric in FIGURES}


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """Estimate and 95 % interval of a metric from its values in all draws."""
    low, high = percentile_interval(values[1:])
    return float(values[0]), float(low), float(high)


def figures_of_joint_masks(table: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """Metrics of a `validation_table` for metrics.json.

    Yields
    ------
    name : str
        ``masks/<method>/keep_<area>/<metric>``, with ``_retrained`` after the area for retrained networks,
        ``remove`` for the complement, and ``random`` and ``regions`` after the method.
    value : float
    """
    for row in table[table["mask"] == "joint"].to_dict("records"):
        side = "keep" if row["kept"] == "mask" else "remove"
        below = f"{row['method']}" if row["control"] == "map" else f"{row['method']}/{row['control']}"
        again = "_retrained" if row["retrained"] else ""
        name = f"masks/{below}/{side}_{row['area_percent']:g}{again}/{row['metric']}"
        figures = {"": "value", "_ci_low": "ci_low", "_ci_high": "ci_high", "_above_random": "above_random"}
        for suffix, column in figures.items():
            if np.isfinite(row[column]):
                yield name + suffix, float(row[column])

"""Statistics of the maps of networks that were trained on permuted labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from xai_brain.config.schema import Config
from xai_brain.data.folds.tables import fold_numbers
from xai_brain.io.nifti import Grid, get_grid
from xai_brain.parallel.threads import ReadAhead
from xai_brain.runs.directory import RunDirectory, first_repeat, read_tsv, write_tsv
from xai_brain.runs.manifest import is_intact, write_manifest
from xai_brain.runs.provenance import versions
from xai_brain.study.explanation.batches import (
    Batch,
    Explainer,
    build_reference,
    load_inputs,
    mean_maps,
    refuse_non_finite,
    rows_of,
    seed_of,
)
from xai_brain.study.explanation.configured_methods import build_method, parameters_of, takes_reference
from xai_brain.study.thresholds.statistic import map_statistics
from xai_brain.study.training.cross_validation import fold_predictions
from xai_brain.study.training.networks import Network, training_subjects
from xai_brain.study.training.permuted import permuted_cohort, permuted_network, permuted_run

KEYS = ("participant_id", "session_id")


def null_table(config: Config, run: RunDirectory, number: int, label: str) -> Path:
    """Table of one permutation and method: participant_id, session_id, fold and the statistics."""
    return permuted_run(config, run, number).path / "statistics" / f"desc-{label}.tsv"


def is_null_current(config: Config, run: RunDirectory, number: int, label: str) -> bool:
    """Whether the statistics of a permutation and method were computed with these settings."""
    manifest = null_table(config, run, number, label).with_suffix(".json")
    return is_intact(manifest, _inputs(config, label))


def _inputs(config: Config, label: str) -> dict[str, Any]:
    """What the statistics depend on, besides the settings of training, which are those of the run."""
    settings, explain = config.evaluation.threshold, asdict(config.explain)
    return {
        "parameters": parameters_of(config, label),
        **{key: explain[key] for key in ("target", "output", "n_reference_volumes", "batch_size")},
        "n_participants": settings.n_participants,
        "cluster_forming": settings.cluster_forming,
        "seed": config.seeds[0],
        "version": versions()["xai-brain"],
    }


def make_null_statistics(
    config: Config, run: RunDirectory, cohort: pd.DataFrame, labels: Sequence[str], number: int
) -> None:
    """Train the networks of one permutation that are missing, and compute the statistics of their maps.

    Random participants, `evaluation.threshold.n_participants` at most, are explained by the network that was
    not trained on them.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    cohort : pandas.DataFrame
        Prepared cohort with its own labels.
    labels : sequence of str
        Methods.
    number : int
        Of the permutation, from 1.
    """
    missing = [label for label in labels if not is_null_current(config, run, number, label)]
    seed, folds = int(config.seeds[0]), fold_numbers(first_repeat(read_tsv(run.folds)))
    networks = {fold: permuted_network(config, run, cohort, number, fold, seed) for fold in folds}
    own, permuted = permuted_run(config, run, number), permuted_cohort(config, cohort, number)
    predictions = pd.concat([read_tsv(fold_predictions(own, fold, seed)) for fold in folds])
    chosen = _chosen(predictions.reset_index(drop=True), config.evaluation.threshold.n_participants, number)
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in missing}
    for fold, rows in chosen.groupby("fold"):
        for label, explainer in _explainers(config, run, permuted, networks[int(fold)], missing):
            found[label] += _statistics(config, permuted, int(fold), seed, rows, label, explainer)
    for label, rows in found.items():
        path = null_table(config, run, number, label)
        write_tsv(pd.DataFrame(rows), path)
        write_manifest(path.with_suffix(".json"), _inputs(config, label), [path])


def _chosen(predictions: pd.DataFrame, n: int, number: int) -> pd.DataFrame:
    """Images of n random participants."""
    ids = np.unique(predictions["participant_id"].to_numpy(str))
    drawn = np.random.default_rng(number).permutation(ids)[:n]
    return predictions[predictions["participant_id"].isin(drawn)]


def _explainers(
    config: Config, run: RunDirectory, permuted: pd.DataFrame, network: Network, labels: Sequence[str]
) -> Iterator[tuple[str, Explainer]]:
    """Methods on one network; the reference contains its training participants with permuted labels."""
    classifier, reference = network.load(config), None
    if any(takes_reference(config, label) for label in labels):
        grid, n_volumes = get_grid(config.preprocessing.grid), config.explain.n_reference_volumes
        train = next(training_subjects(config, run, permuted, [network]))
        reference = build_reference(train, classifier.task, n_volumes, grid)
    for label in labels:
        yield label, Explainer(classifier, *build_method(config, label, classifier, reference))


def _statistics(
    config: Config,
    cohort: pd.DataFrame,
    fold: int,
    seed: int,
    rows: pd.DataFrame,
    label: str,
    explainer: Explainer,
) -> list[dict[str, Any]]:
    """Statistics of the maps of one method and network."""
    size, task = config.explain.batch_size, explainer.classifier.task
    batches = [Batch(seed, fold, rows.iloc[i : i + size]) for i in range(0, len(rows), size)]
    grid, cluster_forming = get_grid(config.preprocessing.grid), config.evaluation.threshold.cluster_forming
    device = next(explainer.classifier.parameters()).device
    found: list[dict[str, Any]] = []
    with ReadAhead(partial(load_inputs, cohort, device), batches) as volumes:
        for batch in batches:
            predicted, true = batch.rows[task.columns].to_numpy(float), batch.rows["target"].to_numpy()
            explained = task.explained_targets(config.explain.target, predicted, true)
            inputs = volumes.get(batch).to(device)
            targets = torch.from_numpy(explained).to(device)
            maps, _ = mean_maps([explainer], inputs, targets, label, seed_of(batch))
            refuse_non_finite(maps, batch, label, 1)
            for row, of_cohort, values in zip(
                batch.rows.to_dict("records"), rows_of(cohort, batch), maps, strict=True
            ):
                brain = np.load(of_cohort["volume_mask_path"])
                about = {**{key: row[key] for key in KEYS}, "fold": fold}
                found.append(
                    about | map_statistics(values[0].numpy(), brain, voxel_mm3(grid), cluster_forming)
                )
    return found


def voxel_mm3(grid: Grid) -> float:
    """Volume of a voxel, mm³."""
    return float(np.prod(grid.spacing_mm))

"""Maps of networks that were trained on permuted labels, and their statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.data.folds.tables import fold_numbers
from xai_brain.io.nifti import Grid, get_grid
from xai_brain.runs.directory import RunDirectory, first_repeat, read_tsv, write_tsv
from xai_brain.runs.manifest import is_intact, write_manifest
from xai_brain.runs.provenance import versions
from xai_brain.study.explanation.configured_methods import parameters_of
from xai_brain.study.explanation.network_maps import NetworkMap, network_maps
from xai_brain.study.thresholds.statistic import map_statistics
from xai_brain.study.training.cross_validation import fold_predictions
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
    settings, mm3 = config.evaluation.threshold, voxel_mm3(get_grid(config.preprocessing.grid))
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in missing}
    for each in permuted_maps(config, run, cohort, missing, number, settings.n_participants):
        brain = np.load(each.of_cohort["volume_mask_path"])
        statistics = map_statistics(each.values, brain, mm3, settings.cluster_forming)
        found[each.label].append({**{key: each.row[key] for key in (*KEYS, "fold")}, **statistics})
    for label, rows in found.items():
        path = null_table(config, run, number, label)
        write_tsv(pd.DataFrame(rows), path)
        write_manifest(path.with_suffix(".json"), _inputs(config, label), [path])


def permuted_maps(
    config: Config,
    run: RunDirectory,
    cohort: pd.DataFrame,
    labels: Sequence[str],
    number: int,
    n_participants: int,
) -> Iterator[NetworkMap]:
    """Train the networks of one permutation that are missing, and explain random participants by them.

    Parameters
    ----------
    config, run, cohort, labels, number
        As for `make_null_statistics`.
    n_participants : int
        At most; each is explained by the network that was not trained on them.
    """
    seed, folds = int(config.seeds[0]), fold_numbers(first_repeat(read_tsv(run.folds)))
    networks = {fold: permuted_network(config, run, cohort, number, fold, seed) for fold in folds}
    own, permuted = permuted_run(config, run, number), permuted_cohort(config, cohort, number)
    predictions = pd.concat([read_tsv(fold_predictions(own, fold, seed)) for fold in folds])
    chosen = _chosen(predictions.reset_index(drop=True), n_participants, number)
    for fold, rows in chosen.groupby("fold"):
        yield from network_maps(config, run, permuted, networks[int(fold)], rows, labels)


def _chosen(predictions: pd.DataFrame, n: int, number: int) -> pd.DataFrame:
    """Images of n random participants."""
    ids = np.unique(predictions["participant_id"].to_numpy(str))
    drawn = np.random.default_rng(number).permutation(ids)[:n]
    return predictions[predictions["participant_id"].isin(drawn)]


def voxel_mm3(grid: Grid) -> float:
    """Volume of a voxel, mm³."""
    return float(np.prod(grid.spacing_mm))

"""Statistics of the maps of networks that are the reference of thresholds, kept on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.data.folds.tables import fold_numbers
from xai_brain.runs.directory import RunDirectory, first_repeat, read_json, read_tsv, write_tsv
from xai_brain.runs.manifest import is_intact, write_manifest
from xai_brain.runs.provenance import versions
from xai_brain.study.explanation.configured_methods import parameters_of
from xai_brain.study.explanation.network_maps import NetworkMap, network_maps
from xai_brain.study.thresholds.reference_networks import NullMap
from xai_brain.study.thresholds.statistic import map_statistics
from xai_brain.study.training.cross_validation import fold_predictions
from xai_brain.study.training.permuted import permuted_cohort, permuted_network, permuted_run

KEYS = ("participant_id", "session_id", "fold")


def is_retrainable(run: RunDirectory) -> bool:
    """Whether the networks of a run were trained in it, so that they can be trained on permuted labels."""
    return run.folds.exists()


def null_table(config: Config, run: RunDirectory, number: int, label: str) -> Path:
    """Table of one reference network (of a permutation, of all folds) and method: image and statistics."""
    if is_retrainable(run):
        folder = permuted_run(config, run, number).path
    else:
        folder = run.path / "randomized" / f"network-{number:03d}"
    return folder / "statistics" / f"desc-{label}.tsv"


def is_null_current(config: Config, run: RunDirectory, number: int, label: str) -> bool:
    """Whether the statistics of a reference network and method were computed with these settings."""
    manifest = null_table(config, run, number, label).with_suffix(".json")
    return is_intact(manifest, _inputs(config, run, label))


def _inputs(config: Config, run: RunDirectory, label: str) -> dict[str, Any]:
    """What the statistics depend on, besides the settings of training, which are those of the run."""
    settings, explain = config.evaluation.threshold, asdict(config.explain)
    given = {} if is_retrainable(run) else {"networks": read_json(run.provenance).get("networks_sha256")}
    return {
        "parameters": parameters_of(config, label),
        **{key: explain[key] for key in ("target", "output", "n_reference_volumes", "batch_size")},
        "n_participants": settings.n_participants,
        "cluster_forming": settings.cluster_forming,
        "seed": config.seeds[0],
        "version": versions()["xai-brain"],
        **given,
    }


def write_null_statistics(
    config: Config, run: RunDirectory, number: int, labels: Sequence[str], maps: Iterable[NullMap]
) -> None:
    """Compute the statistics of the maps of one reference network, and write a table for each method."""
    cluster_forming = config.evaluation.threshold.cluster_forming
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    for each in maps:
        statistics = map_statistics(each.values, each.brain, each.voxel_mm3, cluster_forming)
        found[each.label].append({**{k: each.row[k] for k in KEYS if k in each.row}, **statistics})
    for label, rows in found.items():
        path = null_table(config, run, number, label)
        write_tsv(pd.DataFrame(rows), path)
        write_manifest(path.with_suffix(".json"), _inputs(config, run, label), [path])


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
    config : Config
    run : RunDirectory
    cohort : pandas.DataFrame
        Prepared cohort with its own labels.
    labels : sequence of str
        Methods.
    number : int
        Of the permutation, from 1.
    n_participants : int
        At most; each is explained by the network that was not trained on them.
    """
    seed, folds = int(config.seeds[0]), fold_numbers(first_repeat(read_tsv(run.folds)))
    networks = {fold: permuted_network(config, run, cohort, number, fold, seed) for fold in folds}
    own, permuted = permuted_run(config, run, number), permuted_cohort(config, cohort, number)
    predictions = pd.concat([read_tsv(fold_predictions(own, fold, seed)) for fold in folds])
    chosen = choose_participants(predictions.reset_index(drop=True), n_participants, number)
    for fold, rows in chosen.groupby("fold"):
        yield from network_maps(config, run, permuted, [networks[int(fold)]], rows, labels)


def choose_participants(predictions: pd.DataFrame, n: int, number: int) -> pd.DataFrame:
    """Rows of n random participants."""
    ids = np.unique(predictions["participant_id"].to_numpy(str))
    drawn = np.random.default_rng(number).permutation(ids)[:n]
    return predictions[predictions["participant_id"].isin(drawn)]

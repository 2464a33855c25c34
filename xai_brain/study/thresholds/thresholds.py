"""Corrected thresholds of the maps of a run, from networks that were trained on permuted labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.build import valid_choice
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.folds.tables import fold_numbers
from xai_brain.data.permuted_labels import n_exchangeable
from xai_brain.io.nifti import get_grid
from xai_brain.parallel.locks import run_exclusive, run_shared
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import RunDirectory, add_seconds, first_repeat, read_json, read_tsv, write_tsv
from xai_brain.runs.manifest import is_intact, write_manifest
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.study.evaluation.found_maps import find_maps, map_states
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.run_images import brain_of, map_values, truth_of
from xai_brain.study.settings import open_run
from xai_brain.study.thresholds.null_maps import (
    is_null_current,
    make_null_statistics,
    null_table,
    voxel_mm3,
)
from xai_brain.study.thresholds.statistic import (
    STATISTICS,
    above_threshold,
    corrected_p,
    corrected_threshold,
    map_statistics,
)

THRESHOLDS, MAPS, NULL = "thresholds", "threshold_maps", "threshold_null"  # tables


def threshold_run(config: Config) -> RunDirectory:
    """Compute what is missing of the permutations, the thresholds, and what exceeds them.

    Returns
    -------
    RunDirectory
        With evaluation/thresholds.tsv (one row per method and statistic), threshold_maps.tsv (one row per
        map) and threshold_null.tsv (one row per map of a permutation); the networks in permuted/.

    Raises
    ------
    ConfigError
        The networks were trained elsewhere, or no label can be permuted.
    """
    run = open_run(config)
    if config.networks or not run.folds.exists():
        raise ConfigError(
            f"{run.path}: thresholds need networks that can be trained again on permuted labels, and these "
            "were trained elsewhere"
        )
    maps = find_maps(config, run)
    labels = _labels(config, maps)
    maps = [row for row in maps if row["method"] in labels]
    start = time.monotonic()
    _make_missing(config, run, labels)
    inputs = _inputs(config, run, labels, maps)
    manifest = run.path / "evaluation" / f"{THRESHOLDS}.json"

    def write() -> None:
        tables = _tables(config, run, labels, maps)
        for name, table in tables.items():
            write_tsv(table, run.evaluation(name))
        write_manifest(manifest, inputs, map(run.evaluation, tables))

    if is_intact(manifest, inputs):
        log(f"threshold: nothing to do, {run.evaluation(THRESHOLDS)} is complete")
        return run
    run_exclusive(run.locks, THRESHOLDS, write, lambda: is_intact(manifest, inputs))
    add_seconds(run, "threshold", time.monotonic() - start)
    log(f"threshold: {run.evaluation(THRESHOLDS)}")
    return run


def null_statistics(config: Config, run: RunDirectory, label: str) -> list[pd.DataFrame]:
    """Statistics of the maps of each permutation."""
    numbers = range(1, config.evaluation.threshold.n_perm + 1)
    return [read_tsv(null_table(config, run, number, label)) for number in numbers]


def _labels(config: Config, maps: Sequence[dict[str, Any]]) -> list[str]:
    present = list(dict.fromkeys(row["method"] for row in maps))
    for label in config.evaluation.threshold.methods or ():
        valid_choice("method", label, present)
    chosen = config.evaluation.threshold.methods or [m for m in present if m in config.attribution]
    if imported := [label for label in chosen if label not in config.attribution]:
        raise ConfigError(
            f"evaluation.threshold.methods={imported[0]}: was imported, so that it cannot explain networks "
            "that are trained on permuted labels"
        )
    return list(chosen)


def _make_missing(config: Config, run: RunDirectory, labels: Sequence[str]) -> None:
    settings = config.evaluation.threshold
    units = {f"threshold-{number:03d}": number for number in range(1, settings.n_perm + 1)}

    def done(number: int) -> bool:
        return all(is_null_current(config, run, number, label) for label in labels)

    left = [number for number in units.values() if not done(number)]
    if not left:
        return
    cohort = same_cohort(prepared_cohort(config, run), run).reset_index(drop=True)
    _require_exchangeable(config, cohort)
    keep_freed_memory()
    log(_cost(config, run, len(left)))
    run_shared(
        run.locks,
        units,
        done=done,
        do=lambda number: make_null_statistics(config, run, cohort, labels, number),
        progress=lambda names: track(names, "threshold", "permutations"),
        wait=lambda n: log(f"threshold: waiting for {n} permutations that other processes compute"),
    )


def _require_exchangeable(config: Config, cohort: pd.DataFrame) -> None:
    settings, family = config.evaluation.threshold, config.folds.group_column
    for name in settings.blocks:
        if name not in cohort:
            listed = ", ".join(column for column in cohort if not str(column).endswith("_path"))
            raise ConfigError(
                f"evaluation.threshold.blocks={name}: not in participants.tsv (its columns: {listed})"
            )
    n, total = n_exchangeable(cohort, settings.blocks, family), cohort["participant_id"].nunique()
    if n < total / 2:
        within = " and ".join([*settings.blocks, *([family] if family else [])])
        raise ConfigError(
            f"threshold: the labels of {total - n} of {total} participants cannot be permuted within "
            f"{within}; choose fewer blocks (evaluation.threshold.blocks)"
        )


def _cost(config: Config, run: RunDirectory, n: int) -> str:
    """What the permutations will take, by the training of this run."""
    n_folds = len(fold_numbers(first_repeat(read_tsv(run.folds))))
    seconds = read_json(run.metrics).get("seconds/train", np.nan) / len(config.seeds)
    shown = f", about {n * seconds / 60:.1f} minutes of training" if np.isfinite(seconds) else ""
    return (
        f"threshold: {n} permutations of {n_folds} networks each{shown} (as in this run), and the maps of "
        f"{config.evaluation.threshold.n_participants} participants in each; finished permutations are kept"
    )


def _inputs(
    config: Config, run: RunDirectory, labels: Sequence[str], maps: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    settings = config.evaluation.threshold
    numbers = range(1, settings.n_perm + 1)
    paths: list[Path] = [null_table(config, run, number, label) for label in labels for number in numbers]
    return {
        **{
            key: getattr(settings, key)
            for key in ("n_perm", "alpha", "cluster_forming", "statistic", "blocks")
        },
        "null": [read_json(path.with_suffix(".json"))["Files"][path.name] for path in paths],
        "maps": map_states(list(maps)),
    }


def _tables(
    config: Config, run: RunDirectory, labels: Sequence[str], maps: Sequence[dict[str, Any]]
) -> dict[str, pd.DataFrame]:
    settings = config.evaluation.threshold
    rows, of_maps, of_null = [], [], []
    for label in labels:
        null = null_statistics(config, run, label)
        of_null += [
            each[["participant_id", "session_id", *STATISTICS]].assign(method=label, permutation=number)
            for number, each in enumerate(null, 1)
        ]
        own = [row for row in maps if row["method"] == label]
        for statistic, unit in STATISTICS.items():
            values = [table[statistic].to_numpy(float) for table in null]
            threshold = corrected_threshold(values, settings.alpha)
            row: dict[str, Any] = {
                "method": label,
                "statistic": statistic,
                "alpha": settings.alpha,
                "threshold": threshold,
                "unit": unit,
                "cluster_forming": settings.cluster_forming,
                "n_perm": settings.n_perm,
                "n_maps": sum(map(len, values)),
                "blocks": ", ".join(settings.blocks) or None,
            }
            if statistic == settings.statistic:
                shown = track(own, f"threshold {label}", "maps", brief=True)
                found = [_row_of_map(config, run, each, values, threshold) for each in shown]
                of_maps += found
                row |= _summary(config, pd.DataFrame(found))
            rows.append(row)
    return {THRESHOLDS: pd.DataFrame(rows), MAPS: pd.DataFrame(of_maps), NULL: pd.concat(of_null)}


def _row_of_map(
    config: Config, run: RunDirectory, row: dict[str, Any], null: Sequence[np.ndarray], threshold: float
) -> dict[str, Any]:
    """What exceeds the threshold in one map, and where the true location is known, whether it lies there."""
    settings, voxel = config.evaluation.threshold, voxel_mm3(get_grid(config.preprocessing.grid))
    image = (row["participant_id"], row["session_id"])
    values, brain, truth = map_values(row["path"]), brain_of(run, *image), truth_of(run, *image)
    value = map_statistics(values, brain, voxel, settings.cluster_forming)[settings.statistic]
    above = above_threshold(values, brain, voxel, settings.cluster_forming, settings.statistic, threshold)
    n, known = int(above.sum()), truth is not None and bool(truth.any())
    inside = float((above & truth).sum()) if truth is not None and known else np.nan
    return {
        **{key: row[key] for key in ("method", "participant_id", "session_id", "seed", "label")},
        "statistic": settings.statistic,
        "value": value,
        "p": corrected_p(value, null),
        "n_voxels": n,
        "volume_mm3": n * voxel,
        "precision": inside / n if n else np.nan,
        "hit": float(inside > 0) if known else np.nan,
    }


def _summary(config: Config, maps: pd.DataFrame) -> dict[str, float]:
    """Shares of participants, with bootstrap intervals; seeds and sessions of a participant are averaged."""
    evaluation = config.evaluation
    some = maps.assign(some=(maps["n_voxels"] > 0).astype(float)).groupby("participant_id")
    share = bootstrap_mean(some["some"].mean().to_numpy(), evaluation.n_bootstrap, evaluation.random_state)
    found = dict(zip(("share", "share_ci_low", "share_ci_high"), share, strict=True))
    for name in ("hit", "precision"):
        estimate = bootstrap_mean(
            some[name].mean().to_numpy(), evaluation.n_bootstrap, evaluation.random_state
        )
        found |= dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), estimate, strict=True))
    found["median_mm3"] = float(maps.loc[maps["n_voxels"] > 0, "volume_mm3"].median())
    return found | {"n_subjects": maps["participant_id"].nunique()}

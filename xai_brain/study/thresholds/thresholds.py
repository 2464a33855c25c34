"""Corrected thresholds of maps, from networks of permuted labels or with randomised parameters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.utils import instantiate

from xai_brain.attribution.protocol import method_info
from xai_brain.config.build import valid_choice
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import load_img
from xai_brain.parallel.locks import run_exclusive, run_shared
from xai_brain.parallel.memory import keep_freed_memory
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import RunDirectory, add_seconds, read_json, read_tsv, write_tsv
from xai_brain.runs.manifest import is_intact, write_manifest
from xai_brain.runs.threshold_statement import RANDOMIZED, threshold_text
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.study.evaluation.found_maps import find_maps, map_states
from xai_brain.study.run_images import brain_of, map_values, truth_of
from xai_brain.study.settings import open_run
from xai_brain.study.thresholds.null_maps import (
    is_null_current,
    null_table,
    write_null_statistics,
)
from xai_brain.study.thresholds.null_networks import null_networks
from xai_brain.study.thresholds.reference_networks import NullNetworks
from xai_brain.study.thresholds.statistic import (
    STATISTICS,
    above_threshold,
    corrected_p,
    corrected_threshold,
    map_statistics,
    voxel_mm3,
)

THRESHOLDS, MAPS, NULL = "thresholds", "threshold_maps", "threshold_null"  # tables


def threshold_run(config: Config, networks: NullNetworks | None = None) -> RunDirectory:
    """Compute what is missing of the reference networks, the thresholds, and what exceeds them.

    Parameters
    ----------
    config : Config
    networks : NullNetworks, optional
        Reference networks; default: those of the run directory.

    Returns
    -------
    RunDirectory
        With evaluation/thresholds.tsv (one row per method and statistic), threshold_maps.tsv (one row per
        map) and threshold_null.tsv (one row per map of a reference network); networks that are trained on
        permuted labels in permuted/, statistics of randomised networks in randomized/.

    Raises
    ------
    ConfigError
        No label can be permuted; the network is not known, or has no parameters.
    """
    run = open_run(config)
    networks = networks or null_networks(config, run)
    maps = find_maps(config, run)
    labels = _labels(config, maps, networks.reference)
    maps = [row for row in maps if row["method"] in labels]
    start = time.monotonic()
    _make_missing(config, run, labels, networks)
    inputs = _inputs(config, run, labels, maps, networks.reference)
    manifest = run.path / "evaluation" / f"{THRESHOLDS}.json"

    def write() -> None:
        tables = _tables(config, run, labels, maps, networks.reference)
        for name, table in tables.items():
            write_tsv(table, run.evaluation(name))
        text = threshold_text(networks.reference)
        write_manifest(manifest, inputs, map(run.evaluation, tables), Statement=text)

    if is_intact(manifest, inputs):
        log(f"threshold: nothing to do, {run.evaluation(THRESHOLDS)} is complete")
        return run
    _log_changes(run, manifest, inputs)
    run_exclusive(run.locks, THRESHOLDS, write, lambda: is_intact(manifest, inputs))
    add_seconds(run, "threshold", time.monotonic() - start)
    log(f"threshold: {run.evaluation(THRESHOLDS)}")
    return run


def null_statistics(config: Config, run: RunDirectory, label: str) -> list[pd.DataFrame]:
    """Statistics of the maps of each reference network."""
    numbers = range(1, config.evaluation.threshold.n_perm + 1)
    return [read_tsv(null_table(config, run, number, label)) for number in numbers]


def _labels(config: Config, maps: Sequence[dict[str, Any]], reference: str) -> list[str]:
    present = list(dict.fromkeys(row["method"] for row in maps))
    for label in config.evaluation.threshold.methods or ():
        valid_choice("method", label, present)
    chosen = config.evaluation.threshold.methods or [m for m in present if m in config.attribution]
    if imported := [label for label in chosen if label not in config.attribution]:
        raise ConfigError(
            f"evaluation.threshold.methods={imported[0]}: was imported, so that it cannot explain networks "
            "that are trained on permuted labels"
        )
    if reference != RANDOMIZED:
        return list(chosen)
    used = [label for label in chosen if not method_info(instantiate(config.attribution[label])).is_baseline]
    if left_out := ", ".join(label for label in chosen if label not in used):
        text = f"the maps of {left_out} do not depend on the parameters of the network"
        if not used:
            raise ConfigError(f"threshold: {text}, so that they have no threshold; choose another method")
        log(f"threshold: {text} and have no threshold")
    return used


def _make_missing(config: Config, run: RunDirectory, labels: Sequence[str], networks: NullNetworks) -> None:
    settings = config.evaluation.threshold
    units = {f"threshold-{number:03d}": number for number in range(1, settings.n_perm + 1)}

    def missing(number: int) -> list[str]:
        return [label for label in labels if not is_null_current(config, run, number, label)]

    def make(number: int) -> None:
        names = missing(number)
        write_null_statistics(config, run, number, names, networks.maps(names, number))

    n = sum(bool(missing(number)) for number in units.values())
    if not n:
        return
    networks.check()
    keep_freed_memory()
    log(f"threshold: {networks.cost(n)}")
    run_shared(
        run.locks,
        units,
        done=lambda number: not missing(number),
        do=make,
        progress=lambda names: track(names, "threshold", networks.unit),
        wait=lambda n: log(f"threshold: waiting for {n} {networks.unit} that other processes compute"),
    )


def _inputs(
    config: Config, run: RunDirectory, labels: Sequence[str], maps: Sequence[dict[str, Any]], reference: str
) -> dict[str, Any]:
    settings = config.evaluation.threshold
    numbers = range(1, settings.n_perm + 1)
    paths: list[Path] = [null_table(config, run, number, label) for label in labels for number in numbers]
    return {
        "reference": reference,
        **{
            key: getattr(settings, key)
            for key in ("n_perm", "alpha", "cluster_forming", "statistic", "blocks")
        },
        "null": [read_json(path.with_suffix(".json"))["Files"][path.name] for path in paths],
        "maps": map_states(list(maps)),
    }


def _log_changes(run: RunDirectory, manifest: Path, inputs: dict[str, Any]) -> None:
    """Name the settings of existing thresholds that are replaced."""
    before = read_json(manifest).get("Of", {}) if manifest.exists() else {}
    changed = [
        f"{name} was {before[name]} and is {inputs[name]}"
        for name in ("alpha", "n_perm", "statistic", "blocks", "cluster_forming")
        if name in before and before[name] != inputs[name]
    ]
    if changed:
        log(f"threshold: {run.evaluation(THRESHOLDS)} is replaced: {', '.join(changed)}")


def _tables(
    config: Config, run: RunDirectory, labels: Sequence[str], maps: Sequence[dict[str, Any]], reference: str
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
                "reference": reference,
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
    settings, voxel = config.evaluation.threshold, voxel_mm3(load_img(row["path"]).affine)
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

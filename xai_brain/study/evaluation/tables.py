"""Compare the maps of a run with each other, between classes, and with the true location if known."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import load_img
from xai_brain.metrics.comparison.method_clusters import cluster_methods
from xai_brain.metrics.table import select_metrics
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import log, track
from xai_brain.parallel.threads import in_threads
from xai_brain.runs.directory import RunDirectory, add_seconds, update_metrics, write_tsv
from xai_brain.runs.group_maps import find_group_maps
from xai_brain.runs.manifest import is_up_to_date, write_manifest
from xai_brain.runs.provenance import versions
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.study.evaluation.class_maps import write_class_maps, write_mean_truth
from xai_brain.study.evaluation.first_layer import TABLES as FIRST_LAYER
from xai_brain.study.evaluation.first_layer import evaluate_first_layer
from xai_brain.study.evaluation.found_maps import find_maps, map_states, metrics_of_tables
from xai_brain.study.evaluation.group_records import SHARES, voxelwise_maps
from xai_brain.study.evaluation.groups import evaluate_groups, groups_are_compared
from xai_brain.study.evaluation.map_scores import agreements_of, score_participant
from xai_brain.study.evaluation.metrics import compute_metrics
from xai_brain.study.evaluation.regions import TABLES as REGIONS
from xai_brain.study.evaluation.regions import atlas_files, atlas_of, evaluate_regions
from xai_brain.study.evaluation.report_card import (
    calibration_hash,
    check_calibration,
    write_calibration,
    write_card,
)
from xai_brain.study.evaluation.variance import evaluate_variance
from xai_brain.study.explanation.missing_maps import n_maps_missing
from xai_brain.study.participants import is_readable, require_classes
from xai_brain.study.predictions.confound_scores import evaluate_confound_scores
from xai_brain.study.predictions.subgroups import evaluate_subgroups
from xai_brain.study.settings import open_run
from xai_brain.study.training.compare_baselines import compare_baselines

OTHER_TABLES = (
    "group",
    "masks",
    "subgroups",
    "confound_score",
)  # settings of results with records of their own
TABLES = (
    *("agreement", "localization", "summary", "method_clusters", "metrics", "report_card", "calibration"),
    *("variance", *FIRST_LAYER, *REGIONS),
)


def evaluate_run(config: Config) -> RunDirectory:
    """Evaluate all maps of a run; the networks are needed for a report card only.

    Returns
    -------
    RunDirectory
        With evaluation/agreement.tsv, localization.tsv (truth known), summary.tsv, method_clusters.tsv
        (three methods or more), variance.tsv (two seeds or more), subgroups.tsv
        (participants of several sexes, ages or sites), group_tests.tsv (maps that may be compared
        between classes), with an atlas regions.tsv, region_groups.tsv and region_top.tsv, on request
        first_layer.tsv and confounds.tsv, group/ and the metrics in metrics.json.
    """
    require_classes(config, "evaluate", or_number=True)
    check_calibration(config, RunDirectory(Path(config.run_dir)))
    atlas_of(config)  # raises an error before the settings and results of the run are changed
    run = open_run(config)
    maps = find_maps(config, run)
    start = time.monotonic()
    if config.shard:
        if n := n_maps_missing(config, run):
            raise ConfigError(
                f"shard={config.shard}: {n} maps are missing; wait until all shards of explain have finished"
            )
        if not _compute_shard(config, run, maps):
            add_seconds(run, "evaluate", time.monotonic() - start)
            return run
    compare_baselines(config, run)
    did = [evaluate_subgroups(config, run), evaluate_confound_scores(config, run)]
    did += [make_tables(config, run, maps), make_group_tests(config, run, maps)]
    if config.shard and not is_complete(config, run):
        log(f"evaluate shard {config.shard}: done; another process makes the tables")
    if any(did):
        add_seconds(run, "evaluate", time.monotonic() - start)
    else:
        log("evaluate: nothing to do, all maps are compared")
    return run


def make_tables(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> bool:
    """Make all tables except those that compare classes; returns whether anything had to be done."""
    if is_evaluated(config, run, maps):
        return False
    compute_metrics(config, run, pd.DataFrame(maps))  # only this is shared with other processes
    run_exclusive(
        run.locks,
        "tables",
        lambda: write_tables(config, run, maps),
        lambda: is_evaluated(config, run, maps),
        stay=config.shard is None,
    )
    return True


def make_group_tests(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> bool:
    """Compare the classes in the maps; returns whether anything had to be done."""
    if groups_are_compared(config, run, maps):
        return False
    run_exclusive(
        run.locks,
        "groups",
        lambda: evaluate_groups(config, run, maps),
        lambda: groups_are_compared(config, run, maps),
        stay=config.shard is None,
    )
    return True


def _compute_shard(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> bool:
    """Compute the metrics of a shard; returns whether the metrics of all shards are computed."""
    if is_evaluated(config, run, maps):
        return True
    _, n_left = compute_metrics(config, run, pd.DataFrame(maps))
    if n_left:
        log(f"evaluate shard {config.shard}: done; {n_left} files of metrics and the tables are left")
    return not n_left


def is_complete(config: Config, run: RunDirectory) -> bool:
    """Whether all results of this stage exist."""
    maps = find_maps(config, run)
    return is_evaluated(config, run, maps) and groups_are_compared(config, run, maps)


def is_evaluated(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> bool:
    """Whether the tables were made from these maps, participants and settings."""
    manifest = run.path / "evaluation" / "inputs.json"
    there = run.evaluation("summary").exists() and run.metrics.exists()
    return there and is_up_to_date(manifest, tables_inputs(config, run, maps))


def tables_inputs(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> dict[str, Any]:
    """Inputs of the tables; they include the version, because definitions of metrics may change."""
    images = (run.path / "images").glob("*.nii.gz")
    return {
        "version": versions().get("xai-brain"),
        "metrics": select_metrics(config.evaluation.card.metrics),
        "evaluation": str({k: v for k, v in asdict(config.evaluation).items() if k not in OTHER_TABLES}),
        "atlas": atlas_files(config),
        "confounds": config.evaluation.group.confounds
        if config.evaluation.first_layer or config.evaluation.atlas
        else [],
        "cohort": is_readable(config) if config.evaluation.first_layer else None,
        "calibration": calibration_hash(config),
        "brain_size_column": config.data.brain_size_column,
        "participants": [file_hash(path) for path in (run.participants, run.folds) if path.exists()],
        "images": sorted(f"{path.name} {path.stat().st_size}" for path in images),
        "maps": map_states(maps),
    }


def write_tables(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> None:
    """Write all tables of evaluation/ except those that compare classes, and the mean maps of group/."""
    manifest = run.path / "evaluation" / "inputs.json"
    manifest.unlink(missing_ok=True)
    evaluate_regions(config, run, maps)
    table = pd.DataFrame(maps)
    settings = config.evaluation
    atlas = atlas_of(config)
    labels = atlas.on_grid(load_img(maps[0]["path"])) if atlas else None
    subjects = [rows for _, rows in table.groupby(["participant_id", "session_id", "seed"], sort=False)]
    score = partial(score_participant, run, labels, settings)
    scored = list(in_threads(score, subjects, "compare maps", "maps", len))
    agreements = [row for agreements, _ in scored for row in agreements]
    localizations = [row for _, localizations in scored for row in localizations]
    means, brain_masks, n_empty = write_class_maps(run, maps)
    for label, brain_mask in brain_masks.items():
        about = {"level": "class", "name": label, "session_id": "", "seed": "all"}
        agreements += agreements_of(means[label], brain_mask, about, settings)
    write_mean_truth(run, maps)

    write_tsv(pd.DataFrame(agreements), run.evaluation("agreement"))
    if localizations:
        write_tsv(pd.DataFrame(localizations), run.evaluation("localization"))
    summary = summarise(agreements, localizations, settings.n_bootstrap, settings.random_state)
    write_tsv(summary, run.evaluation("summary"))
    write_method_clusters(config, run, pd.DataFrame(agreements))
    metrics = metrics_of_tables(summary, localizations)
    metrics |= {f"empty_maps/{method}": float(n) for method, n in n_empty.items()}
    update_metrics(run, metrics, replace=("localization/", "empty_maps/"))
    write_card(config, run, table, localizations)
    write_calibration(config, run)
    evaluate_variance(config, run, table)
    evaluate_first_layer(config, run)
    made = [*map(run.evaluation, TABLES), *(run.path / "images").glob("[!.]*")]
    others = [*voxelwise_maps(run), *find_group_maps(run, quantities=[SHARES])]
    made += [path for each in find_group_maps(run) if each not in others for path in each.files]
    write_manifest(manifest, tables_inputs(config, run, maps), made)


def summarise(
    agreements: list[dict[str, Any]], localizations: list[dict[str, Any]], n_bootstrap: int, random_state: int
) -> pd.DataFrame:
    """Means over participants with bootstrap intervals; seeds of one participant are averaged first.

    A participant without a value for one of its seeds or sessions (an empty map) is excluded and not counted
    in ``n``.
    """
    rows = []
    if agreements:
        table = pd.DataFrame(agreements).query("level == 'subject'")
        table = table.assign(table="agreement", method=table["method_a"] + " × " + table["method_b"])
        rows.append(table.rename(columns={"name": "participant_id"}))
    if localizations:
        rows.append(pd.DataFrame(localizations).assign(table="localization", top_percent=np.nan))
    columns = ["table", "method", "metric", "top_percent", "mean", "ci_low", "ci_high", "chance", "n"]
    if not rows:
        return pd.DataFrame(columns=columns)
    result, table = [], pd.concat(rows)
    n_sessions = table.groupby("participant_id")["session_id"].nunique()
    groups = list(table.groupby(columns[:4], dropna=False, sort=False))
    for key, group in track(groups, "summarise metrics", "means", brief=True):
        known = group.dropna(subset=["value"])
        n_known = known.groupby("participant_id").size()
        whole = n_known.index[n_known == n_sessions[n_known.index] * group["seed"].nunique()]
        subjects = (
            known[known["participant_id"].isin(whole)].groupby("participant_id")[["value", "chance"]].mean()
        )
        mean, low, high = bootstrap_mean(subjects["value"].to_numpy(), n_bootstrap, random_state)
        result.append((*key, mean, low, high, subjects["chance"].mean(), len(subjects)))
    return pd.DataFrame(result, columns=columns)


def write_method_clusters(config: Config, run: RunDirectory, agreements: pd.DataFrame) -> None:
    """Write evaluation/method_clusters.tsv; three methods or more are needed."""
    run.evaluation("method_clusters").unlink(missing_ok=True)
    settings = config.evaluation
    merges, left_out = cluster_methods(
        agreements,
        settings.n_bootstrap,
        settings.random_state,
        progress=partial(track, description="cluster methods, bootstrap", unit="samples", brief=True),
    )
    if left_out:
        log(f"evaluate: excluded from the clusters of methods for lack of maps: {', '.join(left_out)}")
    if len(merges):
        write_tsv(merges, run.evaluation("method_clusters"))

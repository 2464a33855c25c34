"""Compute the metrics of maps that need the networks of a run; existing values are kept.

The folder evaluation/metrics contains one file per method, network and function of the table METRICS.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from xai_brain.attribution.protocol import method_info
from xai_brain.config.schema import Config
from xai_brain.io.atomic import file_hash
from xai_brain.metrics.table import METRICS, Metric, select_metrics
from xai_brain.parallel.locks import run_shared
from xai_brain.parallel.memory import return_freed_memory
from xai_brain.parallel.progress import log, track
from xai_brain.parallel.shards import select_shard
from xai_brain.runs.directory import RunDirectory, read_tsv, write_tsv
from xai_brain.runs.manifest import is_up_to_date, write_manifest
from xai_brain.runs.seeds import network_name
from xai_brain.study.evaluation.context import EvaluationContext
from xai_brain.study.evaluation.network_metrics import cascade_path
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.training.networks import load_networks


def compute_metrics(config: Config, run: RunDirectory, maps: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Compute the metrics that need a network, for some participants and the networks of the first seed.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    maps : pandas.DataFrame
        From `find_maps`.

    Returns
    -------
    values : pandas.DataFrame
        participant_id, session_id, seed, fold, method, kind, metric, value, chance.
    n_left : int
        Units of work that are left to other shards.
    """
    card = config.evaluation.card
    selected = [name for name in select_metrics(card.metrics) if METRICS[name].needs_network]
    units = {
        unit: metrics
        for unit, metrics in _units().items()
        if any(metric.name in selected for metric in metrics)
    }
    labels = [label for label in dict.fromkeys(maps["method"]) if label in config.attribution]
    if not units or not labels or config.networks:  # a mean map of several networks has no single network
        return pd.DataFrame(), 0
    chosen = choose_subjects(maps, max(getattr(card, metrics[0].participants) for metrics in units.values()))
    cohort = same_cohort(prepared_cohort(config, run), run)
    networks = load_networks(config, run)
    work_of = {
        (seed, fold): {
            f"{label}_{network_name(seed, fold)}_{unit}": (unit, label) for unit in units for label in labels
        }
        for seed, fold in networks
    }
    shard = select_shard((name for work in work_of.values() for name in work), config.shard)
    requested = []
    for (seed, fold), (network,) in networks.items():
        rows = chosen[(chosen["seed"] == seed) & (chosen["fold"] == fold)]
        if rows.empty:
            continue
        context = EvaluationContext(config, run, cohort, network, network.load(config), rows)
        work = work_of[seed, fold]
        run_shared(
            run.locks,
            {name: one for name, one in work.items() if name in shard},
            done=partial(_is_computed, context),
            do=partial(_compute, context),
            progress=partial(track, description=f"metrics seed {seed} fold {fold + 1}", unit="files"),
            wait=lambda n: log(f"metrics: waiting for {n} units that other processes compute"),
            stay=config.shard is None,
        )
        context = replace(context, shared={})  # results of one network are not kept for the next
        requested += [(context, one) for one in work.values()]
    computed = [
        (context, one) for context, one in requested if config.shard is None or _is_computed(context, one)
    ]
    n_left = len(requested) - len(computed)
    tables = [_table(context, *one) for context, one in computed]
    if not any(len(table) for table in tables):  # all units are left to other shards
        return pd.DataFrame(), n_left
    table = pd.concat(tables, ignore_index=True)
    return table[table["metric"].isin(selected)], n_left


def _units() -> dict[str, list[Metric]]:
    """Metrics that are computed together, by the name of their function, which names their files."""
    units: dict[str, list[Metric]] = {}
    for metric in METRICS.values():
        if metric.needs_network:
            name = metric.function.rpartition(".")[2].removesuffix("_scores")
            units.setdefault(name, []).append(metric)
    return units


def choose_subjects(maps: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first n participants of the first seed, alternating fold and class; ``number`` counts them."""
    images = maps[maps["seed"] == maps["seed"].min()].drop_duplicates(["participant_id", "session_id"])
    turn = images.groupby(["fold", "label"]).cumcount()
    images = images.assign(turn=turn).sort_values(["turn", "label", "fold"], kind="stable").head(n)
    return images.assign(number=np.arange(len(images)))


def _select_participants(context: EvaluationContext, unit: str) -> EvaluationContext:
    """The context of the participants for which a unit is computed."""
    return context.head(getattr(context.card, _units()[unit][0].participants))


def _path(context: EvaluationContext, unit: str, label: str) -> Path:
    name = f"desc-{label}_{network_name(context.network.seed, context.network.fold)}_{unit}.tsv"
    return context.run.path / "evaluation" / "metrics" / name


def _is_computed(context: EvaluationContext, work: tuple[str, str]) -> bool:
    """Whether the file of a unit exists and was made from the same network, maps and settings."""
    unit, label = work
    context = _select_participants(context, unit)
    path = _path(context, unit, label)
    manifest = path.with_suffix(".json")
    return context.rows.empty or (path.exists() and is_up_to_date(manifest, _inputs_hash(context, label)))


def _table(context: EvaluationContext, unit: str, label: str) -> pd.DataFrame:
    if _select_participants(context, unit).rows.empty:
        return pd.DataFrame()
    return read_tsv(_path(context, unit, label))


def _compute(context: EvaluationContext, work: tuple[str, str]) -> None:
    """Write the file of one unit."""
    unit, label = work
    context = _select_participants(context, unit)
    path = _path(context, unit, label)
    manifest = path.with_suffix(".json")
    manifest.unlink(missing_ok=True)
    kind = "baseline" if method_info(context.method(label)).is_baseline else "method"
    ids = context.rows[["participant_id", "session_id", "seed", "fold"]].reset_index(drop=True)
    function = _units()[unit][0].load_function()
    tables = [
        ids.assign(method=label, kind=kind, metric=name, value=value, chance=chance)
        for name, (value, chance) in function(context, label).items()
    ]
    write_tsv(pd.concat(tables, ignore_index=True), path)
    cascade = cascade_path(context, label)
    files = [path, cascade] if unit == "parameter_randomization" else [path]
    write_manifest(manifest, _inputs_hash(context, label), files)
    return_freed_memory()


def _inputs_hash(context: EvaluationContext, label: str) -> str:
    """Hash that changes with the network, the maps, the participants or the settings of the metrics."""
    card = {key: value for key, value in asdict(context.card).items() if key != "metrics"}
    maps = [file_hash(Path(path)) for path in context.map_paths(label)]
    method = str(context.config.attribution[label])
    parts = [context.network.sha256, str(card), method, str(maps)]
    return sha256(" ".join(parts).encode()).hexdigest()

"""Let the networks of a run judge its maps. What is judged is not judged again.

One file per method, network and judge lies below evaluation/judges.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from xai_brain.attribution.protocol import method_info
from xai_brain.io.atomic import file_hash
from xai_brain.parallel.locks import run_shared
from xai_brain.parallel.memory import return_freed_memory
from xai_brain.parallel.progress import log, track
from xai_brain.parallel.shards import select_shard
from xai_brain.runs.directory import RunDirectory, is_up_to_date, read_tsv, write_manifest, write_tsv
from xai_brain.study.evaluation import network_metrics as ask
from xai_brain.study.evaluation.context import EvaluationContext
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.training.networks import load_networks

# unit of work: the judges that come of it, the setting of how many subjects, the function
UNITS = {
    "removal": (("deletion", "insertion"), "n_removal", ask.deletion_insertion_scores),
    "blocks": (("infidelity",), "n_removal", ask.infidelity_scores),
    "weights": (("mprt",), "n_sanity", ask.by_random_weights),
    "labels": (("label_randomization", "rra_permuted"), "n_sanity", ask.by_permuted_labels),
    "noise": (("noise_stability",), "n_noise", ask.by_noise),
    "sensitivity": (("max_sensitivity",), "n_noise", ask.by_small_noise),
    "cost": (("seconds", "peak_mb"), "n_cost", ask.by_cost),
}


def compute_metrics(cfg: DictConfig, run: RunDirectory, maps: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Ask the networks of the first seed about the maps of some subjects.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
    run : RunDirectory
    maps : pandas.DataFrame
        From `find_maps`.

    Returns
    -------
    judged : pandas.DataFrame
        participant_id, session_id, seed, fold, method, kind, judge, value, chance.
    n_left : int
        Units of work that are left to other shards.
    """
    card = cfg.evaluation.card
    units = [unit for unit, (judges, _, _) in UNITS.items() if set(judges) & set(card.judges)]
    labels = [label for label in dict.fromkeys(maps["method"]) if label in cfg.attribution]
    if not units or not labels or cfg.networks:  # a mean map of many networks is judged by none of them
        return pd.DataFrame(), 0
    chosen = choose_subjects(maps, max(card[UNITS[unit][1]] for unit in units))
    cohort = same_cohort(prepared_cohort(cfg, run), run)
    networks = load_networks(cfg, run)
    work_of = {
        (seed, fold): {
            f"{label}_seed-{seed}_fold-{fold}_{unit}": (unit, label) for unit in units for label in labels
        }
        for seed, fold in networks
    }
    mine = select_shard((name for work in work_of.values() for name in work), cfg.shard)
    asked = []
    for (seed, fold), (network,) in networks.items():
        rows = chosen[(chosen["seed"] == seed) & (chosen["fold"] == fold)]
        if rows.empty:
            continue
        bench = EvaluationContext(cfg, run, cohort, network, network.load(cfg), rows)
        work = work_of[seed, fold]
        run_shared(
            run.locks,
            {name: one for name, one in work.items() if name in mine},
            done=partial(_is_computed, bench),
            do=partial(_compute, bench),
            progress=partial(track, description=f"judge seed {seed} fold {fold + 1}"),
            wait=lambda n: log(f"judge: waiting for {n} units that other processes judge"),
            stay=cfg.shard is None,
        )
        bench = replace(bench, shared={})  # what the judges made of one network is not kept for the next
        asked += [(bench, one) for one in work.values()]
    judged = [(bench, one) for bench, one in asked if cfg.shard is None or _is_computed(bench, one)]
    n_left = len(asked) - len(judged)
    tables = [_table(bench, *one) for bench, one in judged]
    if not any(len(table) for table in tables):  # all are left to others
        return pd.DataFrame(), n_left
    table = pd.concat(tables, ignore_index=True)
    return table[table["judge"].isin(card.judges)], n_left


def choose_subjects(maps: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first n subjects of the first seed, in turns of fold and class; ``number`` counts them."""
    people = maps[maps["seed"] == maps["seed"].min()].drop_duplicates(["participant_id", "session_id"])
    turn = people.groupby(["fold", "label"]).cumcount()
    people = people.assign(turn=turn).sort_values(["turn", "label", "fold"], kind="stable").head(n)
    return people.assign(number=np.arange(len(people)))


def _asked(bench: EvaluationContext, unit: str) -> EvaluationContext:
    """The subjects that a judge is asked about."""
    return bench.head(bench.card[UNITS[unit][1]])


def _path(bench: EvaluationContext, unit: str, label: str) -> Path:
    name = f"desc-{label}_seed-{bench.network.seed}_fold-{bench.network.fold}_{unit}.tsv"
    return bench.run.path / "evaluation" / "judges" / name


def _is_computed(bench: EvaluationContext, work: tuple[str, str]) -> bool:
    """Whether the file of a unit is there, and of the same network, maps and settings."""
    unit, label = work
    bench = _asked(bench, unit)
    path = _path(bench, unit, label)
    beside = path.with_suffix(".json")
    return bench.rows.empty or (path.exists() and is_up_to_date(beside, _stamp(bench, label)))


def _table(bench: EvaluationContext, unit: str, label: str) -> pd.DataFrame:
    return pd.DataFrame() if _asked(bench, unit).rows.empty else read_tsv(_path(bench, unit, label))


def _compute(bench: EvaluationContext, work: tuple[str, str]) -> None:
    """Make the file of one unit."""
    unit, label = work
    bench = _asked(bench, unit)
    judge = UNITS[unit][2]
    path = _path(bench, unit, label)
    beside = path.with_suffix(".json")
    beside.unlink(missing_ok=True)
    kind = "baseline" if method_info(bench.method(label)).is_baseline else "method"
    ids = bench.rows[["participant_id", "session_id", "seed", "fold"]].reset_index(drop=True)
    tables = [
        ids.assign(method=label, kind=kind, judge=judge_name, value=value, chance=chance)
        for judge_name, (value, chance) in judge(bench, label).items()
    ]
    write_tsv(pd.concat(tables, ignore_index=True), path)
    cascade = path.with_name(f"{path.stem.removesuffix(unit)}cascade.tsv")  # of random weights
    made = [path, cascade] if unit == "weights" else [path]
    write_manifest(beside, _stamp(bench, label), made)
    return_freed_memory()


def _stamp(bench: EvaluationContext, label: str) -> str:
    """What changes when the network, the maps, the subjects or the settings of the judges do."""
    card = {key: value for key, value in bench.card.items() if key != "judges"}
    maps = [file_hash(Path(path)) for path in bench.map_paths(label)]
    parts = [bench.network.sha256, str(card), OmegaConf.to_yaml(bench.cfg.attribution[label]), str(maps)]
    return sha256(" ".join(parts).encode()).hexdigest()

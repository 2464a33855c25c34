"""Let the networks of a run judge its maps. What is judged is not judged again.

One file per method, network and judge lies below evaluation/judges.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from xai_brain.commands import network_judges as ask
from xai_brain.commands.bench import Bench
from xai_brain.commands.cohort import prepared_cohort, same_cohort
from xai_brain.commands.networks import networks_of
from xai_brain.commands.progress import track
from xai_brain.models.fitting import return_freed_memory
from xai_brain.runs import RunDirectory, read_json, read_tsv, write_json, write_tsv
from xai_brain.volumes import file_hash

# unit of work: the judges that come of it, the setting of how many subjects, the function
UNITS = {
    "removal": (("deletion", "insertion"), "n_removal", ask.by_removal),
    "blocks": (("infidelity",), "n_removal", ask.by_blocks),
    "weights": (("mprt",), "n_sanity", ask.by_random_weights),
    "labels": (("label_randomization", "rra_permuted"), "n_sanity", ask.by_permuted_labels),
    "noise": (("noise_stability",), "n_noise", ask.by_noise),
    "sensitivity": (("max_sensitivity",), "n_noise", ask.by_small_noise),
    "cost": (("seconds", "peak_mb"), "n_cost", ask.by_cost),
}


def judge_networks(cfg: DictConfig, run: RunDirectory, maps: pd.DataFrame) -> pd.DataFrame:
    """Ask the networks of the first seed about the maps of some subjects.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
    run : RunDirectory
    maps : pandas.DataFrame
        From `find_maps`.

    Returns
    -------
    pandas.DataFrame
        participant_id, session_id, seed, fold, method, kind, judge, value, chance.
    """
    card = cfg.evaluation.card
    units = [unit for unit, (judges, _, _) in UNITS.items() if set(judges) & set(card.judges)]
    labels = [label for label in dict.fromkeys(maps["method"]) if label in cfg.attribution]
    if not units or not labels or cfg.networks:  # a mean map of many networks is judged by none of them
        return pd.DataFrame()
    chosen = choose_subjects(maps, max(card[UNITS[unit][1]] for unit in units))
    cohort = same_cohort(prepared_cohort(cfg, run), run)
    tables = []
    for (seed, fold), (network,) in networks_of(cfg, run).items():
        rows = chosen[(chosen["seed"] == seed) & (chosen["fold"] == fold)]
        if rows.empty:
            continue
        bench = Bench(cfg, run, cohort, network, network.load(cfg), rows)
        work = [(unit, label) for unit in units for label in labels]
        for unit, label in track(work, f"judge seed {seed} fold {fold + 1}"):
            tables.append(_judged(bench, unit, label))
            return_freed_memory()
    table = pd.concat(tables, ignore_index=True)
    return table[table["judge"].isin(card.judges)]


def choose_subjects(maps: pd.DataFrame, n: int) -> pd.DataFrame:
    """The first n subjects of the first seed, in turns of fold and class; ``number`` counts them."""
    people = maps[maps["seed"] == maps["seed"].min()].drop_duplicates(["participant_id", "session_id"])
    turn = people.groupby(["fold", "label"]).cumcount()
    people = people.assign(turn=turn).sort_values(["turn", "label", "fold"], kind="stable").head(n)
    return people.assign(number=np.arange(len(people)))


def _judged(bench: Bench, unit: str, label: str) -> pd.DataFrame:
    """Rows of one unit; read from its file when that is of the same network, maps and settings."""
    _, how_many, judge = UNITS[unit]
    bench = bench.with_first(bench.card[how_many])
    if bench.rows.empty:
        return pd.DataFrame()
    network = bench.network
    name = f"desc-{label}_seed-{network.seed}_fold-{network.fold}_{unit}.tsv"
    path = bench.run.path / "evaluation" / "judges" / name
    stamp, beside = {"Of": _stamp(bench, label)}, path.with_suffix(".json")
    if path.exists() and beside.exists() and read_json(beside) == stamp:
        return read_tsv(path)
    beside.unlink(missing_ok=True)
    kind = getattr(bench.method(label), "kind", "method")
    ids = bench.rows[["participant_id", "session_id", "seed", "fold"]].reset_index(drop=True)
    tables = [
        ids.assign(method=label, kind=kind, judge=judge_name, value=value, chance=chance)
        for judge_name, (value, chance) in judge(bench, label).items()
    ]
    table = pd.concat(tables, ignore_index=True)
    write_tsv(table, path)
    write_json(stamp, beside)
    return table


def _stamp(bench: Bench, label: str) -> str:
    """What changes when the network, the maps, the subjects or the settings of the judges do."""
    card = {key: value for key, value in bench.card.items() if key != "judges"}
    maps = [file_hash(Path(path)) for path in bench.map_paths(label)]
    parts = [bench.network.sha256, str(card), OmegaConf.to_yaml(bench.cfg.attribution[label]), str(maps)]
    return sha256(" ".join(parts).encode()).hexdigest()

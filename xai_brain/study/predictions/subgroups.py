"""Performance of the networks of a run by subgroup: evaluation/subgroups.tsv."""

from __future__ import annotations

from typing import Any

import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory, read_tsv, write_tsv
from xai_brain.runs.manifest import is_up_to_date, write_manifest
from xai_brain.runs.provenance import versions
from xai_brain.statistics.confounds.subgroups import MANY_SUBGROUPS, subgroup_table, subgroups_of
from xai_brain.task.build import task_of_table
from xai_brain.task.labels import is_label

DEFAULT_COLUMNS = ("sex", "age", "site")


def evaluate_subgroups(config: Config, run: RunDirectory) -> bool:
    """Write evaluation/subgroups.tsv if predictions or settings have changed; returns whether it did.

    Raises
    ------
    ConfigError
        ``evaluation.subgroups`` names a column that does not exist, the target, or one without subgroups.
    """
    if not (run.predictions.exists() and run.participants.exists()):
        return False
    found, manifest = run.evaluation("subgroups"), run.path / "evaluation" / "subgroups.json"
    inputs = {
        "version": versions().get("xai-brain"),
        "tables": [file_hash(run.predictions), file_hash(run.participants)],
        "subgroups": config.evaluation.subgroups,
        "n_bootstrap": config.evaluation.n_bootstrap,
        "random_state": config.evaluation.random_state,
    }

    def is_current() -> bool:
        return is_up_to_date(manifest, inputs)

    def write() -> None:
        table = _table(config, run)
        found.unlink(missing_ok=True)
        if table is not None:
            write_tsv(table, found)
        write_manifest(manifest, inputs, [found])

    if is_current():
        return False
    run_exclusive(run.locks, "subgroups", write, is_current)
    return True


def _table(config: Config, run: RunDirectory) -> pd.DataFrame | None:
    participants = read_tsv(run.participants).drop_duplicates("participant_id").set_index("participant_id")
    subgroups = chosen_subgroups(config, participants)
    predictions = read_tsv(run.predictions)
    task = task_of_table(config.task, predictions.columns)
    if not subgroups or not task.can_be_scored(predictions["target"].to_numpy()):
        return None
    about: dict[str, Any] = {"class_names": task.names} if task.has_classes else {"column": task.columns[0]}
    settings = config.evaluation
    return subgroup_table(
        predictions, subgroups, **about, n_bootstrap=settings.n_bootstrap, random_state=settings.random_state
    )


def chosen_subgroups(config: Config, participants: pd.DataFrame) -> dict[str, pd.Series]:
    """Subgroups of the participants (rows, by participant_id) for each column of ``evaluation.subgroups``."""
    asked = config.evaluation.subgroups
    found = {}
    for name in DEFAULT_COLUMNS if asked is None else asked:
        where = f"evaluation.subgroups={name}"
        # random classes of planted effects are not the values of a column
        if name in ("label", "target") or (not config.planted.kind and is_label(name, config.data.label)):
            if asked is not None:
                raise ConfigError(f"{where}: is the target, which is no subgroup; leave it out")
            continue
        if name not in participants:
            if asked is not None:
                raise ConfigError(f"{where}: not in participants.tsv; name one of its columns")
            continue
        subgroups = subgroups_of(participants[name])
        if subgroups is None:
            if asked is not None:
                raise ConfigError(f"{where}: has fewer than 2 or more than {MANY_SUBGROUPS} subgroups")
            log(f"evaluate: {name} has fewer than 2 or more than {MANY_SUBGROUPS} subgroups; not used")
            continue
        found[name] = subgroups
    return found

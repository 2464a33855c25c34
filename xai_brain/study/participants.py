"""Find and prepare the cohort of a run, and check that it has not changed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.config.data import DataConfig, SyntheticDataConfig
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.cache import cache_errors, default_cache_dir, locks
from xai_brain.data.cohort import prepare_cohort
from xai_brain.data.participants import load_participants
from xai_brain.data.planted.draws import CLASS_NAMES
from xai_brain.io.atomic import remove_partial_files
from xai_brain.io.nifti import get_grid
from xai_brain.io.problems import DataError, Problems
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import log, log_warning, track
from xai_brain.runs.directory import RunDirectory, read_tsv, write_tsv
from xai_brain.study.confounds import check_confounds
from xai_brain.task.build import build_task
from xai_brain.task.labels import class_named
from xai_brain.task.protocol import Task


def prepared_cohort(config: Config, run: RunDirectory) -> pd.DataFrame:
    """Find and prepare every image; unusable inputs stop the run or are listed in quarantine.tsv.

    Returns
    -------
    pandas.DataFrame
        As from `xai_brain.data.cohort.prepare_cohort`, including planted effects.
    """
    problems = Problems(config.data.on_error)
    with cache_errors(config.data.cache_dir):
        try:
            participants = find_participants(config, problems)
            check_table_settings(config, participants)
            table = prepare_volumes(config, participants, problems)
        finally:
            _write_quarantine(problems, run)
        return with_planted_effect(config, table)


def find_participants(config: Config, problems: Problems) -> pd.DataFrame:
    """Participants with their images and labels, as from `xai_brain.data.participants.load_participants`."""
    data = config.data
    return load_participants(
        "bids" if data.layout == "synthetic" else data.layout,
        cohort_root(config),
        label=data.label,
        class_names=list(data.class_names) if data.class_names else None,
        threshold=data.threshold,
        bins=data.bins or None,
        participants=data.participants or None,
        problems=problems,
        every_class=not config.networks,
        report_spellings=data.layout != "synthetic",
        task=build_task(config.task),
        **source_settings(data),
    )


def check_table_settings(config: Config, participants: pd.DataFrame) -> None:
    """Raise an error early if a setting names columns, classes or targets that the table does not have.

    Raises
    ------
    ConfigError
        The message contains the setting, its value and the valid ones.
    """
    if config.networks:  # the table of new participants may lack columns that training needed
        return
    folds = config.folds
    columns: dict[str, Sequence[str | None]] = {
        "folds.column": [folds.column] if folds.kind == "column" and not folds.path else [],
        "folds.group_column": [folds.group_column],
        "folds.balance_on": folds.balance_on,
        "folds.allow_shared": folds.allow_shared,
        "data.brain_size_column": [config.data.brain_size_column],
        "evaluation.group.confounds": config.evaluation.group.confounds or [],
        "evaluation.subgroups": config.evaluation.subgroups or [],
    }
    there = [*participants, "fold", *(["site"] if config.planted.n_sites > 1 else [])]
    for key, names in columns.items():
        for name in names:
            if name is not None and name not in there:
                near = difflib.get_close_matches(name, there, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                listed = ", ".join(column for column in participants if not str(column).endswith("_path"))
                raise ConfigError(f"{key}={name}: not in participants.tsv{hint} (its columns: {listed})")
    task = task_of(config, participants)
    check_confounds(config, task, participants)
    if config.planted.kind:
        task = task.with_names(CLASS_NAMES)
    task.read_target(config.explain.target)
    valid = ("joint", *task.names)
    which = [class_named(name, task.names) for name in config.evaluation.masks.which or []]
    if unknown := [name for name in which if name not in valid]:
        raise ConfigError(
            f"evaluation.masks.which: there is no {unknown[0]!r}; there are {', '.join(map(str, valid))}"
        )


def prepare_volumes(config: Config, participants: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """Prepared volumes of all participants; their labels are checked, unless given networks predict them."""
    data, table = config.data, prepare_images(config, participants, problems)
    if not config.networks:
        task = task_of(config, participants)
        given = (data.class_names if task.has_classes else None) or task.names
        names = [class_named(str(name), task.names) for name in given]
        task.check_cohort(table, names, data.label or "class", str(cohort_root(config)))
    return table


def prepare_images(config: Config, participants: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """Prepared volumes, from the cache where available, whatever the labels are."""
    data = config.data
    table = prepare_cohort(
        participants,
        config.preprocessing,
        cache_dir=data.cache_dir,
        space=data.space,
        orientation=data.orientation,
        space_check=data.space_check,
        problems=problems,
        num_workers=data.num_workers,
        progress=lambda rows: track(rows, "prepare volumes", unit="images"),
    )
    _log_space_warnings(table)
    return table


def with_planted_effect(config: Config, cohort: pd.DataFrame) -> pd.DataFrame:
    """The cohort with random classes and an effect in one of them, if the settings request it."""
    if config.planted.kind is None:
        return cohort
    from xai_brain.data.planted.effects import plant

    return plant(
        cohort,
        config.planted,
        get_grid(config.preprocessing.grid),
        cache_dir=config.data.cache_dir,
        progress=lambda rows: track(rows, "plant effects", unit="images"),
    )


def same_cohort(cohort: pd.DataFrame, run: RunDirectory) -> pd.DataFrame:
    """Participants of an existing run, checked to be unchanged; new participants are logged and excluded.

    Raises
    ------
    DataError
        A participant is missing, or its image or class has changed, so that its fold is no longer valid.
    """
    saved = read_tsv(run.participants)
    keys = ["participant_id", "session_id"]
    now = cohort.set_index(keys)
    for row in saved.itertuples():
        key = (row.participant_id, row.session_id)
        if key not in now.index:
            what = "can no longer be used"
        elif now.loc[key, "sha256"] != row.sha256:
            what = "the image has changed since training"
        elif now.loc[key, "label"] != row.label:
            what = f"was {row.label} at training and is {now.loc[key, 'label']} now"
        else:
            continue
        raise DataError(f"{row.t1w_path}: {row.participant_id}: {what}; restore it, or use another run_dir")
    if new := len(cohort) - len(saved):
        log(f"{new} images were added after the run was started; they are excluded")
    return saved[keys].merge(cohort, on=keys, how="left")


def source_settings(data: DataConfig) -> dict[str, Any]:
    """Settings that belong to the layout, such as tables, entities and image."""
    common = {field.name for field in fields(DataConfig)} - {"tables", "entities"}
    return {key: value for key, value in asdict(data).items() if key not in {*common, "cohort"}}


def _write_quarantine(problems: Problems, run: RunDirectory) -> None:
    if problems.rows and not any((run.path / "checkpoints").glob("*.ckpt")):
        write_tsv(problems.table(), run.quarantine)
        log(f"{len(problems.rows)} inputs excluded, see {run.quarantine}")


def _log_space_warnings(table: pd.DataFrame) -> None:
    for row in table[table["space_warning"] != ""].itertuples():
        log_warning(f"{row.t1w_path}: {row.space_warning} (used because of data.space_check=warn)")


def synthetic_root(config: Config) -> Path:
    """Folder of the embedded cohort, created if it is not in the cache."""
    from hashlib import sha256

    from xai_brain.data.layouts.synthetic import RECIPE, make_synthetic_cohort
    from xai_brain.data.planted.synthetic_subject import SyntheticSettings

    assert isinstance(config.data, SyntheticDataConfig)
    settings = SyntheticSettings(**config.data.cohort)
    key = sha256(repr((RECIPE, sorted(asdict(settings).items()))).encode()).hexdigest()[:12]
    cache = Path(config.data.cache_dir).expanduser() if config.data.cache_dir else default_cache_dir()
    root = cache / "synthetic" / key
    progress = partial(track, description="make the cohort", unit="participants", brief=True)
    if not root.exists():
        remove_partial_files(root.parent)
        run_exclusive(
            locks(cache),
            f"synthetic-{key}",
            lambda: make_synthetic_cohort(root, settings, progress),
            root.exists,
        )
    return make_synthetic_cohort(root, settings)  # checks the existing files


def cohort_root(config: Config) -> Path:
    """Folder that contains all images of the cohort."""
    return synthetic_root(config) if config.data.layout == "synthetic" else config.data.folder


def input_hashes(table: pd.DataFrame, root: Path) -> dict[str, str]:
    """SHA-256 of every image of a prepared cohort, by its path relative to the folder of the cohort."""
    return {relative_path(row.t1w_path, root): row.sha256 for row in table.itertuples()}


def portable(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Table for participants.tsv; image paths are relative to the folder of the cohort."""
    if "source_volume_path" in table:  # images/ of the run contains the mask
        table = table.drop(columns="source_volume_path").assign(truth_path=None)
    table = table.drop(columns=["volume_path", "volume_mask_path", "alignment_path"])
    if not table["space_warning"].any():
        table = table.drop(columns="space_warning")
    for column in ("t1w_path", "brain_mask_path", "truth_path"):
        table[column] = [None if pd.isna(path) else relative_path(path, root) for path in table[column]]
    return table


def relative_path(path: str | Path, root: Path) -> str:
    """Path relative to a folder; unlike the file name, it is unique for every image of a cohort."""
    return str(Path(path).relative_to(root))


def is_readable(config: Config) -> bool:
    """Whether the folder of the cohort exists."""
    return config.data.layout == "synthetic" or config.data.folder.exists()


def class_names(table: pd.DataFrame) -> list[str]:
    """Class names in the order of the class index."""
    return table.drop_duplicates("target").sort_values("target")["label"].tolist()


def task_of(config: Config, participants: pd.DataFrame) -> Task:
    """The task of a run, with the names of its outputs."""
    task = build_task(config.task)
    return task.with_names(task.names_of(participants, config.data.label or ""))


def require_classes(config: Config, command: str, *, or_number: bool = False) -> None:
    """Raise an error if the task of the networks has no classes to compare, nor, if it suffices, a number.

    Raises
    ------
    ConfigError
    """
    task = build_task(config.task)
    if not (task.has_classes or (or_number and task.reported_as == "number")):
        others = ", evaluate and report" if task.reported_as else ""
        raise ConfigError(
            f"task._target_={config.task['_target_']}: `xai-brain {command}` compares classes, which this "
            f"task does not have; train, predict{',' if others else ' and'} explain{others} are available"
        )

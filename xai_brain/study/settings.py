"""Open the run directory of a stage: register the process and compare the settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from xai_brain.config.saved import (
    EXPLAINING,
    TRAINING,
    is_unaltered,
    saved_settings,
    settings_text,
    settings_to_save,
)
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import remove_partial_files, this_process, write_atomic
from xai_brain.io.text_tables import read_text
from xai_brain.parallel.locks import is_locked, lock, remove_stale_locks, run_exclusive
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.settings_conflicts import (
    method_of_setting,
    refuse_foreign_folder,
    refuse_or_overwrite,
    remove_results,
    settings_differences,
)
from xai_brain.task.build import task_of_table
from xai_brain.task.protocol import Task

AT_WORK = "at-work"  # locks of this name mark processes, not units of work


def stage(work: Callable[[Config], RunDirectory]) -> Callable[[Config], RunDirectory]:
    """Decorate a stage so that its process is registered in the run directory while it runs."""

    @wraps(work)
    def register_process(config: Config) -> RunDirectory:
        run = RunDirectory(Path(config.run_dir))
        refuse_foreign_folder(config, run)
        made_here = not run.path.exists()
        presence = lock(run.locks, f"{AT_WORK}-{this_process()}")
        try:
            presence.__enter__()
        except OSError:  # finished results can be opened in a read-only folder
            return work(config)
        try:
            return work(config)
        finally:
            remove_stale_locks(run.locks)
            presence.__exit__(None, None, None)
            if made_here:
                with suppress(OSError):  # removes the folder if it is empty
                    run.path.rmdir()

    return register_process


def open_run(config: Config) -> RunDirectory:
    """Create the run directory, or check that an existing one has the same settings.

    If a setting conflicts with the existing run, an error lists the differences; with ``overwrite=true``
    results that depend on it are removed, unless another process uses the run. New methods are added.
    """
    run = RunDirectory(Path(config.run_dir))
    if method := config.harmonization.method:  # of `xai-brain baselines` it is a setting of each baseline
        raise ConfigError(
            f"harmonization={method}: the volumes of networks are not harmonised; use it in `xai-brain "
            "baselines` on a trained run"
        )
    refuse_foreign_folder(config, run)
    effective = os.access in os.supports_effective_ids
    if run.config.exists() and not os.access(run.path, os.W_OK, effective_ids=effective):
        _open(config, run)
        return run
    run_exclusive(run.locks, "settings", lambda: _open(config, run))
    remove_partial_files(run.path)
    return run


def _open(config: Config, run: RunDirectory) -> None:
    new = settings_to_save(config)
    old: dict[str, Any] = {}
    if run.config.exists():
        old = settings_to_save(saved_settings(run.config))
    if run.predictions.exists():
        task = task_of_table(config.task, read_tsv(run.predictions).columns)
        for settings in filter(None, (old, new)):
            _use_own_names(settings, task)
        config.explain.target = new["explain"]["target"]
        config.evaluation.masks.which = new["evaluation"]["masks"]["which"]
    trained = any((run.path / "checkpoints").glob("*.ckpt"))
    if old and bool(old["networks"]) != bool(new["networks"]):
        raise ConfigError(
            f"{run.path} holds {'predictions of new participants' if old['networks'] else 'a trained run'}; "
            "use another run_dir"
        )
    finished, in_use = trained or run.predictions.exists(), is_locked(run.locks)
    if old and (finished or in_use):
        if training := settings_differences(old, new, TRAINING):
            refuse_or_overwrite(config, run, training)
            remove_results(run, everything=True)
            old = {}
        elif finished and any(old["data"].get(key) != new["data"].get(key) for key in ("root", "tables")):
            same_cohort(prepared_cohort(config, run), run)
    # methods that have maps keep their settings
    explained = {
        label: method
        for label, method in old.get("attribution", {}).items()
        if in_use or any((run.path / "attributions").rglob(f"*_desc-{label}_attribution.json"))
    }
    if explained:
        explaining = settings_differences(old, new, EXPLAINING)
        keys = tuple(f"attribution.{label}" for label in explained if label in new["attribution"])
        altered = settings_differences(old, new, keys)
        if explaining or altered:
            refuse_or_overwrite(config, run, explaining + altered)
            remove_results(
                run,
                everything=False,
                methods=None if explaining else [method_of_setting(line) for line in altered],
            )
    new["attribution"] = {**explained, **new["attribution"]}
    new["baselines"] = {**_fitted_baselines(config, run, old, new), **new["baselines"]}
    text = settings_text(new)
    if old and is_unaltered(before := read_text(run.config)) is False:  # verify keeps reporting it
        text = before.partition("\n")[0] + "\n" + text.partition("\n")[2]
    if not run.config.exists() or read_text(run.config) != text:
        write_atomic(run.config, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    config.attribution, config.baselines = new["attribution"], new["baselines"]


def _use_own_names(settings: dict[str, Any], task: Task) -> None:
    """Name classes as the task does: M and male may be the same class."""
    settings["explain"]["target"] = task.in_own_names(settings["explain"]["target"])
    masks = settings["evaluation"]["masks"]
    masks["which"] = masks["which"] and [task.in_own_names(name) for name in masks["which"]]


def _fitted_baselines(
    config: Config, run: RunDirectory, old: dict[str, Any], new: dict[str, Any]
) -> dict[str, Any]:
    """Baselines that have results keep their settings."""
    fitted = {
        name: settings
        for name, settings in old.get("baselines", {}).items()
        if (run.path / "baselines" / name).is_dir()
    }
    keys = tuple(f"baselines.{name}" for name in fitted if name in new["baselines"])
    if altered := settings_differences(old, new, keys):
        refuse_or_overwrite(config, run, altered)
        for name in {method_of_setting(line) for line in altered}:
            shutil.rmtree(run.path / "baselines" / name)
    return fitted

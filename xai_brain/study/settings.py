"""What every stage begins with: the run directory, registered as in use, with its settings."""

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
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.settings_conflicts import (
    method_of_setting,
    refuse_foreign_folder,
    refuse_or_overwrite,
    remove_results,
    settings_differences,
)

AT_WORK = "at-work"  # locks of this name belong to processes, not to units of work


def stage(work: Callable[[Config], RunDirectory]) -> Callable[[Config], RunDirectory]:
    """Let other processes know that one works in the run directory, as long as it does."""

    @wraps(work)
    def register_process(config: Config) -> RunDirectory:
        run = RunDirectory(Path(config.run_dir))
        refuse_foreign_folder(config, run)
        made_here = not run.path.exists()
        presence = lock(run.locks, f"{AT_WORK}-{this_process()}")
        try:
            presence.__enter__()
        except OSError:  # what is finished can be opened where nothing can be written
            return work(config)
        try:
            return work(config)
        finally:
            remove_stale_locks(run.locks)
            presence.__exit__(None, None, None)
            if made_here:
                with suppress(OSError):  # nothing came of it
                    run.path.rmdir()

    return register_process


def open_run(config: Config) -> RunDirectory:
    """Create the run directory, or check that it is this run's.

    A change that contradicts what is there is refused with the difference; with ``overwrite=true``
    what depends on it is removed, unless another process is at work there. New methods are added.
    """
    run = RunDirectory(Path(config.run_dir))
    refuse_foreign_folder(config, run)
    by_whom = os.access in os.supports_effective_ids
    if run.config.exists() and not os.access(run.path, os.W_OK, effective_ids=by_whom):
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
    trained = any((run.path / "checkpoints").glob("*.ckpt"))
    if old and bool(old["networks"]) != bool(new["networks"]):
        raise ConfigError(
            f"{run.path} holds {'predictions of new participants' if old['networks'] else 'a trained run'}; "
            "use another run_dir"
        )
    finished, others = trained or run.predictions.exists(), is_locked(run.locks)
    if old and (finished or others):
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
        if others or any((run.path / "attributions").rglob(f"*_desc-{label}_attribution.json"))
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


def _fitted_baselines(config: Config, run: RunDirectory, old: dict, new: dict) -> dict[str, Any]:
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

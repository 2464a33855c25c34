"""What every stage begins with: the settings of the run, and its directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xai_brain.config.compose import (
    ConfigError,
    check,
    compose,
)
from xai_brain.io.atomic import remove_partial_files, this_process, write_atomic
from xai_brain.parallel.locks import is_locked, lock, remove_stale_locks, run_exclusive
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.saved_settings import is_unaltered, saved_settings, with_hash
from xai_brain.study.settings_conflicts import (
    INDIFFERENT,
    method_of_setting,
    refuse_foreign_folder,
    refuse_or_overwrite,
    remove_results,
    settings_differences,
)

AT_WORK = "at-work"  # claims of this name are of processes, not of units of work

# Settings that trained networks depend on, and those that maps depend on.
TRAINING = ("seeds", "task", "data", "preprocessing", "planted", "folds", "augmentation", "model", "trainer")
EXPLAINING = ("explain.target", "explain.output", "explain.n_reference_volumes")
# Settings that a stage may change.
AFTER_TRAINING = ("explain", "attribution", "baselines", "morphometry", "evaluation", "trusted_modules")
# Settings of where and how fast, not of what.


def stage_settings(command: str, overrides: list[str]) -> DictConfig:
    """Settings of a stage: those of its run directory, changed by what is given now.

    ``xai-brain explain run_dir=outputs/demo attribution=[grad_cam]`` takes everything from
    outputs/demo/config.yaml and adds a method.

    Raises
    ------
    ConfigError
        The run directory holds no run.
    """
    removed = [text.removeprefix("~attribution.") for text in overrides if text.startswith("~attribution.")]
    overrides = [text for text in overrides if not text.startswith("~attribution.")]
    given = [override.lstrip("+~").split("=")[0].split("@")[0] for override in overrides]
    # values are read from here, the rest from the run; some cohort must be there for data.* to be settings
    cohort = [] if {"data", "experiment"} & set(given) else ["data=synthetic"]
    composed = compose(command, [*cohort, *overrides], checked=False)
    saved = RunDirectory(Path(composed.run_dir)).config
    if not saved.exists():
        raise ConfigError(f"{saved}: there is no run; start with `xai-brain train` or `xai-brain run`")
    cfg = OmegaConf.create(saved_settings(saved))
    saved_trust = list(cfg.trusted_modules)
    for key in given:
        if key in ("run_dir", "name", "experiment"):  # they say which run is meant
            continue
        if key == "baselines":  # added like methods
            cfg.baselines = {**composed.baselines, **cfg.baselines}
        elif key == "attribution":  # chosen methods are added; those that are there keep their settings
            added = {
                label: method
                for label, method in composed.attribution.items()
                if label not in cfg.attribution
            }
            cfg.attribution = OmegaConf.merge(cfg.attribution, added)
        elif key.split(".")[0] in AFTER_TRAINING or key in INDIFFERENT:
            OmegaConf.update(cfg, key, OmegaConf.select(composed, key), merge=True, force_add=True)
        elif key != "overwrite":
            raise ConfigError(f"{key} cannot be changed by `xai-brain {command}`: it belongs to training")
    for label in removed:
        _remove_method(cfg, saved, label)
    cfg.run_dir, cfg.overwrite = composed.run_dir, composed.overwrite
    if unknown := sorted(set(saved_trust) - set(composed.trusted_modules)):  # a run may come from anywhere
        raise ConfigError(
            f"{saved}: runs code of {', '.join(unknown)}; if you trust it, add "
            f"trusted_modules=[{','.join(saved_trust)}]"
        )
    check(cfg)
    return cfg


def _remove_method(cfg: DictConfig, saved: Path, label: str) -> None:
    """For ``~attribution.<label>``."""
    if label not in cfg.attribution:
        methods = ", ".join(cfg.attribution)
        raise ConfigError(f"~attribution.{label}: {saved} has no such method; its methods are {methods}")
    if any((saved.parent / "attributions").rglob(f"*_desc-{label}_attribution.json")):
        raise ConfigError(
            f"~attribution.{label}: {saved.parent / 'attributions'} contains maps of {label}; remove the "
            f"files *_desc-{label}_attribution.* first"
        )
    del cfg.attribution[label]


def stage(work: Callable[[DictConfig], RunDirectory]) -> Callable[[DictConfig], RunDirectory]:
    """Let other processes know that one works in the run directory, as long as it does."""

    @wraps(work)
    def register_process(cfg: DictConfig) -> RunDirectory:
        run = RunDirectory(Path(cfg.run_dir))
        refuse_foreign_folder(cfg, run)
        made_here = not run.path.exists()
        presence = lock(run.locks, f"{AT_WORK}-{this_process()}")
        try:
            presence.__enter__()
        except OSError:  # what is finished can be opened where nothing can be written
            return work(cfg)
        try:
            return work(cfg)
        finally:
            remove_stale_locks(run.locks)
            presence.__exit__(None, None, None)
            if made_here:
                with suppress(OSError):  # nothing came of it
                    run.path.rmdir()

    return register_process


def open_run(cfg: DictConfig) -> RunDirectory:
    """Create the run directory, or check that it is this run's.

    A change that contradicts what is there is refused with the difference; with ``overwrite=true``
    what depends on it is removed, unless another process is at work there. New methods are added.
    """
    run = RunDirectory(Path(cfg.run_dir))
    refuse_foreign_folder(cfg, run)
    by_whom = os.access in os.supports_effective_ids
    if run.config.exists() and not os.access(run.path, os.W_OK, effective_ids=by_whom):
        _open(cfg, run)
        return run
    run_exclusive(run.locks, "settings", lambda: _open(cfg, run))
    remove_partial_files(run.path)
    return run


def _open(cfg: DictConfig, run: RunDirectory) -> None:
    new = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(new, dict)
    # nothing in a run directory says where it lies, nor what one start of many was to do
    new = {key: value for key, value in new.items() if key not in ("run_dir", "overwrite")} | {"shard": None}
    old: dict = {}
    if run.config.exists():
        old = saved_settings(run.config)
    trained = any((run.path / "checkpoints").glob("*.ckpt"))
    if old and bool(old["networks"]) != bool(new["networks"]):
        raise ConfigError(
            f"{run.path} holds {'predictions of new participants' if old['networks'] else 'a trained run'}; "
            "use another run_dir"
        )
    finished, others = trained or run.predictions.exists(), is_locked(run.locks)
    if old and (finished or others):
        if training := settings_differences(old, new, TRAINING):
            refuse_or_overwrite(cfg, run, training)
            remove_results(run, everything=True)
            old = {}
        elif finished and any(old["data"].get(key) != new["data"].get(key) for key in ("root", "tables")):
            same_cohort(prepared_cohort(cfg, run), run)
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
            refuse_or_overwrite(cfg, run, explaining + altered)
            remove_results(
                run,
                everything=False,
                methods=None if explaining else [method_of_setting(line) for line in altered],
            )
    new["attribution"] = {**explained, **new["attribution"]}
    new["baselines"] = {**_fitted_baselines(cfg, run, old, new), **new["baselines"]}
    text = with_hash(OmegaConf.to_yaml(OmegaConf.create(new)))
    if old and is_unaltered(before := run.config.read_text()) is False:  # verify keeps reporting it
        text = before.partition("\n")[0] + "\n" + text.partition("\n")[2]
    if not run.config.exists() or run.config.read_text() != text:
        write_atomic(run.config, lambda temporary: temporary.write_text(text))
    for key in ("attribution", "baselines"):
        OmegaConf.update(cfg, key, new[key], merge=False, force_add=True)


def _fitted_baselines(cfg: DictConfig, run: RunDirectory, old: dict, new: dict) -> dict[str, Any]:
    """Baselines that have results keep their settings."""
    fitted = {
        name: settings
        for name, settings in old.get("baselines", {}).items()
        if (run.path / "baselines" / name).is_dir()
    }
    keys = tuple(f"baselines.{name}" for name in fitted if name in new["baselines"])
    if altered := settings_differences(old, new, keys):
        refuse_or_overwrite(cfg, run, altered)
        for name in {method_of_setting(line) for line in altered}:
            shutil.rmtree(run.path / "baselines" / name)
    return fitted

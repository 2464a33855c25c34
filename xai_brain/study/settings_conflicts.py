"""Differences between the settings of a command and those of an existing run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from xai_brain.config.saved import INDIFFERENT, is_run
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.parallel.locks import is_locked
from xai_brain.runs.directory import RunDirectory, sidecar, update_metrics

RESULT_NAMES = (
    "participants.tsv",
    "folds.tsv",
    "fold_summary.tsv",
    "checkpoints",
    "baselines",
    "images",
    "attributions",
    "group",
    "evaluation",
    "figures",
    "native",
    "permuted",
    "randomized",
)


def refuse_foreign_folder(config: Config, run: RunDirectory) -> None:
    """Raise an error if the run directory contains something else, such as a data set."""
    if config.data.root and run.path.resolve() == Path(config.data.root).expanduser().resolve():
        raise ConfigError(f"run_dir={run.path} is the folder of the data; use another folder for results")
    if run.config.exists():
        if is_run(run.config):
            return
        raise ConfigError(f"{run.config} does not belong to a run of xai_brain; use another run_dir")
    if clash := [name for name in RESULT_NAMES if (run.path / name).exists()]:
        raise ConfigError(f"{run.path} holds {', '.join(clash)} but no run of xai_brain; use another run_dir")


def method_of_setting(difference: str) -> str:
    return difference.split(":")[0].split(".")[1]


def settings_differences(old: dict[str, Any], new: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    flat_old, flat_new = _flat(old), _flat(new)
    found = []
    for name in sorted({*flat_old, *flat_new}):
        relevant = any(name == key or name.startswith(f"{key}.") for key in keys)
        if relevant and name not in INDIFFERENT and flat_old.get(name) != flat_new.get(name):
            found.append(f"{name}: {flat_old.get(name)} before, {flat_new.get(name)} now")
    return found


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        return {
            key: value
            for name, child in node.items()
            for key, value in _flat(child, f"{prefix}{name}.").items()
        }
    return {prefix.rstrip("."): node}


def refuse_or_overwrite(config: Config, run: RunDirectory, differences: list[str]) -> None:
    if not config.overwrite:
        raise ConfigError(
            f"{run.path} holds a run with other settings ({'; '.join(differences)}); "
            "use another run_dir, or overwrite=true"
        )
    if is_locked(run.locks):
        raise ConfigError(
            f"{run.path}: another process uses this run with other settings ({'; '.join(differences)}); "
            "use another run_dir, or stop that process first"
        )


def remove_results(run: RunDirectory, *, everything: bool, methods: list[str] | None = None) -> None:
    """Remove results that do not correspond to the changed settings."""
    for folder in (*(name for name in RESULT_NAMES if "." not in name), "logs"):
        downstream = folder in ("group", "evaluation", "figures", "native")
        if everything or downstream or (folder == "attributions" and methods is None):
            shutil.rmtree(run.path / folder, ignore_errors=True)
    for method in methods or []:
        for path in (run.path / "attributions").rglob(f"*_desc-{method}_attribution.nii.gz"):
            path.unlink()
            sidecar(path).unlink(missing_ok=True)
    files = [
        run.report,
        *(
            [run.participants, run.folds, run.fold_summary, run.quarantine, run.predictions, run.metrics]
            if everything
            else []
        ),
    ]
    for path in files:
        path.unlink(missing_ok=True)
    if run.metrics.exists():
        update_metrics(run, {}, replace=("masks/",))

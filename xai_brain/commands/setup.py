"""What every stage begins with: the settings of the run, and its prepared cohort."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from xai_brain.commands.progress import say, track
from xai_brain.config import ConfigError, check, compose
from xai_brain.data.participants import load_participants, require_classes
from xai_brain.data.preprocessing import Preparation, default_cache_dir, prepare_cohort
from xai_brain.data.problems import Problems
from xai_brain.runs import RunDirectory, sidecar, write_tsv
from xai_brain.volumes import write_atomic

# Settings that trained networks depend on, and those that maps depend on.
TRAINING = ("seeds", "data", "preprocessing", "folds", "augmentation", "model", "trainer")
EXPLAINING = ("explain.target", "explain.output", "explain.n_reference_volumes")
# Settings of where and how fast, not of what.
INDIFFERENT = ("data.root", "data.cache_dir", "data.on_error", "trainer.num_workers", "trainer.accelerator")


def stage_settings(command: str, overrides: list[str]) -> DictConfig:
    """Settings of a stage: those of its run directory, changed by what is given now.

    ``xai-brain explain run_dir=outputs/demo attribution=[grad_cam]`` takes everything from
    outputs/demo/config.yaml and adds a method.

    Raises
    ------
    ConfigError
        The run directory holds no run.
    """
    given = [override.lstrip("+~").split("=")[0].split("@")[0] for override in overrides]
    changed = [
        key for key in given if key.split(".")[0] in ("explain", "attribution", "evaluation", "overwrite")
    ]
    from_run = [override for override, key in zip(overrides, given, strict=True) if key not in changed]
    # the defaults of a stage need some cohort to be complete; it is not looked at
    probe = compose(
        command, overrides if {"data", "experiment"} & set(given) else [*overrides, "data=synthetic"]
    )
    saved = RunDirectory(Path(probe.run_dir)).config
    if not saved.exists():
        raise ConfigError(f"{saved}: there is no run; start with `xai-brain train` or `xai-brain run`")
    cfg = OmegaConf.load(saved)
    assert isinstance(cfg, DictConfig)
    strange = [
        key
        for key in map(lambda o: o.split("=")[0], from_run)
        if key not in ("run_dir", "experiment", "name")
    ]
    if strange:
        raise ConfigError(f"{strange[0]} cannot be changed by `xai-brain {command}`: it belongs to training")
    if "experiment" in given:
        changed += ["explain", "attribution", "evaluation"]
    for key in changed:
        OmegaConf.update(cfg, key, OmegaConf.select(probe, key), merge=True, force_add=True)
    cfg.run_dir = probe.run_dir
    check(cfg)
    return cfg


def open_run(cfg: DictConfig) -> RunDirectory:
    """Create the run directory, or check that it is this run's.

    A change that contradicts what is there is refused with the difference; with ``overwrite=true``
    what depends on it is removed. New methods are added.
    """
    run = RunDirectory(Path(cfg.run_dir))
    new = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(new, dict)
    # nothing in a run directory says where it lies
    new = {key: value for key, value in new.items() if key not in ("run_dir", "overwrite")}
    if run.config.exists():
        old = OmegaConf.to_container(OmegaConf.load(run.config))
        assert isinstance(old, dict)
        if training := _differences(old, new, TRAINING):
            _refuse_or(cfg, run, training)
            _remove(run, everything=True)
            old = {}
        methods = {
            label: f"attribution.{label}"
            for label in new["attribution"]
            if label in old.get("attribution", {})
        }
        explaining = _differences(old, new, EXPLAINING) if old else []
        altered = [label for label, key in methods.items() if _differences(old, new, (key,))]
        if (explaining or altered) and any((run.path / "attributions").rglob("*.nii.gz")):
            _refuse_or(cfg, run, explaining or _differences(old, new, tuple(methods[m] for m in altered)))
            _remove(run, everything=False, methods=None if explaining else altered)
        new["attribution"] = {**old.get("attribution", {}), **new["attribution"]}
    text = OmegaConf.to_yaml(OmegaConf.create(new))
    if not run.config.exists() or run.config.read_text() != text:
        write_atomic(run.config, lambda temporary: temporary.write_text(text))
    OmegaConf.update(cfg, "attribution", new["attribution"], merge=False, force_add=True)
    return run


def _differences(old: dict, new: dict, keys: tuple[str, ...]) -> list[str]:
    flat_old, flat_new = _flat(old), _flat(new)
    found = []
    for name in sorted({*flat_old, *flat_new}):
        relevant = any(name == key or name.startswith(f"{key}.") for key in keys)
        if relevant and name not in INDIFFERENT and flat_old.get(name) != flat_new.get(name):
            found.append(f"{name}: {flat_old.get(name)} there, {flat_new.get(name)} now")
    return found


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        return {
            key: value
            for name, child in node.items()
            for key, value in _flat(child, f"{prefix}{name}.").items()
        }
    return {prefix.rstrip("."): node}


def _refuse_or(cfg: DictConfig, run: RunDirectory, differences: list[str]) -> None:
    if not cfg.overwrite:
        raise ConfigError(
            f"{run.path} holds a run with other settings ({'; '.join(differences)}); "
            "use another run_dir, or overwrite=true"
        )


def _remove(run: RunDirectory, *, everything: bool, methods: list[str] | None = None) -> None:
    """Remove results that no longer follow from the settings; what we did not write stays."""
    for folder in ("checkpoints", "logs", "images", "attributions", "group", "evaluation", "figures"):
        downstream = folder in ("group", "evaluation", "figures")
        if everything or downstream or (folder == "attributions" and methods is None):
            shutil.rmtree(run.path / folder, ignore_errors=True)
    for method in methods or []:
        for path in (run.path / "attributions").rglob(f"*_desc-{method}_attribution.nii.gz"):
            path.unlink()
            sidecar(path).unlink(missing_ok=True)
    files = [run.report, *([run.participants, run.folds, run.predictions, run.metrics] if everything else [])]
    for path in files:
        path.unlink(missing_ok=True)


def prepared_cohort(cfg: DictConfig, run: RunDirectory) -> pd.DataFrame:
    """Find and prepare every image; what cannot be used stops the run or goes to quarantine.tsv.

    Returns
    -------
    pandas.DataFrame
        As from `xai_brain.data.preprocessing.prepare_cohort`.
    """
    data = cfg.data
    problems = Problems(data.on_error)
    layout, root = data.layout, data.root
    if layout == "synthetic":
        layout, root = "bids", synthetic_root(cfg)
    names = list(data.class_names) if data.class_names else None
    participants = load_participants(
        layout, root, label=data.label, class_names=names, entities=data.entities, problems=problems
    )
    names = names or sorted(participants["label"].unique())
    table = prepare_cohort(
        participants,
        Preparation(**cfg.preprocessing),
        cache_dir=data.cache_dir,
        space=data.space,
        problems=problems,
        progress=lambda rows: track(rows, "prepare volumes"),
    )
    require_classes(table, names, data.label, root)
    if len(problems.rows):
        write_tsv(problems.table(), run.quarantine)
        say(f"{len(problems.rows)} inputs set aside, see {run.quarantine}")
    return table


def synthetic_root(cfg: DictConfig) -> Path:
    """Folder of the embedded cohort, made when it is not in the cache."""
    from dataclasses import asdict
    from hashlib import sha256

    from xai_brain.data.synthetic import RECIPE, SyntheticSettings, make_synthetic_cohort

    settings = SyntheticSettings(**cfg.data.cohort)
    key = sha256(repr((RECIPE, sorted(asdict(settings).items()))).encode()).hexdigest()[:12]
    cache = Path(cfg.data.cache_dir).expanduser() if cfg.data.cache_dir else default_cache_dir()
    return make_synthetic_cohort(cache / "synthetic" / key, settings)


def portable(table: pd.DataFrame, root: Path | None) -> pd.DataFrame:
    """participants.tsv of a run: nothing in it points outside; image paths are relative to the cohort."""
    table = table.drop(columns=["volume_path", "volume_mask_path"])
    for column in ("t1w_path", "brain_mask_path", "truth_path"):
        table[column] = [_relative(path, root) for path in table[column]]
    return table


def _relative(path: Any, root: Path | None) -> str | None:
    if path is None or pd.isna(path):
        return None
    return str(Path(path).relative_to(root)) if root else Path(path).name


def class_names(table: pd.DataFrame) -> list[str]:
    """Names in the order of the class index."""
    return table.drop_duplicates("target").sort_values("target")["label"].tolist()

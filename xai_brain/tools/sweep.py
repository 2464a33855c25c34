"""Sweeps: several jobs of one command (-m) that are planned here, started by Hydra and recorded.

A failed job does not stop the others. When the command is repeated, complete jobs are skipped.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from xai_brain.config.compose import conf_dir, format_config_error, register_schemas
from xai_brain.config.inputs import PLAN, RECORD
from xai_brain.config.overrides import first_value
from xai_brain.config.setting import ConfigError
from xai_brain.io.text_tables import read_text
from xai_brain.parallel.progress import format_error, log, log_error
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, write_json
from xai_brain.statistics.sweeps import COMPLETE, FAILED, MISSING, settings_of, swept_keys

FIXED = ("name", "run_dir")  # all jobs of a sweep are in one folder


def plan_sweep(command: str, overrides: list[str]) -> tuple[Path, list[str]]:
    """Write the plan of a sweep before its first job starts.

    Parameters
    ----------
    command : str
    overrides : list of str
        Overrides of the user, with values to sweep over.

    Returns
    -------
    folder : Path
        Folder of the sweep.
    more : list of str
        Further settings of Hydra, to continue an Optuna study.

    Raises
    ------
    ConfigError
        The folder contains jobs of another grid, or a setting cannot be swept.
    """
    for text in overrides:
        key = text.split("=")[0].lstrip("+~")
        if command in ("run", "train") and key in FIXED and first_value(text) != text:
            raise ConfigError(
                f"{text}: {key} cannot be swept, because all jobs are in one folder; sweep other "
                f"""settings, or put a name with a comma into additional quotes: '{key}="a,b"'"""
            )
        if command == "run" and key == "shard":
            raise ConfigError(
                f"{text}: the jobs of `xai-brain run -m` are separate runs, but shards belong to one run, "
                "as in xai-brain explain -m run_dir=<run> shard=1/2,2/2"
            )
    full = _full_settings(command, [first_value(text) for text in overrides])
    folder, sweeper = Path(full.hydra.sweep.dir), full.hydra.sweeper
    if "study_name" in sweeper:
        folder.mkdir(parents=True, exist_ok=True)
        write_json({"command": command, "direction": str(sweeper.direction)}, folder / PLAN)
        return folder, _remaining_trials(full, folder)
    task = [text for text in overrides if not text.lstrip("+~").startswith(("hydra.", "hydra/"))]
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*params, *task])
    jobs = {str(k): job for k, job in enumerate(BasicSweeper.split_arguments(parsed, None)[0])}
    if not full.overwrite and command in (
        "run",
        "train",
        "predict",
    ):  # other commands skip finished work themselves
        _check_same_grid(folder, jobs)
    write_json({"command": command, "jobs": jobs}, folder / PLAN)
    return folder, []


def _full_settings(command: str, overrides: list[str]) -> DictConfig:
    register_schemas()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            full = hydra_compose(command, overrides, return_hydra_config=True)
    except HydraException as error:
        raise ConfigError(format_config_error(error, command, overrides)) from error
    full.hydra.mode = "MULTIRUN"
    return full


def _check_same_grid(folder: Path, jobs: dict[str, list[str]]) -> None:
    """Raise an error if jobs with the same number, which is their name, have other settings."""
    there = {path.parent.name: read_json(path)["overrides"] for path in folder.glob(f"*/{RECORD}")}
    old = {name: settings_of(overrides) for name, overrides in there.items()}
    new = {name: settings_of(overrides) for name, overrides in jobs.items()}
    keys = dict.fromkeys([*swept_keys(list(new.values())), *swept_keys(list(old.values()))])
    for name in sorted(set(old) & set(new)):
        if differ := [key for key in keys if old[name].get(key) != new[name].get(key)]:
            listed = "; ".join(f"{k}: {old[name].get(k)} before, {new[name].get(k)} now" for k in differ)
            raise ConfigError(
                f"{folder / name} is a job of another grid ({listed}); "
                "give this sweep another name=..., or overwrite=true"
            )


def _remaining_trials(full: DictConfig, folder: Path) -> list[str]:
    """Settings of the Optuna sweeper for the remaining trials of a study."""
    import optuna

    sweeper = full.hydra.sweeper
    mode = full.trainer.mode or ("min" if "loss" in full.trainer.monitor else "max")
    direction = {"min": "minimize", "max": "maximize"}[mode]
    if str(sweeper.direction).rpartition(".")[2] != direction:
        raise ConfigError(
            f"hydra.sweeper.direction={sweeper.direction}: trainer.monitor={full.trainer.monitor} has to be "
            f"{direction}d; set hydra.sweeper.direction={direction}"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=sweeper.study_name, storage=sweeper.storage, direction=direction, load_if_exists=True
    )
    n_started = len(study.trials)
    n_done = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    if n_done >= sweeper.n_trials:
        raise ConfigError(
            f"{folder}: the study has its {n_done} trials; for more set hydra.sweeper.n_trials={2 * n_done}"
        )
    if not n_started:
        return []
    starts = 1 + len({path.parent.name.split("_")[0] for path in folder.glob(f"*_*/{RECORD}")})
    more = [f"hydra.sweeper.n_trials={sweeper.n_trials - n_done}"]
    more.append(f"hydra.sweep.subdir={starts + 1}_${{hydra.job.num}}")
    if (seed := sweeper.sampler.get("seed")) is not None:  # otherwise the first trials would be repeated
        more.append(f"hydra.sweeper.sampler.seed={seed + n_started}")
    return more


def run_recorded(cfg: DictConfig, given: list[str], execute: Any, *, always: bool = False) -> float | None:
    """Run one job, unless it is complete, and record its result.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
        Resolved settings of the job.
    given : list of str
        Overrides of the job.
    execute : callable
        The work, without arguments.
    always : bool, default False
        Run the job even if it is complete, for stages that skip finished work themselves.

    Returns
    -------
    float or None
        The objective of an Optuna trial; None for a failed job.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    path, name = folder / RECORD, folder.name
    about: dict[str, Any] = {"overrides": given, "settings": _settings_hash(cfg)}
    old = read_json(path) if path.exists() else {}
    same = old.get("state") == COMPLETE and old.get("settings") == about["settings"]
    if same and not always and RunDirectory(folder).config.exists():
        log(f"job {name}: complete, not done again")
        return old.get("objective")
    write_json({**about, "state": "running"}, path)
    start = time.monotonic()
    try:
        execute()
        objective = _objective(folder) if "study_name" in HydraConfig.get().sweeper else None
    except Exception as error:
        message = format_error(error).replace("use another run_dir", "give the sweep another name=...")
        about |= {"error": message, "trace": traceback.format_exc()}
        write_json({**about, "state": FAILED, "seconds": round(time.monotonic() - start, 1)}, path)
        if os.environ.get("XAI_BRAIN_DEBUG"):
            traceback.print_exc()
        log_error(f"job {name} failed: {message}")
        return None
    about["objective"] = objective
    write_json({**about, "state": COMPLETE, "seconds": round(time.monotonic() - start, 1)}, path)
    return objective


def _settings_hash(cfg: DictConfig) -> str:
    settings = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(settings, dict)
    what = {key: value for key, value in settings.items() if key not in ("run_dir", "overwrite")}
    return sha256(OmegaConf.to_yaml(OmegaConf.create(what)).encode()).hexdigest()


def _objective(folder: Path) -> float:
    """Monitored metric of the validation parts at the best epochs, mean over folds and seeds.

    Test parts are not used for the choice of hyper-parameters.
    """
    settings = OmegaConf.create(read_text(RunDirectory(folder).config)).trainer
    best = []
    for path in sorted((folder / "checkpoints").glob("*fold-*.tsv")):
        history = read_tsv(path)
        if "metric" not in history:  # predictions of the fold
            continue
        values = history.loc[history["metric"] == settings.monitor, "value"]
        if not np.isfinite(values).all():
            raise ConfigError(f"{path}: {settings.monitor} is NaN or infinite in some epoch")
        lower = settings.mode == "min" if settings.mode else "loss" in settings.monitor
        best.append(values.min() if lower else values.max())
    if not best:
        raise ConfigError(f"trainer.monitor={settings.monitor}: not in the training curves of {folder}")
    return float(sum(best) / len(best))


@contextmanager
def tolerate_failed_jobs() -> Iterator[None]:
    """Continue with the other jobs if a job is killed or runs out of memory.

    submitit raises an error when the result of such a job is requested. Here such a job has no
    result, like a failed job; its record is reported at the end.
    """
    if find_spec("submitit") is None:  # other launchers do not need it
        yield
        return
    from submitit.core import core, utils

    original = core.Job.results

    def results(job: Any) -> list[Any]:
        try:
            return original(job)
        except (utils.UncompletedJobError, utils.FailedJobError) as error:
            last_line = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            log_error(f"job {job.job_id}: {last_line[0]}; see {job.paths.stderr}")
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=None)]

    core.Job.results = results  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        core.Job.results = original  # type: ignore[method-assign]


def summarize_jobs(folder: Path, since: float) -> int:
    """Log the states of all jobs; returns 1 if one is not complete, else 0.

    Parameters
    ----------
    folder : Path
    since : float
        Start time, seconds; only jobs of a study that were started later are counted.
    """
    plan = read_json(folder / PLAN)
    names = list(plan.get("jobs") or {})
    if not names:
        names = [p.parent.name for p in folder.glob(f"*/{RECORD}") if p.stat().st_mtime >= since]
    paths = {name: folder / name / RECORD for name in names}
    records = {name: read_json(path) if path.exists() else {} for name, path in paths.items()}
    bad = {name: record for name, record in records.items() if record.get("state") != COMPLETE}
    log(f"{folder}: {len(records) - len(bad)} of {len(records)} jobs complete")
    for name, record in bad.items():
        state = FAILED if record.get("state") == FAILED else MISSING
        error = record.get("error", "it did not finish")
        log_error(f"job {name} {state}: {error}")
    if bad:
        log("repeat the command to run the jobs that are not complete")
    log(f"tables and figures of all jobs: xai-brain collect {folder}")
    return int(bool(bad) or not records)

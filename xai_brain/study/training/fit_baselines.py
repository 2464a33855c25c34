"""Fit baseline classifiers on the folds of a run."""

from __future__ import annotations

import shutil
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.utils import instantiate

from xai_brain.baselines.classifiers import BaselineError, pipeline_of
from xai_brain.baselines.kinds import KINDS
from xai_brain.baselines.morphometry import morphometry_features
from xai_brain.baselines.voxel_features import voxel_features
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.config.training import read_baseline
from xai_brain.data.folds.tables import fold_numbers, with_repeat
from xai_brain.io.atomic import file_hash
from xai_brain.io.paths import TABLES, why_no_file
from xai_brain.models.calibrated import missing_package
from xai_brain.parallel.locks import run_shared
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import RunDirectory, add_seconds, read_json, read_tsv, write_json, write_tsv
from xai_brain.runs.seeds import network_name, network_seed
from xai_brain.study.participants import prepared_cohort, same_cohort, task_of
from xai_brain.study.settings import open_run
from xai_brain.study.training.baseline_networks import fold_predictions
from xai_brain.study.training.compare_baselines import compare_baselines
from xai_brain.study.training.folds import split_prepared_fold
from xai_brain.study.training.harmonize_baselines import add_harmonized_baselines, harmonized_features
from xai_brain.task.build import build_task


def baselines_run(config: Config) -> RunDirectory:
    """Fit the baselines that are missing, and compare all of them with the networks."""
    add_harmonized_baselines(config, RunDirectory(Path(config.run_dir).expanduser()))
    check_baselines(config)
    others = fitted_on_another_table(config, RunDirectory(Path(config.run_dir).expanduser()))
    if others and not config.overwrite:  # before the settings of the run are changed
        raise ConfigError(
            f"morphometry={config.morphometry}: is not the table that {others[0].name} was fitted on; "
            "use another run_dir, or overwrite=true"
        )
    run = open_run(config)
    if not run.folds.exists():
        raise ConfigError(f"{run.folds}: does not exist; baselines need the folds of `xai-brain train`")
    for folder in others:
        shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    if fit_baselines(config, run):
        add_seconds(run, "baselines", time.monotonic() - start)
    compare_baselines(config, run)
    return run


def check_baselines(config: Config) -> None:
    """Raise an error before training if a baseline does not suit the target, or a table is missing."""
    kind = KINDS.get(str(build_task(config.task).reported_as))
    for name, settings in config.baselines.items():
        if kind is None:
            raise ConfigError(f"baselines.{name}: there are no baselines for {config.task['_target_']}")
        if settings.get("network") and settings["features"] not in kind.network_features:
            raise ConfigError(
                f"baselines.{name}: slabs vote for classes, which this task does not have; remove it"
            )
        if (steps := settings.get("steps")) and not kind.fits(instantiate(steps[-1], _convert_="all")):
            raise ConfigError(
                f"baselines.{name}: {steps[-1]['_target_']} is not {kind.needed}, which this task needs"
            )
    on_table = [name for name, settings in config.baselines.items() if settings["features"] == "morphometry"]
    if on_table and not config.morphometry:
        raise ConfigError(f"no value for morphometry: the table of regional volumes that {on_table[0]} needs")
    if on_table and not config.morphometry_path.is_file():
        raise ConfigError(f"morphometry={config.morphometry}: {why_no_file(config.morphometry_path, TABLES)}")


def fitted_on_another_table(config: Config, run: RunDirectory) -> list[Path]:
    """Folders of baselines that were fitted on another table of regional volumes than ``morphometry``."""
    records = sorted((run.path / "baselines").glob("*/table.json"))
    if not records or not config.morphometry:
        return []
    content = file_hash(config.morphometry_path)
    return [record.parent for record in records if read_json(record)["sha256"] != content]


def fit_baselines(config: Config, run: RunDirectory) -> bool:
    """Fit the missing baselines, fold by fold; False if all are fitted."""
    missing = [name for name in config.baselines if not run.baseline(name).exists()]
    for name in list(missing):
        network = config.baselines[name].get("network")
        if network and (package := missing_package(network["_target_"])):
            log(f"{name}: left out, it needs pip install '{package}'")
            missing.remove(name)
    if not missing:
        if config.baselines:
            log("baselines: nothing to do, all are fitted")
        return False
    cohort = same_cohort(prepared_cohort(config, run), run).reset_index(drop=True)
    folds = read_tsv(run.folds)

    @cache
    def voxels(block_voxels: int) -> np.ndarray:
        paths = track(cohort["volume_path"].tolist(), "read voxels", "images", brief=True)
        return voxel_features(paths, block_voxels)

    for name in missing:
        settings = read_baseline(name, config.baselines[name])
        if settings.features in ("slabs", "volumes"):
            fit_network_baseline(config, run, cohort, folds, name)
        elif settings.features == "voxels":
            fit_estimator(config, run, cohort, folds, name, voxels(settings.block_voxels or 1))
        else:
            fit_estimator(config, run, cohort, folds, name, table_features(config, run, cohort, name))
    return True


def table_features(config: Config, run: RunDirectory, cohort: pd.DataFrame, name: str) -> np.ndarray:
    """Features from the table, (n_images, n_columns); logs the columns that are not used."""
    path = config.morphometry_path
    features, dropped = morphometry_features(path, cohort, config.data.label)
    without = int(features.isna().all(axis=1).sum())
    log(
        f"{name}: {features.shape[1]} columns of {path.name}"
        + (f", not {', '.join(f'{column} ({reason})' for column, reason in dropped.items())}")
        + (f"; {without} images have no line and are left out" if without else "")
    )
    write_json({"file": path.name, "sha256": file_hash(path), "dropped": dropped,
                "columns": list(features)}, run.baseline(name).with_name("table.json"))  # fmt: skip
    return features.to_numpy(float)


def fit_estimator(
    config: Config,
    run: RunDirectory,
    cohort: pd.DataFrame,
    folds: pd.DataFrame,
    name: str,
    features: np.ndarray,
) -> None:
    """Out-of-fold predictions of a scikit-learn estimator; it is fitted on training and validation part."""
    settings, task = read_baseline(name, config.baselines[name]), task_of(config, cohort)
    kind = KINDS[str(task.reported_as)]
    seed, usable = config.seeds[0], ~np.isnan(features).all(1)

    def fit(fold: int) -> None:
        done, start = run.baseline(name, f"fold-{fold}"), time.monotonic()
        parts = split_prepared_fold(config, cohort, folds, fold)
        train = pd.concat([parts["train"], parts["validation"]]).sort_index()
        train, test = (table[usable[table.index]] for table in (train, parts["test"]))
        if test.empty:
            raise BaselineError(
                f"baselines.{name}: no test participant of fold {fold + 1} has features, so that a mean over "
                f"folds would be incomplete; add their lines to the table, or remove baselines.{name}"
            )
        own = harmonized_features(features, train, test, settings) if settings.harmonization else features
        groups = train["participant_id"]
        if column := config.folds.group_column:
            groups = train[column].astype(str).where(train[column].notna(), groups)
        steps = [instantiate(step, _convert_="all") for step in settings.steps]
        try:
            model, chosen = kind.fit(
                pipeline_of(settings.features, steps),
                settings.choices,
                own[train.index],
                train["target"].to_numpy(),
                groups.to_numpy(),
                random_state=network_seed(seed, fold),
            )
        except (BaselineError, ValueError) as error:
            raise BaselineError(f"baselines.{name}: fold {fold + 1}: {str(error).splitlines()[0]}") from error
        write_json(chosen, done.with_suffix(".json"))
        values = kind.predict(model, own[test.index], task.n_outputs)
        if not np.isfinite(values).all():
            raise BaselineError(f"baselines.{name}: fold {fold + 1}: predictions are NaN or infinite")
        table = task.prediction_table(test, values, fold=fold, seed=seed)
        write_tsv(table, done)
        what = f"{name} fold {fold + 1}/{max(fold_numbers(folds)) + 1}"
        _log_score(what, task.summary(table), len(table), start)

    run_shared(
        run.locks,
        {f"{name}_fold-{fold}": fold for fold in fold_numbers(folds)},
        done=lambda fold: run.baseline(name, f"fold-{fold}").exists(),
        do=fit,
        wait=lambda n: log(f"{name}: waiting for {n} folds that other processes fit"),
    )
    _gather(run, folds, name, [run.baseline(name, f"fold-{fold}") for fold in fold_numbers(folds)])


def fit_network_baseline(
    config: Config, run: RunDirectory, cohort: pd.DataFrame, folds: pd.DataFrame, name: str
) -> None:
    """Out-of-fold predictions of another network, with the seeds and parts of the networks of the run."""
    settings, task = read_baseline(name, config.baselines[name]), task_of(config, cohort)

    def fit(seed: int, fold: int) -> None:
        start, what = time.monotonic(), f"{name} seed {seed} fold {fold + 1}/{max(fold_numbers(folds)) + 1}"
        parts = split_prepared_fold(config, cohort, folds, fold, seed)
        predicted = fold_predictions(config, settings, parts, task, network_seed(seed, fold), what)
        tables = {
            part: task.prediction_table(parts[part], values, fold=fold, seed=seed)
            for part, values in predicted.items()
        }
        write_tsv(tables["validation"], run.baseline(name, f"validation_{network_name(seed, fold)}"))
        write_tsv(
            tables["test"], run.baseline(name, network_name(seed, fold))
        )  # last: marks the unit as complete
        _log_score(what, task.summary(tables["test"]), len(tables["test"]), start)

    seeds = config.seeds[: settings.n_seeds]
    units = {network_name(seed, fold): (seed, fold) for seed in seeds for fold in fold_numbers(folds)}
    run_shared(
        run.locks,
        {f"{name}_{unit}": of for unit, of in units.items()},
        done=lambda of: run.baseline(name, network_name(*of)).exists(),
        do=lambda of: fit(*of),
        wait=lambda n: log(f"{name}: waiting for {n} folds that other processes fit"),
    )
    _gather(run, folds, name, [run.baseline(name, unit) for unit in units])


def _log_score(what: str, score: str, n_tested: int, start: float) -> None:
    log(f"{what}: {score} (n = {n_tested}), {time.monotonic() - start:.0f} s")


def _gather(run: RunDirectory, folds: pd.DataFrame, name: str, files: list[Path]) -> None:
    """Write one table of all folds, and the choices in each; the predictions are written last."""
    folder = run.baseline(name).parent
    predictions = pd.concat([read_tsv(path) for path in files], ignore_index=True)
    chosen: list[dict[str, Any]] = [
        {"fold": int(path.stem.rpartition("-")[2]), "setting": key, "value": value}
        for path in sorted(folder.glob("fold-*.json"))
        for key, value in read_json(path).items()
    ]
    if chosen:
        write_tsv(pd.DataFrame(chosen).sort_values(["fold", "setting"]), run.baseline(name, "choices"))
    predictions = predictions.sort_values(["seed", "fold"], kind="stable", ignore_index=True)
    write_tsv(with_repeat(predictions, folds), run.baseline(name))

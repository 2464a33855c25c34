"""Train one network per fold and seed; predict every participant with the network not trained on it."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path

import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.folds.tables import fold_numbers, with_repeat
from xai_brain.io.atomic import disk_full_errors, file_hash, partial_prefix, write_atomic
from xai_brain.io.problems import named
from xai_brain.models.calibrated import missing_package
from xai_brain.models.fitting import fit_fold, naming_network, predict_outputs
from xai_brain.models.fitting_in_processes import fit_in_processes
from xai_brain.models.networks.kan2020 import is_published
from xai_brain.models.process_group import joined_processes, n_processes
from xai_brain.models.weights import read_state_dict
from xai_brain.parallel.locks import is_locked, run_exclusive, run_shared
from xai_brain.parallel.progress import EpochLines, log, log_warning
from xai_brain.runs.directory import (
    RunDirectory,
    add_seconds,
    read_tsv,
    update_metrics,
    write_json,
    write_tsv,
)
from xai_brain.runs.provenance import git_commit, provenance, versions
from xai_brain.runs.seeds import network_seed
from xai_brain.statistics.classification import defined_figures
from xai_brain.study.explanation.method_trial import try_methods
from xai_brain.study.explanation.missing_maps import check_methods
from xai_brain.study.participants import (
    cohort_root,
    input_hashes,
    portable,
    prepared_cohort,
    same_cohort,
    task_of,
)
from xai_brain.study.settings import open_run
from xai_brain.study.training.fold_training import check_balance, classifier_settings, datamodule_of
from xai_brain.study.training.folds import audit, folds_of, log_folds, split_prepared_fold
from xai_brain.task.build import build_task, task_of_table


def train_run(config: Config) -> RunDirectory:
    """Train all folds and seeds of a run; folds that are finished are kept.

    Parameters
    ----------
    config : Config
        From `xai_brain.compose`.

    Returns
    -------
    RunDirectory
        With checkpoints, predictions.tsv, participants.tsv, folds.tsv and test scores in metrics.json.
    """
    with joined_processes(asdict(config.trainer)):
        check_balance(config)
        check_methods(config)
        if package := missing_package(config.model["_target_"]):
            raise ConfigError(f"model._target_={config.model['_target_']}: needs pip install '{package}'")
        run = open_run(config)
        if is_trained(config, run):
            log(f"train: nothing to do, {run.predictions} is complete")
        else:
            train_networks(config, run)
    return run


def train_networks(config: Config, run: RunDirectory) -> None:
    """Create the folds, train one network per fold and seed, and predict the test participants."""
    start = time.monotonic()
    check_weights(config)
    cohort = prepared_cohort(config, run)
    check_brain_size(config, cohort)
    started: list[pd.DataFrame] = []
    run_exclusive(run.locks, "begin", lambda: started.extend(_start(config, run, cohort)))
    cohort, folds = started
    try_methods(config, cohort)

    run_shared(
        run.locks,
        {run.checkpoint(k, s).stem: (k, s) for s in config.seeds for k in fold_numbers(folds)},
        done=lambda unit: is_fitted(run, *unit),
        do=lambda unit: train_fold(config, run, cohort, folds, *unit),
        wait=lambda n: log(f"train: waiting for {n} folds that other processes train"),
    )
    run_exclusive(run.locks, "predictions", lambda: _finish(config, run, folds), run.predictions.exists)
    add_seconds(run, "train", time.monotonic() - start)


def is_trained(config: Config, run: RunDirectory) -> bool:
    """Whether predictions.tsv, all networks and the predictions of each exist."""
    if not (run.predictions.exists() and run.folds.exists()):
        return False
    folds = fold_numbers(read_tsv(run.folds))
    return all(is_fitted(run, fold, seed) for seed in config.seeds for fold in folds)


def _start(config: Config, run: RunDirectory, cohort: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Participants and folds of the run; the first process decides them, others read them."""
    if not is_trained(config, run):  # missing networks are trained again
        run.predictions.unlink(missing_ok=True)
    at_work = is_locked(run.locks) and run.provenance.exists()
    if run.folds.exists() and (at_work or any((run.path / "checkpoints").glob("*.ckpt"))):
        cohort, folds = same_cohort(cohort, run), read_tsv(run.folds)  # folds of trained networks stay valid
        audit(config, cohort, folds)
        return cohort, folds
    folds = folds_of(config, cohort)
    audit(config, cohort, folds)
    root = cohort_root(config)
    write_tsv(portable(cohort, root), run.participants)
    write_tsv(folds, run.folds)
    log_folds(config, run, cohort, folds)
    inputs = input_hashes(cohort, root)
    tables = {path.name: file_hash(path) for path in (run.participants, run.folds)}
    write_json({**provenance(list(config.seeds), inputs), "tables_sha256": tables}, run.provenance)
    return cohort, folds


def _finish(config: Config, run: RunDirectory, folds: pd.DataFrame) -> None:
    """Write the metrics and predictions.tsv of all folds."""
    tables = [read_tsv(fold_predictions(run, k, s)) for s in config.seeds for k in fold_numbers(folds)]
    predictions = with_repeat(pd.concat(tables, ignore_index=True), folds)
    task = task_of_table(config.task, predictions.columns)
    metrics = defined_figures(task.scores(predictions, "test", config.evaluation.n_bootstrap))
    if reason := task.missing_scores(predictions, metrics):
        log(f"train: {reason}")
    # metrics of size-matched pairs are kept; compare_baselines checks whether predictions have changed
    update_metrics(run, metrics)
    write_tsv(predictions, run.predictions)  # last: marks training as complete


def is_fitted(run: RunDirectory, fold: int, seed: int) -> bool:
    """Whether the network of a fold and its predictions exist."""
    return run.checkpoint(fold, seed).exists() and fold_predictions(run, fold, seed).exists()


def train_fold(
    config: Config,
    run: RunDirectory,
    cohort: pd.DataFrame,
    folds: pd.DataFrame,
    fold: int,
    seed: int,
    name: str = "train",
) -> None:
    """Fit the network of one fold and predict its test part; the predictions mark it as complete."""
    checkpoint = run.checkpoint(fold, seed)
    done, task = fold_predictions(run, fold, seed), task_of(config, cohort)
    start = time.monotonic()
    parts = split_prepared_fold(config, cohort, folds, fold, seed)
    fold_seed = network_seed(seed, fold)
    datamodule = datamodule_of(config, parts, fold_seed)
    what = f"{name} seed {seed} fold {fold + 1}/{max(fold_numbers(folds)) + 1}"
    report_epoch = EpochLines(what, config.trainer.max_epochs)
    settings = asdict(config.trainer)
    fit = fit_fold if n_processes(settings) == 1 else fit_in_processes
    with (
        disk_full_errors(run.path),
        naming_network(what),
        tempfile.TemporaryDirectory(dir=run.path, prefix=partial_prefix()) as work_dir,
    ):
        classifier, network_file, history = fit(
            datamodule,
            classifier_settings(config, task),
            settings,
            seed=fold_seed,
            work_dir=Path(work_dir),
            report_epoch=report_epoch,
        )
        _copy_logs(Path(work_dir), run.path / "logs" / checkpoint.stem)
        loaders = {"validation": datamodule.val_dataloader(), "test": datamodule.test_dataloader()}
        outputs = {part: predict_outputs(classifier, loader)[0] for part, loader in loaders.items()}
        write_atomic(checkpoint, partial(shutil.copyfile, network_file))
    write_tsv(history, run.history(fold, seed))
    tables = {
        part: task.prediction_table(parts[part], task.predict(values).numpy(), fold=fold, seed=seed)
        for part, values in outputs.items()
    }
    of_subjects = (parts["train"]["sha256"], parts["validation"]["sha256"])
    write_tsv(tables["validation"], run.validation(fold, seed))
    beside = (run.history(fold, seed), run.validation(fold, seed))
    about = {
        "CheckpointSHA256": file_hash(checkpoint),
        "TablesSHA256": {path.name: file_hash(path) for path in beside},
        "TrainingInputsSHA256": sha256("".join(sorted(pd.concat(of_subjects))).encode()).hexdigest(),
        "Versions": versions(),
        "GitCommit": git_commit(),
    }
    write_json(about, run.checkpoint_about(fold, seed))
    write_tsv(tables["test"], done)
    score, n_tested = task.summary(tables["test"]), len(tables["test"])
    log(f"{what}: {score} (n = {n_tested}), {time.monotonic() - start:.0f} s")


def fold_predictions(run: RunDirectory, fold: int, seed: int) -> Path:
    """Table of the test predictions of one network."""
    checkpoint = run.checkpoint(fold, seed)
    return checkpoint.with_name(f"{checkpoint.stem}_predictions.tsv")


def _copy_logs(work_dir: Path, folder: Path) -> None:
    """Copy CSV and TensorBoard logs, without the intermediate checkpoints."""
    for path in sorted(work_dir.rglob("*")):
        if path.is_file() and path.suffix != ".ckpt":
            target, content = folder / path.relative_to(work_dir), path.read_bytes()
            write_atomic(target, partial(_write_bytes, content=content))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def check_weights(config: Config) -> None:
    """Check that `model.weights` can be read; warn if published weights get another input."""
    if not (weights := config.model.get("weights")):
        return
    read_state_dict(weights)
    settings = config.preprocessing
    if (settings.grid, settings.scaling) == ("kan2020_58x70x58", "none"):
        return
    if config.model["_target_"].endswith(".Kan2020") and is_published(weights):
        log_warning(
            f"{weights} was trained on raw intensities of the grid kan2020_58x70x58, not on "
            f"{settings.grid} with scaling={settings.scaling}; preprocessing=kan2020 gives its input"
        )


def check_brain_size(config: Config, cohort: pd.DataFrame) -> None:
    """Raise an error before training if the column of brain size contains too few sizes."""
    column = config.data.brain_size_column
    if not column:
        return
    has_classes = build_task(config.task).has_classes
    groups = cohort["label"] if has_classes else pd.Series("participants", cohort.index)
    sizes = pd.to_numeric(cohort[column], errors="coerce")
    if (wrong := sizes.isna() & cohort[column].notna()).any():
        ids = cohort.loc[wrong, "participant_id"].unique().tolist()
        raise ConfigError(
            f"data.brain_size_column={column}: {cohort.loc[wrong, column].iloc[0]!r} is no number "
            f"({named(ids)}); write a number with a decimal point, or leave the cell empty"
        )
    numbers = sizes.groupby(groups).count()
    if (numbers < (config.folds.n_folds if config.folds.kind == "stratified" else 2)).any():
        counts = ", ".join(f"{name}: {count}" for name, count in numbers.items())
        raise ConfigError(f"data.brain_size_column={column}: too few numbers in it ({counts})")

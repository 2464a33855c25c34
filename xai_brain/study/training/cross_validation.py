"""Train one network per fold and seed; every subject is predicted by the network that did not see it."""

from __future__ import annotations

import shutil
import tempfile
import time
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from xai_brain.config.compose import ConfigError
from xai_brain.data.folds.tables import fold_numbers, with_repeat
from xai_brain.io.atomic import disk_full_errors, file_hash, partial_prefix, write_atomic
from xai_brain.models.calibrated import missing_package
from xai_brain.models.fitting import fit_fold, naming_network, predict_outputs
from xai_brain.models.fitting_in_processes import fit_in_processes
from xai_brain.models.networks.kan2020 import is_published
from xai_brain.models.process_group import joined_processes, n_processes
from xai_brain.models.weights import read_state_dict
from xai_brain.parallel.locks import is_locked, run_exclusive, run_shared
from xai_brain.parallel.progress import EpochLines, log
from xai_brain.runs.directory import (
    RunDirectory,
    add_seconds,
    git_commit,
    provenance,
    read_tsv,
    update_metrics,
    versions,
    write_json,
    write_tsv,
)
from xai_brain.statistics.classification import classification_metrics, defined_figures
from xai_brain.study.explanation.method_trial import try_methods
from xai_brain.study.explanation.missing_maps import check_methods
from xai_brain.study.explanation.target_rule import read_target
from xai_brain.study.participants import (
    class_names,
    cohort_root,
    input_hashes,
    portable,
    prepared_cohort,
    same_cohort,
    task_of,
)
from xai_brain.study.settings import open_run
from xai_brain.study.training.fold_training import classifier_settings, datamodule_of
from xai_brain.study.training.folds import audit, folds_of, log_folds, split_prepared_fold


def train_run(cfg: DictConfig) -> RunDirectory:
    """Train all folds and seeds of a run; folds that are finished are kept.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
        From `xai_brain.compose`.

    Returns
    -------
    RunDirectory
        With checkpoints, predictions.tsv, participants.tsv, folds.tsv and test scores in metrics.json.
    """
    with joined_processes(cfg.trainer):
        check_methods(cfg)
        if package := missing_package(cfg.model["_target_"]):
            raise ConfigError(f"model._target_={cfg.model['_target_']}: needs pip install '{package}'")
        run = open_run(cfg)
        if is_trained(cfg, run):
            log(f"train: nothing to do, {run.predictions} is complete")
        else:
            train_networks(cfg, run)
    return run


def train_networks(cfg: DictConfig, run: RunDirectory) -> None:
    """Folds, a network for each and seed, their predictions."""
    start = time.monotonic()
    check_weights(cfg)
    cohort = prepared_cohort(cfg, run)
    check_brain_size(cfg, cohort)
    read_target(cfg.explain.target, class_names(cohort))  # before hours of training
    begun: list[pd.DataFrame] = []
    run_exclusive(run.locks, "begin", lambda: begun.extend(_begin(cfg, run, cohort)))
    cohort, folds = begun
    try_methods(cfg, cohort)

    run_shared(
        run.locks,
        {run.checkpoint(k, s, list(cfg.seeds)).stem: (k, s) for s in cfg.seeds for k in fold_numbers(folds)},
        done=lambda unit: _is_fitted(cfg, run, *unit),
        do=lambda unit: train_fold(cfg, run, cohort, folds, *unit),
        wait=lambda n: log(f"train: waiting for {n} folds that other processes train"),
    )
    run_exclusive(run.locks, "predictions", lambda: _finish(cfg, run, folds), run.predictions.exists)
    add_seconds(run, "train", time.monotonic() - start)


def is_trained(cfg: DictConfig, run: RunDirectory) -> bool:
    """Whether predictions.tsv, all networks and the predictions of each are there."""
    if not (run.predictions.exists() and run.folds.exists()):
        return False
    folds = fold_numbers(read_tsv(run.folds))
    return all(_is_fitted(cfg, run, fold, seed) for seed in cfg.seeds for fold in folds)


def _begin(cfg: DictConfig, run: RunDirectory, cohort: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Who takes part and who is in which fold: decided once, by the first process."""
    if not is_trained(cfg, run):  # a network that is gone is trained again, and its predictions with it
        run.predictions.unlink(missing_ok=True)
    at_work = is_locked(run.locks) and run.provenance.exists()
    if run.folds.exists() and (at_work or any((run.path / "checkpoints").glob("*.ckpt"))):
        cohort, folds = same_cohort(cohort, run), read_tsv(run.folds)  # folds that are trained stay true
        audit(cfg, cohort, folds)
        return cohort, folds
    folds = folds_of(cfg, cohort)
    audit(cfg, cohort, folds)
    root = cohort_root(cfg)
    write_tsv(portable(cohort, root), run.participants)
    write_tsv(folds, run.folds)
    log_folds(cfg, run, cohort, folds)
    inputs = input_hashes(cohort, root)
    tables = {path.name: file_hash(path) for path in (run.participants, run.folds)}
    write_json({**provenance(list(cfg.seeds), inputs), "tables_sha256": tables}, run.provenance)
    return cohort, folds


def _finish(cfg: DictConfig, run: RunDirectory, folds: pd.DataFrame) -> None:
    """Figures and predictions.tsv of all folds."""
    tables = [read_tsv(_fold_predictions(run, k, s, cfg)) for s in cfg.seeds for k in fold_numbers(folds)]
    predictions = with_repeat(pd.concat(tables, ignore_index=True), folds)
    figures = defined_figures(classification_metrics(predictions, "test", cfg.evaluation.n_bootstrap))
    if "test/auroc" not in figures:
        n_tested = predictions.groupby("fold")["target"].nunique()
        incomplete = n_tested.index[n_tested < predictions["target"].nunique()]
        log(
            "train: test/auroc is not defined, because not every class is tested in fold "
            f"{', '.join(str(fold + 1) for fold in incomplete)}; test/auroc_pooled ranks all folds together"
        )
    # the figures in pairs of equal brain size stay: who has them looks whether predictions have changed
    update_metrics(run, figures)
    write_tsv(predictions, run.predictions)  # last: it says that training is complete


def _is_fitted(cfg: DictConfig, run: RunDirectory, fold: int, seed: int) -> bool:
    return (
        run.checkpoint(fold, seed, list(cfg.seeds)).exists()
        and _fold_predictions(run, fold, seed, cfg).exists()
    )


def train_fold(
    cfg: DictConfig, run: RunDirectory, cohort: pd.DataFrame, folds: pd.DataFrame, fold: int, seed: int
) -> None:
    """Fit the network of one fold and predict its test part; the predictions say that it is complete."""
    seeds = list(cfg.seeds)
    checkpoint = run.checkpoint(fold, seed, seeds)
    done, task = _fold_predictions(run, fold, seed, cfg), task_of(cfg, cohort)
    start = time.monotonic()
    parts = split_prepared_fold(cfg, cohort, folds, fold, seed)
    fold_seed = 1000 * seed + fold
    datamodule = datamodule_of(cfg, parts, fold_seed)
    what = f"train seed {seed} fold {fold + 1}/{max(fold_numbers(folds)) + 1}"
    tell = EpochLines(what, cfg.trainer.max_epochs)
    settings: dict[str, Any] = OmegaConf.to_container(cfg.trainer)  # type: ignore[assignment]
    fit = fit_fold if n_processes(cfg.trainer) == 1 else fit_in_processes
    with (
        disk_full_errors(run.path),
        naming_network(what),
        tempfile.TemporaryDirectory(dir=run.path, prefix=partial_prefix()) as work_dir,
    ):
        classifier, network_file, history = fit(
            datamodule,
            classifier_settings(cfg, list(task.names)),
            settings,
            seed=fold_seed,
            work_dir=Path(work_dir),
            tell=tell,
        )
        _keep_logs(Path(work_dir), run.path / "logs" / checkpoint.stem)
        probabilities = {
            "validation": predict_outputs(classifier, datamodule.val_dataloader())[0].softmax(1).numpy(),
            "test": predict_outputs(classifier, datamodule.test_dataloader())[0].softmax(1).numpy(),
        }
        write_atomic(checkpoint, partial(shutil.copyfile, network_file))
    write_tsv(history, run.history(fold, seed, seeds))
    tables = {
        part: task.prediction_table(parts[part], values, fold=fold, seed=seed)
        for part, values in probabilities.items()
    }
    of_subjects = (parts["train"]["sha256"], parts["validation"]["sha256"])
    write_tsv(tables["validation"], run.validation(fold, seed, seeds))
    beside = (run.history(fold, seed, seeds), run.validation(fold, seed, seeds))
    about = {
        "CheckpointSHA256": file_hash(checkpoint),
        "TablesSHA256": {path.name: file_hash(path) for path in beside},
        "TrainingInputsSHA256": sha256("".join(sorted(pd.concat(of_subjects))).encode()).hexdigest(),
        "Versions": versions(),
        "GitCommit": git_commit(),
    }
    write_json(about, run.checkpoint_about(fold, seed, seeds))
    write_tsv(tables["test"], done)
    accuracy = (probabilities["test"].argmax(1) == tables["test"]["target"]).mean()
    log(f"{what}: test accuracy {accuracy:.3f} (n = {len(tables['test'])}), {time.monotonic() - start:.0f} s")


def _fold_predictions(run: RunDirectory, fold: int, seed: int, cfg: DictConfig) -> Path:
    checkpoint = run.checkpoint(fold, seed, list(cfg.seeds))
    return checkpoint.with_name(f"{checkpoint.stem}_predictions.tsv")


def _keep_logs(work_dir: Path, folder: Path) -> None:
    """CSV and TensorBoard logs, without the intermediate checkpoints."""
    for path in sorted(work_dir.rglob("*")):
        if path.is_file() and path.suffix != ".ckpt":
            target, content = folder / path.relative_to(work_dir), path.read_bytes()
            write_atomic(target, partial(_write_bytes, content=content))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def check_weights(cfg: DictConfig) -> None:
    """Read `model.weights` before any work, and warn where published weights get another input."""
    if not (weights := cfg.model.get("weights")):
        return
    read_state_dict(weights)
    settings = cfg.preprocessing
    if (settings.grid, settings.scaling) == ("kan2020_58x70x58", "none"):
        return
    if cfg.model["_target_"].endswith(".Kan2020") and is_published(weights):
        log(
            f"warning: {weights} was trained on raw intensities of the grid kan2020_58x70x58, not on "
            f"{settings.grid} with scaling={settings.scaling}; preprocessing=kan2020 gives its input"
        )


def check_brain_size(cfg: DictConfig, cohort: pd.DataFrame) -> None:
    """Refuse a column of brain size that holds none, before any training."""
    column = cfg.data.brain_size_column
    if not column:
        return
    if column not in cohort:
        raise ConfigError(
            f"data.brain_size_column={column}: not in participants.tsv (its columns: {', '.join(cohort)})"
        )
    numbers = pd.to_numeric(cohort[column], errors="coerce").groupby(cohort["label"]).count()
    if (numbers < (cfg.folds.n_folds if cfg.folds.kind == "stratified" else 2)).any():
        counts = ", ".join(f"{name}: {count}" for name, count in numbers.items())
        raise ConfigError(f"data.brain_size_column={column}: too few numbers in it ({counts})")

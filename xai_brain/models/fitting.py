"""Fit the network of one fold: training, best epoch, calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn

from xai_brain.models.batch_statistics import exact_batch_statistics
from xai_brain.models.module import BrainClassifier
from xai_brain.models.standardization import volume_statistics
from xai_brain.models.trainer_setup import determinism_kept, quiet_lightning
from xai_brain.models.training_callbacks import (
    DataWaiting,
    EpochReport,
    History,
    StopAtNonFinite,
    TrainingError,
)
from xai_brain.parallel.memory import keep_freed_memory, return_freed_memory

CHECKPOINT = "network.ckpt"  # in the working directory of a training


@contextmanager
def naming_network(name: str) -> Iterator[None]:
    """Prefix errors of training with the name of the network: purpose, seed and fold."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{name}: {error}") from error


def ignore_epoch(epoch: int, metrics: dict[str, float]) -> None:
    """Report no progress."""


def fit_fold(
    datamodule: pl.LightningDataModule,
    classifier_settings: dict[str, Any],
    trainer_settings: dict[str, Any],
    *,
    seed: int,
    work_dir: Path,
    report_epoch: Callable[[int, dict[str, float]], None] = ignore_epoch,
) -> tuple[BrainClassifier, Path, pd.DataFrame]:
    """Train one network on one device, keep its best epoch, calibrate it on the validation part.

    Parameters
    ----------
    datamodule : BrainDataModule
    classifier_settings : dict
        Arguments of `BrainClassifier`.
    trainer_settings : dict
        Fields of `xai_brain.config.compose.TrainerConfig`.
    seed : int
    work_dir : Path
        For logs and intermediate checkpoints.
    report_epoch : callable(epoch, metrics), optional

    Returns
    -------
    classifier : BrainClassifier
        In eval mode and single precision, at the best epoch by the monitored metric, calibrated.
    checkpoint : Path
        The same network as a file, in `work_dir`.
    history : pandas.DataFrame
        epoch, metric, value.

    Raises
    ------
    TrainingError
        A loss, the monitored metric or an output of the validation part is NaN or infinite.
    """
    return fit_network(
        datamodule,
        classifier_settings,
        trainer_settings,
        seed=seed,
        work_dir=work_dir,
        report_epoch=report_epoch,
    )


def fit_network(
    datamodule: pl.LightningDataModule,
    classifier_settings: dict[str, Any],
    trainer_settings: dict[str, Any],
    *,
    seed: int,
    work_dir: Path,
    report_epoch: Callable[[int, dict[str, float]], None] = ignore_epoch,
    arguments: Mapping[str, Any] | None = None,
) -> tuple[BrainClassifier, Path, pd.DataFrame]:
    """As `fit_fold`, also in one of several processes; `arguments` are passed to Lightning's Trainer.

    Only the process of rank zero loads the best epoch and calibrates it; the others keep the last epoch.
    """
    classifier, trainer, best, history = fit_epochs(
        datamodule,
        classifier_settings,
        trainer_settings,
        seed=seed,
        work_dir=work_dir,
        report_epoch=report_epoch,
        arguments=arguments or {"accelerator": trainer_settings["accelerator"], "devices": 1},
    )
    if trainer.is_global_zero:
        if best.best_model_path:
            state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
            classifier.load_state_dict(state)
        classifier.float().eval()  # training may have used double precision
        if trainer_settings["calibrate"]:
            outputs, targets = predict_outputs(classifier, datamodule.val_dataloader())
            classifier.temperature.fill_(classifier.task.fit_temperature(outputs, targets))
    trainer.save_checkpoint(work_dir / CHECKPOINT, weights_only=True)  # rank zero writes, the others wait
    return_freed_memory()
    return classifier, work_dir / CHECKPOINT, history.table()


def fit_epochs(
    datamodule: pl.LightningDataModule,
    classifier_settings: dict[str, Any],
    trainer_settings: dict[str, Any],
    *,
    seed: int,
    work_dir: Path,
    report_epoch: Callable[[int, dict[str, float]], None],
    arguments: Mapping[str, Any],
) -> tuple[BrainClassifier, pl.Trainer, ModelCheckpoint, History]:
    """Train all epochs; the network has the weights of the last one, the checkpoint callback the best one."""
    settings = trainer_settings
    pl.seed_everything(seed, workers=True, verbose=False)
    keep_freed_memory()
    classifier = BrainClassifier(**classifier_settings)
    if how := classifier.standardize:
        mean, inverse_sd = training_statistics(datamodule)
        classifier.mean_volume.copy_(mean)
        if how == "zscore":
            classifier.inverse_sd.copy_(inverse_sd)
    if classifier.task.standardizes_targets:
        target_mean, target_sd = target_statistics(datamodule)
        classifier.target_mean.fill_(target_mean)
        classifier.target_sd.fill_(target_sd)
    if settings["class_weights"] or settings["sampling"]:
        # with balanced sampling, the epoch is also chosen by a loss to which classes contribute equally
        classifier.class_weights = balanced_weights(datamodule, classifier.task.n_outputs)
        classifier.weighted_training = settings["class_weights"] is not None
    mode = settings["mode"] or classifier.task.monitor_mode(settings["monitor"])
    best = ModelCheckpoint(work_dir, "best", monitor=settings["monitor"], mode=mode)
    history = History()
    callbacks: list[Callback] = [history, EpochReport(report_epoch), StopAtNonFinite(settings), best]
    callbacks.append(DataWaiting())
    callbacks += arguments.get("callbacks", [])
    if settings["patience"] is not None:
        callbacks.append(EarlyStopping(settings["monitor"], mode=mode, patience=settings["patience"]))
    loggers: list[Any] = [CSVLogger(work_dir, name="csv", version="")]
    if settings["tensorboard"]:
        loggers.append(TensorBoardLogger(work_dir, name="tensorboard", version=""))
    with quiet_lightning(), determinism_kept():
        trainer = pl.Trainer(
            **{
                "max_epochs": settings["max_epochs"],
                "precision": settings["precision"],
                "logger": loggers,
                "deterministic": "warn" if torch.cuda.is_available() else True,
                "fast_dev_run": settings["fast_dev_run"],
                "num_sanity_val_steps": 0,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "log_every_n_steps": 1,
                **settings["extra"],
                **arguments,
                "callbacks": callbacks,
            }
        )
        try:
            with exact_batch_statistics(classifier):
                trainer.fit(classifier, datamodule)
        except SystemExit as stop:  # Lightning's reaction to Ctrl-C
            raise KeyboardInterrupt from stop
    return classifier, trainer, best, history


def training_statistics(datamodule: pl.LightningDataModule) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and reciprocal standard deviation of the training volumes (not augmented), (1, X, Y, Z) each."""
    dataset = datamodule.train_dataloader().dataset
    return volume_statistics(dataset[index]["volume"] for index in range(len(dataset)))


def target_statistics(datamodule: pl.LightningDataModule) -> tuple[float, float]:
    """Mean and standard deviation (1 if all are equal) of the targets of the training images."""
    targets = np.asarray(datamodule.train_dataloader().dataset.targets, float)
    return float(targets.mean()), float(targets.std()) or 1.0


def balanced_weights(datamodule: pl.LightningDataModule, n_classes: int) -> torch.Tensor:
    """Weight n / (n_classes n_k) of each class k, with its number n_k of training images, (n_classes,)."""
    targets = np.asarray(datamodule.train_dataloader().dataset.targets, int)
    counts = np.bincount(targets, minlength=n_classes)
    return torch.tensor(len(targets) / (n_classes * counts), dtype=torch.float32)


@torch.no_grad()
def predict_outputs(
    classifier: nn.Module, loader: Any, device: str | torch.device = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs (N, n_outputs), e.g. logits, and targets (N,) of all batches of a loader, on the CPU.

    Raises
    ------
    TrainingError
        An output is NaN or infinite.
    """
    classifier.to(device).eval()
    batches = [(classifier(batch["volume"].to(device)).cpu(), batch["target"]) for batch in loader]
    outputs = torch.cat([outputs for outputs, _ in batches])
    if n_broken := int((~outputs.isfinite()).any(1).sum()):
        raise TrainingError(
            f"the outputs for {n_broken} of {len(outputs)} images are NaN or infinite; use a lower "
            "trainer.lr, or look for images with extreme intensities"
        )
    return outputs, torch.cat([targets for _, targets in batches])

"""Callbacks of Lightning's Trainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from xai_brain.parallel.progress import log_debug


class TrainingError(ValueError):
    """A training failed, for example because a loss, the monitored metric or an output is not finite."""


class History(Callback):
    """Keeps the metrics of every epoch as rows of a tidy table: epoch, metric, value."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, value in trainer.callback_metrics.items():
            self.rows.append({"epoch": trainer.current_epoch, "metric": name, "value": float(value)})

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=["epoch", "metric", "value"])


class EpochReport(Callback):
    """Reports every epoch to a progress function, in the process of rank zero."""

    def __init__(self, report_epoch: Callable[[int, dict[str, float]], None]):
        self.report_epoch = report_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.report_epoch(
                trainer.current_epoch + 1, {k: float(v) for k, v in trainer.callback_metrics.items()}
            )


class StopAtNonFinite(Callback):
    """Raises `TrainingError` after an epoch whose losses or monitored metric are NaN or infinite.

    A network with such weights predicts NaN for every participant, and later epochs cannot repair them.
    """

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name in ("train/loss", "val/loss", self.settings["monitor"]):
            value = float(trainer.callback_metrics.get(name, 0.0))
            if not np.isfinite(value):
                remedies = f"use a lower trainer.lr (now {self.settings['lr']:g})"
                if self.settings["precision"] != "32-true":
                    remedies += f", trainer.precision=32-true (now {self.settings['precision']})"
                raise TrainingError(
                    f"{name} is {'NaN' if np.isnan(value) else 'infinite'} in epoch "
                    f"{trainer.current_epoch + 1} of {self.settings['max_epochs']}; {remedies}, or look for "
                    "images with extreme intensities"
                )


class DataWaiting(Callback):
    """Reports, with the verbosity "verbose", which share of every epoch passes before a batch is available.

    A GPU is kept busy if this share is small; otherwise ``trainer.num_workers`` may help.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = self.ready = time.monotonic()
        self.waiting = 0.0

    def on_train_batch_start(self, *arguments: Any) -> None:
        self.waiting += time.monotonic() - self.ready

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.ready = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seconds = time.monotonic() - self.start
        log_debug(
            f"epoch {trainer.current_epoch + 1}: {seconds:.2f} s, of these {self.waiting / seconds:.0%} "
            "waiting for batches"
        )

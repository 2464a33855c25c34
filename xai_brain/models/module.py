"""Training a network on volumes: the LightningModule."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torchmetrics import MeanMetric, MetricCollection

from xai_brain.models.calibrated import CalibratedNetwork


class BrainClassifier(CalibratedNetwork, pl.LightningModule):
    """A network, its loss, metrics and optimiser.

    All hyper-parameters are primitive, so that ``BrainClassifier.load_from_checkpoint(path)`` works
    anywhere and safely.

    Parameters
    ----------
    network : dict
        ``_target_`` and keyword arguments of the network, which returns (N, n_outputs), e.g. logits.
    output_names : list of str
        Names of the outputs, e.g. of the classes in the order of their index.
    input_shape : list of 3 int
    preprocessing : dict, optional
        Settings with which the volumes were prepared; stored in the checkpoint for documentation.
    lr, weight_decay : float
    scheduler : {"one_cycle", "multistep", "constant"}, default "one_cycle"
    milestones : list of int, default ()
        Epochs at which multistep multiplies the rate by `gamma`.
    gamma : float, default 0.1
    standardize : {"mean", "zscore"}, optional
        Subtract `mean_volume`, (1, X, Y, Z), from every input; for zscore also divide by the standard
        deviation at each voxel (multiply by `inverse_sd`). `fit_fold` takes both from the training volumes.
    task : dict, optional
        ``_target_`` and arguments of the task (see `xai_brain.task.build.build_task`), which determines
        loss and metrics; default: classification.
    """

    def __init__(
        self,
        network: dict[str, Any],
        output_names: list[str],
        input_shape: list[int],
        preprocessing: dict[str, Any] | None = None,
        lr: float = 3e-4,
        weight_decay: float = 0.0,
        scheduler: str = "one_cycle",
        milestones: list[int] | None = None,
        gamma: float = 0.1,
        standardize: str | None = None,
        task: dict[str, Any] | None = None,
    ):
        super().__init__(network, output_names, input_shape, standardize, task)
        self.save_hyperparameters()
        # weights are inside a checkpoint: nothing in it may point to a file of another machine
        self.hparams["network"] = {key: value for key, value in network.items() if key != "weights"}
        self.hparams["task"] = self.task.settings()
        self.val_metrics = MetricCollection(self.task.validation_metrics()).clone(prefix="val/")
        # NaN stays NaN (with "disable" torchmetrics would forget the weights)
        self.train_loss = MeanMetric(nan_strategy=float("nan"))
        self.val_loss = MeanMetric(nan_strategy=float("nan"))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        loss, n = self.task.loss(self(batch["volume"]), batch["target"]), len(batch["target"])
        self.train_loss.update(loss.detach().clone(), n)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, batch_size=n)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        outputs = self(batch["volume"])
        self.val_metrics.update(self.task.predict(outputs).squeeze(1), batch["target"])  # (N,) of one column
        loss = self.task.loss(outputs, batch["target"])
        self.val_loss.update(loss.clone(), len(batch["target"]))
        self.log("val/loss", self.val_loss, batch_size=len(batch["target"]))
        self.log_dict(self.val_metrics, batch_size=len(batch["target"]))

    def configure_optimizers(self) -> Any:
        hparams = self.hparams
        optimizer = torch.optim.AdamW(self.parameters(), hparams["lr"], weight_decay=hparams["weight_decay"])
        if hparams["scheduler"] == "constant":
            return optimizer
        if hparams["scheduler"] == "multistep":
            steps = torch.optim.lr_scheduler.MultiStepLR(
                optimizer, hparams["milestones"] or [], hparams["gamma"]
            )
            return [optimizer], [steps]
        total = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, hparams["lr"], max(total, 2), pct_start=0.2)
        return [optimizer], [{"scheduler": cycle, "interval": "step"}]

"""Training a network on volumes: the LightningModule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torchmetrics import MeanMetric, MetricCollection

from xai_brain.config.setting import ConfigError
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
    freeze : list of str, default ()
        Modules of the network whose weights and running statistics are not trained.

    Examples
    --------
    >>> network = {"_target_": "xai_brain.models.networks.kan2020.Kan2020", "channels": [2, 3, 4]}
    >>> classifier = BrainClassifier(network, ["female", "male"], [30, 28, 26], lr=1e-3, weight_decay=0.0)
    >>> classifier(torch.rand(2, 1, 30, 28, 26)).shape
    torch.Size([2, 2])
    """

    frozen: Sequence[torch.nn.Module] = ()
    class_weights: torch.Tensor | None  # of the validation loss, and of the training loss if it is weighted
    weighted_training: bool = False

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
        freeze: list[str] | None = None,
    ):
        super().__init__(network, output_names, input_shape, standardize, task)
        self.save_hyperparameters()
        self.frozen = [self._module_named(name) for name in freeze or ()]
        for module in self.frozen:
            module.requires_grad_(False)
        # weights are inside a checkpoint: nothing in it may point to a file of another machine
        self.hparams["network"] = {key: value for key, value in network.items() if key != "weights"}
        self.hparams["task"] = self.task.settings()
        self.register_buffer("class_weights", None, persistent=False)  # of training, not of the network
        self.val_metrics = MetricCollection(self.task.validation_metrics()).clone(prefix="val/")
        # NaN stays NaN (with "disable" torchmetrics would forget the weights)
        self.train_loss = MeanMetric(nan_strategy=float("nan"))
        self.val_loss = MeanMetric(nan_strategy=float("nan"))

    def _module_named(self, name: str) -> torch.nn.Module:
        modules: dict[str, torch.nn.Module] = dict(self.network.named_modules())
        if name not in modules or not name:
            names = ", ".join(key for key, _ in self.network.named_children())
            raise ConfigError(f"trainer.freeze: the network has no module {name!r}; it has {names}")
        return modules[name]

    def train(self, mode: bool = True) -> BrainClassifier:
        """As of every module; frozen modules stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def on_train_epoch_start(self) -> None:
        """Lightning does not call `train` when training begins."""
        self.train(self.training)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        """Loss of one batch, with the class weights if they belong to training."""
        weights = self.class_weights if self.weighted_training else None
        raw, n = self.raw_outputs(batch["volume"]), len(batch["target"])
        loss = self._loss(raw, batch["target"], weights)
        self.train_loss.update(loss.detach().clone(), n)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, batch_size=n)
        return loss

    def _loss(
        self, raw: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Loss of the task; numbers are compared in standard deviations of the training targets."""
        if self.task.standardizes_targets:
            targets = (targets - self.target_mean) / self.target_sd
        if class_weights is None:
            return self.task.loss(raw, targets)
        return self.task.loss(raw, targets, class_weights.to(raw))

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add one batch to the validation loss and to the metrics of the task."""
        raw = self.raw_outputs(batch["volume"])
        outputs = self.in_units(raw)
        self.val_metrics.update(self.task.predict(outputs).squeeze(1), batch["target"])  # (N,) of one column
        loss = self._loss(raw, batch["target"], self.class_weights)
        weights = self.class_weights
        # a weighted mean over all batches, so that the validation loss does not depend on the batch size
        total = len(batch["target"]) if weights is None else weights[batch["target"]].sum()
        self.val_loss.update(loss.clone(), total)
        self.log("val/loss", self.val_loss, batch_size=len(batch["target"]))
        self.log_dict(self.val_metrics, batch_size=len(batch["target"]))

    def configure_optimizers(self) -> Any:
        """AdamW of the parameters that are not frozen, and the learning rate schedule."""
        hparams = self.hparams
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not trained:
            raise ConfigError(
                f"trainer.freeze={hparams['freeze']}: freezes the whole network; nothing is trained"
            )
        optimizer = torch.optim.AdamW(trained, hparams["lr"], weight_decay=hparams["weight_decay"])
        if hparams["scheduler"] == "constant":
            return optimizer
        if hparams["scheduler"] == "multistep":
            steps = torch.optim.lr_scheduler.MultiStepLR(
                optimizer, hparams["milestones"] or [], hparams["gamma"]
            )
            return [optimizer], [steps]
        total = int(self.trainer.estimated_stepping_batches)
        rise = 0.25 if total == 5 else 0.2  # OneCycleLR divides by rise * total - 1
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, hparams["lr"], max(total, 2), pct_start=rise)
        return [optimizer], [{"scheduler": cycle, "interval": "step"}]

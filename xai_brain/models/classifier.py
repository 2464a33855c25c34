"""Training a network on volumes: the LightningModule."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from typing import Any, get_type_hints

import pytorch_lightning as pl
import torch
from torch import nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from xai_brain.trust import KNOWN_PACKAGES


def build_network(target: str, kwargs: dict[str, Any], input_shape: list[int], n_classes: int) -> nn.Module:
    """Make a network by its dotted name.

    Parameters
    ----------
    target : str
        E.g. ``xai_brain.models.kan2020.Kan2020``. ``input_shape`` and the number of classes (as
        ``n_classes``, ``num_classes`` or ``out_channels``) are passed to it where its signature has them.
    kwargs : dict
    input_shape : list of 3 int
    n_classes : int

    Raises
    ------
    ValueError
        It is neither a class of networks nor a function that is annotated to return one, or of a package that
        is neither known nor imported: a checkpoint names it too, and may come from anywhere.
    """
    module, _, name = target.rpartition(".")
    package = module.split(".")[0]
    if package not in KNOWN_PACKAGES and package not in sys.modules:
        raise ValueError(
            f"model._target_={target}: its package is not trusted; if it is yours, import it first"
        )
    factory = getattr(importlib.import_module(module), name)
    made = factory if inspect.isclass(factory) else _returns(factory)
    if not (inspect.isclass(made) and issubclass(made, nn.Module)):
        raise ValueError(
            f"model._target_={target}: is not a torch.nn.Module, nor a function annotated `-> nn.Module`"
        )
    accepted = inspect.signature(factory).parameters
    known: dict[str, Any] = {"input_shape": input_shape}
    known |= dict.fromkeys(("n_classes", "num_classes", "out_channels"), n_classes)
    return factory(
        **{key: value for key, value in known.items() if key in accepted and key not in kwargs}, **kwargs
    )


def _returns(function: Any) -> Any:
    """Class that a function is annotated to return, if any."""
    try:
        return get_type_hints(function).get("return")
    except (NameError, TypeError):
        return None


def channels_last(network: nn.Module) -> nn.Module:
    """The network, whose 3-D convolutions work channels last: half of their time on CPUs is layouts else."""
    for weight in network.parameters():
        if weight.dim() == 5:
            weight.data = weight.data.to(memory_format=torch.channels_last_3d)
    return network


def missing_package(target: str) -> str | None:
    """What to install before the network of this dotted name can be made; None when it is there."""
    package = target.partition(".")[0]
    if importlib.util.find_spec(package) is not None:
        return None
    return "xai-brain[models]" if package == "monai" else package


class BrainClassifier(pl.LightningModule):
    """A network, its loss, metrics and optimiser.

    All hyper-parameters are primitive, so that ``BrainClassifier.load_from_checkpoint(path)`` works
    anywhere and safely.

    Parameters
    ----------
    network : dict
        ``_target_`` and keyword arguments of the network, which returns logits (N, n_classes).
    class_names : list of str
        In the order of the class index.
    input_shape : list of 3 int
    preprocessing : dict, optional
        Settings with which the volumes were prepared (kept for whoever loads the checkpoint).
    lr, weight_decay : float
    scheduler : {"one_cycle", "multistep", "constant"}, default "one_cycle"
    milestones : list of int, default ()
        Epochs at which multistep multiplies the rate by `gamma`.
    gamma : float, default 0.1
    standardize : {"mean", "zscore"}, optional
        Subtract `mean_volume`, (1, X, Y, Z), from every input; for zscore also divide by the standard
        deviation at each voxel (multiply by `inverse_sd`). `fit_fold` takes both from the training volumes.
    """

    temperature: torch.Tensor
    mean_volume: torch.Tensor
    inverse_sd: torch.Tensor

    def __init__(
        self,
        network: dict[str, Any],
        class_names: list[str],
        input_shape: list[int],
        preprocessing: dict[str, Any] | None = None,
        lr: float = 3e-4,
        weight_decay: float = 0.0,
        scheduler: str = "one_cycle",
        milestones: list[int] | None = None,
        gamma: float = 0.1,
        standardize: str | None = None,
    ):
        super().__init__()
        self.save_hyperparameters()
        kwargs = {key: value for key, value in network.items() if key != "_target_"}
        self.network = channels_last(
            build_network(network["_target_"], kwargs, input_shape, len(class_names))
        )
        # weights are inside a checkpoint: nothing in it may point to a file of another machine
        self.hparams["network"] = {key: value for key, value in network.items() if key != "weights"}
        self.register_buffer("temperature", torch.ones(()))
        if standardize is not None:
            self.register_buffer("mean_volume", torch.zeros(1, *input_shape))
        if standardize == "zscore":
            self.register_buffer("inverse_sd", torch.ones(1, *input_shape))
        n_classes = len(class_names)
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(n_classes, average="micro"),
                "balanced_accuracy": MulticlassAccuracy(n_classes, average="macro"),
                "auroc": MulticlassAUROC(n_classes),
            }
        )
        self.val_metrics = metrics.clone(prefix="val/")
        # of losses too: Lightning's own mean over processes with different numbers of subjects is wrong; what
        # is no number stays so (with "disable" torchmetrics would forget the weights)
        self.train_loss = MeanMetric(nan_strategy=float("nan"))
        self.val_loss = MeanMetric(nan_strategy=float("nan"))

    @property
    def class_names(self) -> list[str]:
        return list(self.hparams["class_names"])

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """Calibrated logits (N, n_classes) of volumes (N, 1, X, Y, Z)."""
        if self.hparams["standardize"] is not None:
            volumes = volumes - self.mean_volume
        if self.hparams["standardize"] == "zscore":
            volumes = volumes * self.inverse_sd
        return self.network(volumes) / self.temperature

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        loss, n = nn.functional.cross_entropy(self(batch["volume"]), batch["target"]), len(batch["target"])
        self.train_loss.update(loss.detach().clone(), n)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, batch_size=n)
        # of several processes the gradients are averaged: each weighs as many subjects as it has
        return loss * (n * self.trainer.world_size / batch["n_all"]) if "n_all" in batch else loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        logits = self(batch["volume"])
        self.val_metrics.update(logits.softmax(1), batch["target"])
        loss = nn.functional.cross_entropy(logits, batch["target"])
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

"""Data module and classifier settings for the training of one fold."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.augmentation import Augmentation
from xai_brain.data.datamodule import BrainDataModule
from xai_brain.io.nifti import get_grid
from xai_brain.task.build import build_task
from xai_brain.task.protocol import Task


def check_balance(config: Config) -> None:
    """Refuse settings that balance classes for a task without classes.

    Raises
    ------
    ConfigError
    """
    for name in ("class_weights", "sampling"):
        if (value := getattr(config.trainer, name)) and not build_task(config.task).has_classes:
            raise ConfigError(f"trainer.{name}={value}: this task has no classes to balance; leave it out")


def datamodule_of(config: Config, parts: dict[str, pd.DataFrame], seed: int) -> BrainDataModule:
    """The parts of a fold as batches, with augmentation of the training part."""
    voxel_size_mm = tuple(get_grid(config.preprocessing.grid).spacing_mm)
    return BrainDataModule(
        parts,
        config.trainer.batch_size,
        augmentation=Augmentation(**asdict(config.augmentation), voxel_size_mm=voxel_size_mm, seed=seed),
        num_workers=config.trainer.num_workers,
        seed=seed,
        sampling=config.trainer.sampling,
    )


def classifier_settings(config: Config, task: Task) -> dict[str, Any]:
    """Arguments of `BrainClassifier`."""
    return {
        "network": dict(config.model),
        "output_names": list(task.names),
        "task": task.settings(),
        "input_shape": list(get_grid(config.preprocessing.grid).shape),
        "preprocessing": asdict(config.preprocessing),
        **{
            key: getattr(config.trainer, key)
            for key in ("lr", "weight_decay", "scheduler", "gamma", "standardize", "freeze")
        },
        "milestones": list(config.trainer.milestones),
    }

"""Settings of a run as what training one fold needs."""

from __future__ import annotations

from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from xai_brain.data.augmentation import Augmentation
from xai_brain.data.datamodule import BrainDataModule
from xai_brain.io.nifti import get_grid


def datamodule_of(cfg: DictConfig, parts: dict[str, pd.DataFrame], seed: int) -> BrainDataModule:
    """The parts of a fold as batches, the training part augmented as the settings say."""
    voxel_size_mm = tuple(get_grid(cfg.preprocessing.grid).spacing_mm)
    return BrainDataModule(
        parts,
        cfg.trainer.batch_size,
        augmentation=Augmentation(**cfg.augmentation, voxel_size_mm=voxel_size_mm, seed=seed),
        num_workers=cfg.trainer.num_workers,
        seed=seed,
    )


def classifier_settings(cfg: DictConfig, names: list[str]) -> dict[str, Any]:
    """Arguments of `BrainClassifier`."""
    return {
        "network": OmegaConf.to_container(cfg.model),
        "output_names": names,
        "task": OmegaConf.to_container(cfg.task),
        "input_shape": list(get_grid(cfg.preprocessing.grid).shape),
        "preprocessing": OmegaConf.to_container(cfg.preprocessing),
        **{key: cfg.trainer[key] for key in ("lr", "weight_decay", "scheduler", "gamma", "standardize")},
        "milestones": list(cfg.trainer.milestones),
    }

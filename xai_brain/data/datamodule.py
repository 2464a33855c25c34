"""Prepared volumes as batches: ``{"volume", "target", "participant_id"}``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset


class VolumeDataset(Dataset):
    """Memory-mapped prepared volumes.

    Parameters
    ----------
    table : pandas.DataFrame
        volume_path, target, participant_id.
    """

    def __init__(self, table: pd.DataFrame):
        self.paths = table["volume_path"].tolist()
        self.targets = table["target"].tolist()
        self.participant_ids = table["participant_id"].tolist()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        volume = torch.from_numpy(np.array(np.load(self.paths[index], mmap_mode="r")))
        return {
            "volume": volume[None],  # (1, X, Y, Z)
            "target": self.targets[index],
            "participant_id": self.participant_ids[index],
        }


class BrainDataModule(pl.LightningDataModule):
    """The three parts of one fold.

    Parameters
    ----------
    parts : dict of pandas.DataFrame
        ``train``, ``validation``, ``test`` from `split_fold`.
    batch_size : int, default 8
    augmentation : callable, optional
        Changes a batch of training volumes (N, 1, X, Y, Z) on the training device, e.g. an `Augmentation`.
    num_workers : int, default 0
    """

    def __init__(
        self,
        parts: dict[str, pd.DataFrame],
        batch_size: int = 8,
        augmentation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        num_workers: int = 0,
    ):
        super().__init__()
        self.parts, self.batch_size, self.num_workers = parts, batch_size, num_workers
        self.augmentation = augmentation

    def train_dataloader(self) -> DataLoader:
        dataset = VolumeDataset(self.parts["train"])
        # a last batch of one would have no batch statistics
        uneven = len(dataset) % self.batch_size == 1 and len(dataset) > 1
        return self._loader(dataset, shuffle=True, drop_last=uneven)

    def val_dataloader(self) -> DataLoader:
        return self._loader(VolumeDataset(self.parts["validation"]))

    def test_dataloader(self) -> DataLoader:
        return self._loader(VolumeDataset(self.parts["test"]))

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        if self.augmentation is None or self.trainer is None or not self.trainer.training:
            return batch
        return {**batch, "volume": self.augmentation(batch["volume"])}

    def _loader(self, dataset: VolumeDataset, **kwargs: Any) -> DataLoader:
        workers: dict[str, Any] = {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
        }
        return DataLoader(dataset, self.batch_size, **workers, **kwargs)

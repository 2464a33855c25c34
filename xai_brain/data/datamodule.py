"""Prepared volumes as batches: ``{"volume", "target", "participant_id"}``."""

from __future__ import annotations

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
    max_shift_voxels : int, default 0
        Random shift per axis, zeros moving in.
    intensity_sd : float, default 0
        Random gain and offset in the brain.
    """

    def __init__(self, table: pd.DataFrame, max_shift_voxels: int = 0, intensity_sd: float = 0.0):
        self.paths = table["volume_path"].tolist()
        self.targets = table["target"].tolist()
        self.participant_ids = table["participant_id"].tolist()
        self.max_shift_voxels, self.intensity_sd = max_shift_voxels, intensity_sd

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        volume = torch.from_numpy(np.array(np.load(self.paths[index], mmap_mode="r")))
        return {
            "volume": self._augmented(volume)[None],  # (1, X, Y, Z)
            "target": self.targets[index],
            "participant_id": self.participant_ids[index],
        }

    def _augmented(self, volume: torch.Tensor) -> torch.Tensor:
        if reach := self.max_shift_voxels:
            padded = torch.nn.functional.pad(volume, (reach,) * 6)
            start = torch.randint(0, 2 * reach + 1, (3,)).tolist()
            volume = padded[tuple(slice(a, a + n) for a, n in zip(start, volume.shape, strict=True))]
        if self.intensity_sd:
            gain, offset = self.intensity_sd * torch.randn(2)
            volume = torch.where(volume != 0, volume * (1 + gain) + offset, 0)
        return volume.contiguous()


class BrainDataModule(pl.LightningDataModule):
    """The three parts of one fold.

    Parameters
    ----------
    parts : dict of pandas.DataFrame
        ``train``, ``validation``, ``test`` from `split_fold`.
    batch_size : int, default 8
    max_shift_voxels, intensity_sd
        Augmentation of training volumes, see `VolumeDataset`.
    num_workers : int, default 0
    """

    def __init__(
        self,
        parts: dict[str, pd.DataFrame],
        batch_size: int = 8,
        max_shift_voxels: int = 0,
        intensity_sd: float = 0.0,
        num_workers: int = 0,
    ):
        super().__init__()
        self.parts, self.batch_size, self.num_workers = parts, batch_size, num_workers
        self.augmentation: dict[str, Any] = {
            "max_shift_voxels": max_shift_voxels,
            "intensity_sd": intensity_sd,
        }

    def train_dataloader(self) -> DataLoader:
        dataset = VolumeDataset(self.parts["train"], **self.augmentation)
        # a last batch of one would have no batch statistics
        uneven = len(dataset) % self.batch_size == 1 and len(dataset) > 1
        return self._loader(dataset, shuffle=True, drop_last=uneven)

    def val_dataloader(self) -> DataLoader:
        return self._loader(VolumeDataset(self.parts["validation"]))

    def test_dataloader(self) -> DataLoader:
        return self._loader(VolumeDataset(self.parts["test"]))

    def _loader(self, dataset: VolumeDataset, **kwargs: Any) -> DataLoader:
        workers: dict[str, Any] = {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
        }
        return DataLoader(dataset, self.batch_size, **workers, **kwargs)

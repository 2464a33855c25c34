"""Prepared volumes as batches: ``{"volume", "target", "participant_id"}``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from xai_brain.data.augmentation import Augmentation
from xai_brain.data.balanced_sampler import BalancedSampler

SEED_STEP = 1_000_003  # difference between the augmentation seeds of two processes
RESIDENT_SHARE = 0.2  # of a GPU's free memory that the volumes of one part of a fold may take


def free_bytes(device: torch.device) -> int:
    """Free memory of a CUDA device; 0 for other devices, which have no memory of their own."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0


class VolumeDataset(Dataset[Any]):
    """Prepared volumes, memory-mapped or in the memory of a device.

    Parameters
    ----------
    table : pandas.DataFrame
        volume_path, target, participant_id.
    device : torch.device, optional
        All volumes are copied to it at once; default: each one is read from its file.
    """

    def __init__(self, table: pd.DataFrame, device: torch.device | None = None):
        self.paths = table["volume_path"].tolist()
        self.targets = table["target"].tolist()
        self.participant_ids = table["participant_id"].tolist()
        self.on_device = None
        if device is not None:
            self.on_device = torch.stack([self._read(path).to(device) for path in self.paths])

    @staticmethod
    def _read(path: str) -> torch.Tensor:
        return torch.from_numpy(np.array(np.load(path, mmap_mode="r")))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        volume = self._read(self.paths[index]) if self.on_device is None else self.on_device[index]
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
        Total over all processes that train one network.
    augmentation : callable, optional
        Changes a batch of training volumes (N, 1, X, Y, Z) on the training device, e.g. an `Augmentation`.
    num_workers : int, default 0
    seed : int, default 0
        Seed of the order of training participants if several processes train one network.
    sampling : {"balanced"}, optional
        See `BalancedSampler`; default: every training volume once per epoch.
    """

    def __init__(
        self,
        parts: dict[str, pd.DataFrame],
        batch_size: int = 8,
        augmentation: Callable[..., torch.Tensor] | None = None,
        num_workers: int = 0,
        seed: int = 0,
        sampling: str | None = None,
    ):
        super().__init__()
        self.parts, self.batch_size, self.num_workers = parts, batch_size, num_workers
        self.augmentation = augmentation
        self.seed, self.sampling = seed, sampling

    def setup(self, stage: str) -> None:
        if self.trainer is not None and isinstance(self.augmentation, Augmentation):
            self.augmentation.seed += SEED_STEP * self.trainer.global_rank

    def train_dataloader(self) -> DataLoader[Any]:
        dataset = VolumeDataset(self.parts["train"], self._resident_device(self.parts["train"]))
        if self.sampling:
            rank, n_processes = (
                (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
            )
            balanced = BalancedSampler(dataset.targets, self.seed, rank, n_processes)
            size = self.batch_size // n_processes
            last = len(balanced) % size == 1 and len(balanced) > 1
            return self._loader(dataset, batch_size=size, sampler=balanced, drop_last=last)
        if self.trainer is None or self.trainer.world_size == 1:
            # a last batch of one volume has no batch statistics
            uneven = len(dataset) % self.batch_size == 1 and len(dataset) > 1
            return self._loader(dataset, batch_size=self.batch_size, shuffle=True, drop_last=uneven)
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        share: DistributedSampler[Any] = DistributedSampler(dataset, world_size, rank, seed=self.seed)
        own_size = self.batch_size // world_size
        uneven = len(share) % own_size == 1 and len(share) > 1
        return self._loader(dataset, batch_size=own_size, sampler=share, drop_last=uneven)

    def val_dataloader(self) -> DataLoader[Any]:
        """All validation participants, in each of several processes, so that none is counted twice."""
        part = self.parts["validation"]
        return self._loader(VolumeDataset(part, self._resident_device(part)), batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(VolumeDataset(self.parts["test"]), batch_size=self.batch_size)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        if self.trainer is None or not self.trainer.training:
            return batch
        changed = batch["volume"] if self.augmentation is None else self.augmentation(batch["volume"])
        return {**batch, "volume": changed}

    def _resident_device(self, part: pd.DataFrame) -> torch.device | None:
        """GPU of the training if all volumes of a part fit easily into its memory.

        A step of a small 3-D network takes a GPU less time than reading its volumes takes the host.
        """
        if self.trainer is None or self.num_workers:
            return None
        device = self.trainer.strategy.root_device
        n_bytes = sum(np.load(path, mmap_mode="r").nbytes for path in part["volume_path"])
        return device if n_bytes <= RESIDENT_SHARE * free_bytes(device) else None

    def _loader(self, dataset: VolumeDataset, **kwargs: Any) -> DataLoader[Any]:
        # persistent workers draw other random numbers, which would change the result
        return DataLoader(dataset, num_workers=self.num_workers, **kwargs)

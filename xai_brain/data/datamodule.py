"""Prepared volumes as batches: ``{"volume", "target", "participant_id"}``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler


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


class PartOfBatches(Sampler[list[int]]):
    """Of every batch the subjects of one process: every n-th, where n fit together.

    All processes take the order of the first. A last batch with fewer subjects than there are processes is
    left out.

    Parameters
    ----------
    order : Sampler of int
        That of one process.
    batch_size : int
        Of all processes together.
    part : tuple of 2 int
        Rank of this process, and how many there are.
    drop_last : bool
        Leave out a last batch that is smaller than the others.
    """

    def __init__(self, order: RandomSampler, batch_size: int, part: tuple[int, int], drop_last: bool):
        self.order, self.batch_size, self.part, self.drop_last = order, batch_size, part, drop_last

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.batch_size)
        return whole + (rest >= self.part[1] and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        rank, n_ranks = self.part
        order = [list(self.order)]
        if torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(order, src=0)
        for number in range(len(self)):
            begin = number * self.batch_size
            yield order[0][begin : begin + self.batch_size][rank::n_ranks]


class BrainDataModule(pl.LightningDataModule):
    """The three parts of one fold.

    Parameters
    ----------
    parts : dict of pandas.DataFrame
        ``train``, ``validation``, ``test`` from `split_fold`.
    batch_size : int, default 8
    augmentation : callable, optional
        Changes a batch of training volumes (N, 1, X, Y, Z) on the training device, e.g. an `Augmentation`.
        Where several processes fit together it is also given which part of the batch it has.
    num_workers : int, default 0
    """

    def __init__(
        self,
        parts: dict[str, pd.DataFrame],
        batch_size: int = 8,
        augmentation: Callable[..., torch.Tensor] | None = None,
        num_workers: int = 0,
    ):
        super().__init__()
        self.parts, self.batch_size, self.num_workers = parts, batch_size, num_workers
        self.augmentation = augmentation
        self.part = (0, 1)  # rank of this process and how many there are, while several fit together

    def train_dataloader(self) -> DataLoader:
        dataset = VolumeDataset(self.parts["train"])
        # a last batch of one would have no batch statistics
        uneven = len(dataset) % self.batch_size == 1 and len(dataset) > 1
        if self.part == (0, 1):
            return self._loader(dataset, batch_size=self.batch_size, shuffle=True, drop_last=uneven)
        parts = PartOfBatches(RandomSampler(dataset), self.batch_size, self.part, drop_last=uneven)
        return self._loader(dataset, batch_sampler=parts)

    def val_dataloader(self) -> DataLoader:
        rank, n_ranks = self.part
        dataset = VolumeDataset(self.parts["validation"].iloc[rank::n_ranks])
        return self._loader(dataset, batch_size=self.batch_size // n_ranks)

    def test_dataloader(self) -> DataLoader:
        return self._loader(VolumeDataset(self.parts["test"]), batch_size=self.batch_size)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        if self.trainer is None or not self.trainer.training:
            return batch
        if self.part == (0, 1):
            changed = batch["volume"] if self.augmentation is None else self.augmentation(batch["volume"])
            return {**batch, "volume": changed}
        volumes = batch["volume"]
        n_all = torch.tensor(len(volumes), device=volumes.device)
        torch.distributed.all_reduce(n_all)
        if self.augmentation is not None:
            volumes = self.augmentation(volumes, (*self.part, int(n_all)))
        return {**batch, "volume": volumes, "n_all": int(n_all)}

    def _loader(self, dataset: VolumeDataset, **kwargs: Any) -> DataLoader:
        # workers that stay would draw fewer random numbers than none do, and so train another network
        return DataLoader(dataset, num_workers=self.num_workers, **kwargs)

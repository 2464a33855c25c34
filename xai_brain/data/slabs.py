"""Slabs of neighbouring coronal slices as batches for 2-D networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from xai_brain.data.balanced_sampler import BalancedSampler

CORONAL = 1  # axis of prepared volumes: posterior to anterior


def brain_slabs(masks: np.ndarray, n_slices: int, min_share: float = 0.25) -> list[int]:
    """First slices of adjacent slabs without overlap that contain enough brain.

    Parameters
    ----------
    masks : bool or int ndarray of shape (X, Y, Z)
        Brain mask, or number of training participants whose brain contains the voxel.
    n_slices : int
        Number of slices of a slab.
    min_share : float, default 0.25
        Slices at both ends with less brain than this share of the largest slice are excluded.

    Returns
    -------
    list of int
        Ascending positions along Y; the slabs are centred in the remaining slices.

    Raises
    ------
    ValueError
        Fewer slices contain brain than a slab has slices.
    """
    area = masks.sum((0, 2), dtype=float)
    kept = np.flatnonzero(area >= min_share * area.max())
    first, n_kept = int(kept[0]), int(kept[-1] - kept[0] + 1)
    n_slabs = n_kept // n_slices
    if not n_slabs:
        raise ValueError(f"n_slices={n_slices}: only {n_kept} coronal slices hold enough brain")
    first += (n_kept - n_slabs * n_slices) // 2
    return [first + k * n_slices for k in range(n_slabs)]


class SlabDataset(Dataset[Any]):
    """Slabs of memory-mapped prepared volumes, in the order of the participants.

    Parameters
    ----------
    table : pandas.DataFrame
        volume_path, target, participant_id.
    starts : list of int
        First slices of the slabs.
    n_slices : int
    """

    def __init__(self, table: pd.DataFrame, starts: list[int], n_slices: int):
        self.paths, self.targets = table["volume_path"].tolist(), table["target"].tolist()
        self.participant_ids = table["participant_id"].tolist()
        self.starts, self.n_slices = starts, n_slices

    def __len__(self) -> int:
        return len(self.paths) * len(self.starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        subject, slab = divmod(index, len(self.starts))
        start = self.starts[slab]
        volume = np.load(self.paths[subject], mmap_mode="r")
        slices = np.moveaxis(volume[:, start : start + self.n_slices], CORONAL, 0)
        return {
            "volume": torch.from_numpy(np.array(slices)),  # (n_slices, X, Z)
            "target": self.targets[subject],
            "participant_id": self.participant_ids[subject],
        }


class SlabDataModule(pl.LightningDataModule):
    """The three parts of one fold, cut into slabs.

    Parameters
    ----------
    parts : dict of pandas.DataFrame
        ``train``, ``validation``, ``test`` from `split_fold`; the slabs are those that contain brain in the
        training participants.
    n_slices : int
    batch_size : int, default 64
        Number of slabs in a batch.
    sampling : {"balanced"}, optional
        See `xai_brain.data.balanced_sampler.BalancedSampler`.
    seed : int, default 0
        Of balanced sampling.
    """

    def __init__(
        self,
        parts: dict[str, pd.DataFrame],
        n_slices: int,
        batch_size: int = 64,
        sampling: str | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.sampling, self.seed = sampling, seed
        self.parts, self.n_slices, self.batch_size = parts, n_slices, batch_size
        n_subjects = np.sum([np.load(path) > 0 for path in parts["train"]["volume_mask_path"]], axis=0)
        self.starts = brain_slabs(n_subjects, n_slices)

    @property
    def n_slabs(self) -> int:
        """Number of slabs of one participant."""
        return len(self.starts)

    def train_dataloader(self) -> DataLoader[Any]:
        if self.sampling:
            targets = np.repeat(self.parts["train"]["target"].to_numpy(int), self.n_slabs)
            balanced = BalancedSampler(targets.tolist(), self.seed)
            last = len(balanced) % self.batch_size == 1 and len(balanced) > 1
            return self._loader("train", sampler=balanced, drop_last=last)
        n_images = len(self.parts["train"]) * self.n_slabs
        uneven = n_images % self.batch_size == 1 and n_images > 1  # a batch of one has no batch statistics
        return self._loader("train", shuffle=True, drop_last=uneven)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test")

    def _loader(self, part: str, **kwargs: Any) -> DataLoader[Any]:
        return DataLoader(
            SlabDataset(self.parts[part], self.starts, self.n_slices), self.batch_size, **kwargs
        )

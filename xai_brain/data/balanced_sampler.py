"""Training images in an order in which all classes are equally frequent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class BalancedSampler(Sampler[int]):
    """Equally many images of each class in every epoch, in random order.

    An epoch has about as many images as there are: of k classes, each contributes n / k, rounded up. Images
    of a large class are drawn without replacement; all images of a small class are used equally often, up to
    a difference of one.

    Parameters
    ----------
    targets : sequence of int
        Class of each image.
    seed : int, default 0
        With the number of the epoch, it determines the images and their order.
    rank, n_processes : int, default 0, 1
        The part of this process if several processes train one network.
    """

    def __init__(self, targets: Sequence[int], seed: int = 0, rank: int = 0, n_processes: int = 1):
        self.members = [np.flatnonzero(np.asarray(targets) == k) for k in np.unique(targets)]
        self.n_of_class = -(-len(targets) // len(self.members))
        self.seed, self.rank, self.n_processes = seed, rank, n_processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n_of_class * len(self.members) // self.n_processes)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        drawn = [self._draw(members, rng) for members in self.members]
        order = rng.permutation(np.concatenate(drawn))
        order = np.resize(order, len(self) * self.n_processes)  # the first ones again, for equal parts
        return iter(order[self.rank :: self.n_processes].tolist())

    def _draw(self, members: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n_times, n_rest = divmod(self.n_of_class, len(members))
        return np.concatenate([np.tile(members, n_times), rng.permutation(members)[:n_rest]])

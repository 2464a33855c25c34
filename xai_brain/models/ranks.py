"""The place of a process among several that fit one network: what Lightning and the data ask about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from xai_brain.models.batch_statistics import StatisticsOverRanks


class OfStartedProcesses(DDPStrategy):
    """Lightning starts no process, and asks for no script that it could start: notebooks have none."""

    def _configure_launcher(self) -> None:
        """There is none."""


@dataclass(frozen=True)
class Rank(ClusterEnvironment):
    """The place of this process among those that fit a network.

    Parameters
    ----------
    rank, n_ranks : int
    port : int
        Of this machine, where they meet.
    accelerator : {"cpu", "cuda"}
    """

    rank: int
    n_ranks: int
    port: int
    accelerator: str

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.n_ranks

    def set_world_size(self, size: int) -> None:
        """It is what it is."""

    def global_rank(self) -> int:
        return self.rank

    def set_global_rank(self, rank: int) -> None:
        """It is what it is."""

    def local_rank(self) -> int:
        return self.rank

    def node_rank(self) -> int:
        return 0

    def trainer_settings(self) -> dict[str, Any]:
        """Arguments of Lightning's Trainer."""
        gpu = self.accelerator == "cuda"
        # statistics of batches are the same in all processes; sending them again could hang in validation,
        # where one of them may have a batch more
        known = signature(DistributedDataParallel.__init__).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        strategy = OfStartedProcesses(process_group_backend="nccl" if gpu else "gloo", **{buffers: False})
        return {
            "accelerator": self.accelerator,
            "devices": self.n_ranks,
            "strategy": strategy,
            "plugins": [self] if gpu else [self, StatisticsOverRanks()],
            "sync_batchnorm": gpu,
            "use_distributed_sampler": False,  # the datamodule knows its part
        }

    @contextmanager
    def taken(self, datamodule: Any) -> Iterator[None]:
        """For the time of one fit: loaders give the part of this process, and it can meet the others."""
        datamodule.part = (self.rank, self.n_ranks)
        try:
            yield
        finally:
            datamodule.part = (0, 1)
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


class ChanceOf(Callback):
    """Random numbers of a process: of the first those of one that fits alone, of others their own.

    Lightning would begin the seed anew, for all of them: dropout would leave out the same in each part.
    """

    def __init__(self, rank: Rank, seed: int):
        self.rank, self.seed, self.state = rank.rank, seed, torch.get_rng_state()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.rank:
            torch.manual_seed((self.seed + 1_000_003 * self.rank) % 2**32)
        else:
            torch.set_rng_state(self.state)

"""The place of a process among several that fit one network: what Lightning and the data ask about."""

from __future__ import annotations

import os
import signal
import threading
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


class RankError(RuntimeError):
    """A process that fits with others has failed, or there cannot be so many."""


def accelerator_of(setting: str, n_processes: int, asked: str) -> str:
    """Where so many processes of this machine compute: "cpu", or "cuda" with a GPU each.

    Raises
    ------
    RankError
        There are fewer GPUs than that.
    """
    if setting == "cpu" or (setting == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if (n_gpus := torch.cuda.device_count()) < n_processes:
        raise RankError(f"{asked}: there are {n_gpus} GPUs; trainer.accelerator=cpu")
    return "cuda"


class OfStartedProcesses(DDPStrategy):
    """Lightning starts no process, and asks for no script that it could start: notebooks have none.

    After the fit the first process goes on alone, and waits for no other.
    """

    over = False

    def _configure_launcher(self) -> None:
        """There is none."""

    def teardown(self) -> None:
        super().teardown()
        self.over = True

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        if not self.over:
            super().barrier(*args, **kwargs)


@dataclass(frozen=True)
class Rank(ClusterEnvironment):
    """The place of this process among those that fit a network.

    Parameters
    ----------
    rank, n_ranks : int
    port : int
        Where they meet.
    accelerator : {"cpu", "cuda"}
    address : str, default "127.0.0.1"
        Of the machine where they meet.
    n_nodes, node : int
        Machines that have as many processes each, and the number of this one.
    meets : bool, default True
        They meet for this fit and part after it; else they have met already, and stay together.
    """

    rank: int
    n_ranks: int
    port: int
    accelerator: str
    address: str = "127.0.0.1"
    n_nodes: int = 1
    node: int = 0
    meets: bool = True

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return self.address

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
        return self.rank % (self.n_ranks // self.n_nodes)

    def node_rank(self) -> int:
        return self.node

    def trainer_settings(self) -> dict[str, Any]:
        """Arguments of Lightning's Trainer."""
        gpu = self.accelerator == "cuda"
        # statistics of batches are the same in all processes; sending them again could hang in validation,
        # where one of them may have a batch more
        known = signature(DistributedDataParallel.__init__).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        of_ddp: dict[str, Any] = {buffers: False}
        strategy = OfStartedProcesses(process_group_backend="nccl" if gpu else "gloo", **of_ddp)
        return {
            "accelerator": self.accelerator,
            "devices": self.n_ranks // self.n_nodes,
            "num_nodes": self.n_nodes,
            "strategy": strategy,
            "plugins": [self],
            "sync_batchnorm": gpu,  # on CPUs `exact_batch_statistics` are those of all
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
            if self.meets and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


class AsRank(Callback):
    """What Lightning would do in the same way in all processes.

    Random numbers: the first has those of one that fits alone, others have their own; with one seed dropout
    would leave out the same in each part. SIGTERM: each ends by itself; Lightning would ask the others, who
    wait for something else.
    """

    def __init__(self, rank: Rank, seed: int):
        self.rank, self.seed, self.state = rank.rank, seed, torch.get_rng_state()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.rank:
            torch.manual_seed((self.seed + 1_000_003 * self.rank) % 2**32)
        else:
            torch.set_rng_state(self.state)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # Lightning brings its own back at the end
            signal.signal(signal.SIGTERM, _end_at_once if self.rank else signal.default_int_handler)


def _end_at_once(*_: Any) -> None:
    os._exit(128 + signal.SIGTERM)

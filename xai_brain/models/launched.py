"""Processes that torchrun has started, on one machine or many.

The first does the command. The others know nothing of it: they wait for a fit, take their part of it, and
wait for the next, until they are told that there is none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from xai_brain.config.trust import import_trusted
from xai_brain.models.fitting import fit_epochs
from xai_brain.models.ranks import Rank, accelerator_of

PATIENCE = timedelta(days=20)  # of the others, while the first prepares volumes
_waiting: list[Any] = []  # the group in which they wait, besides that in which they fit


def is_launched() -> bool:
    """Whether this process is one of several of torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "TORCHELASTIC_RUN_ID" in os.environ


def launched_rank(accelerator: str) -> Rank:
    """The place of this process among those of torchrun, as its environment tells it.

    Parameters
    ----------
    accelerator : {"auto", "cpu", "gpu", "cuda"}

    Raises
    ------
    RankError
        This machine has fewer GPUs than processes.
    """
    told = {name: int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK")}
    n_here = told["LOCAL_WORLD_SIZE"]
    return Rank(
        told["RANK"],
        told["WORLD_SIZE"],
        int(os.environ["MASTER_PORT"]),
        accelerator_of(accelerator, n_here, asked=f"torchrun --nproc-per-node={n_here}"),
        address=os.environ["MASTER_ADDR"],
        n_nodes=told["WORLD_SIZE"] // n_here,
        node=told["GROUP_RANK"],
        meets=False,
    )


def with_others(command: Callable[[], None]) -> None:
    """Do the command in the first process, and take part in its fits in all others."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend)
    _waiting[:] = [distributed.new_group(backend="gloo", timeout=PATIENCE)]
    if distributed.get_rank() == 0:
        command()
        tell_others(None)
    else:
        while (job := _told()) is not None:
            datamodule, classifier_settings, trainer_settings, seed, work_dir = job
            import_trusted([classifier_settings["network"]["_target_"]])  # as the first process has
            rank = launched_rank(trainer_settings["accelerator"])
            fit_epochs(
                datamodule, classifier_settings, trainer_settings, seed=seed, work_dir=work_dir, rank=rank
            )
    distributed.destroy_process_group()


def tell_others(job: tuple[Any, ...] | None) -> None:
    """What is to be fitted next; None when there is nothing more."""
    distributed.broadcast_object_list([job], src=0, group=_waiting[0])


def _told() -> tuple[Any, ...] | None:
    job: list[Any] = [None]
    distributed.broadcast_object_list(job, src=0, group=_waiting[0])
    return job[0]

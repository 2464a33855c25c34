"""The processes that train one network: how they are started and connected.

torchrun or SLURM may have started them before the command begins; otherwise Lightning starts the processes of
this machine for each training (`xai_brain.models.fitting_in_processes`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.strategies import DDPStrategy

from xai_brain.config.setting import ConfigError
from xai_brain.models.trainer_setup import quiet_lightning

WAITING_TIME = timedelta(days=20)  # the other ranks wait while rank zero prepares volumes


def n_processes(settings: Mapping[str, Any]) -> int:
    """Number of processes that train one network; `settings` are the fields of `TrainerConfig`."""
    return int(settings["devices"] * settings["num_nodes"])


def launcher(settings: Mapping[str, Any]) -> type[ClusterEnvironment] | None:
    """Lightning's environment for the launcher that has started several processes for one training.

    Returns
    -------
    type of ClusterEnvironment or None
        None without a launcher. Tasks of SLURM are processes of one training if their number is
        ``trainer.devices`` times ``trainer.num_nodes``; otherwise they are independent.
    """
    if torch.distributed.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1:
        return TorchElasticEnvironment
    n_tasks = int(os.environ.get("SLURM_NTASKS", 1)) if "SLURM_PROCID" in os.environ else 1
    return SLURMEnvironment if n_tasks == n_processes(settings) > 1 else None


def cluster_environment(settings: Mapping[str, Any]) -> ClusterEnvironment:
    """Lightning's cluster environment of this process; Lightning does not requeue SLURM jobs."""
    kind = launcher(settings)
    if kind is SLURMEnvironment:
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment() if kind is None else kind()


def global_rank(settings: Mapping[str, Any]) -> int:
    """Rank of this process among those that torchrun or SLURM has started for one training, otherwise 0."""
    return cluster_environment(settings).global_rank() if launcher(settings) else 0


def accelerator_name(settings: Mapping[str, Any]) -> str:
    """The setting ``trainer.accelerator`` with "auto" and "gpu" resolved, e.g. "cpu" or "cuda"."""
    if settings["accelerator"] == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda" if settings["accelerator"] == "gpu" else str(settings["accelerator"])


def check_processes(settings: Mapping[str, Any]) -> None:
    """Refuse a number of processes that is not available.

    Raises
    ------
    ConfigError
        torchrun has started a different number of processes; several machines are requested but there is no
        launcher; or this machine has fewer GPUs than processes.
    """
    devices, nodes, started_by = settings["devices"], settings["num_nodes"], launcher(settings)
    asked = f"trainer.devices={devices} trainer.num_nodes={nodes}"
    if started_by is TorchElasticEnvironment and (n := int(os.environ["WORLD_SIZE"])) != devices * nodes:
        raise ConfigError(f"{asked}: torchrun has started {n} processes, not {devices * nodes}")
    if nodes > 1 and started_by is None:
        raise ConfigError(f"{asked}: start one process per device with torchrun or srun")
    if devices > 1 and accelerator_name(settings) == "cuda" and (n := torch.cuda.device_count()) < devices:
        raise ConfigError(f"trainer.devices={devices}: this machine has {n} GPUs; see trainer.accelerator")


@contextmanager
def joined_processes(settings: Mapping[str, Any]) -> Iterator[None]:
    """Connect the processes of torchrun or SLURM; at the end of the block rank zero releases the others.

    Without such processes nothing happens.
    """
    check_processes(settings)
    if launcher(settings) is None:
        yield
        return
    cuda, environment = accelerator_name(settings) == "cuda", cluster_environment(settings)
    strategy = DDPStrategy(
        process_group_backend="cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=WAITING_TIME
    )
    with quiet_lightning():
        Fabric(
            accelerator=accelerator_name(settings),
            devices=settings["devices"],
            num_nodes=settings["num_nodes"],
            strategy=strategy,
            plugins=[environment],
        ).launch()
    yield
    if environment.global_rank() == 0:
        send_training(None)
    torch.distributed.destroy_process_group()


def send_training(job: tuple[Any, ...] | None) -> None:
    """Rank zero announces the next training to the others; None if there is none."""
    torch.distributed.broadcast_object_list([job])


def receive_training() -> tuple[Any, ...] | None:
    """Receive the next training, in a process other than that of rank zero."""
    job: list[Any] = [None]
    torch.distributed.broadcast_object_list(job)
    received: tuple[Any, ...] | None = job[0]
    return received

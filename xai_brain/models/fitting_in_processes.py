"""Train one network with several processes, by Lightning's strategies and cluster environments.

If torchrun or SLURM has started the processes, the process of rank zero executes the command, and the others
wait for its trainings and take part in them. Otherwise Lightning starts processes on this machine for each
training. In both cases only rank zero writes files.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy as FabricDDPStrategy
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from xai_brain.config.trust import import_trusted
from xai_brain.io.text_tables import read_text
from xai_brain.models.fitting import CHECKPOINT, fit_network, ignore_epoch
from xai_brain.models.module import BrainClassifier
from xai_brain.models.process_group import (
    accelerator_name,
    cluster_environment,
    global_rank,
    joined_processes,
    launcher,
    n_processes,
    receive_training,
    send_training,
)
from xai_brain.models.trainer_setup import quiet_lightning
from xai_brain.models.training_callbacks import TrainingError
from xai_brain.parallel.progress import format_error

UNUSED = "_find_unused_parameters_true"  # suffix of Lightning's strategy names
SEED_STEP = 1_000_003  # difference between the seeds of two ranks
HISTORY, ERROR = "history.json", "error.txt"  # in the working directory of a training


def take_part(settings: Mapping[str, Any]) -> None:
    """Take part in all trainings of rank zero, in another process of torchrun or SLURM.

    Raises
    ------
    TrainingError
        This process has failed.
    SystemExit
        Rank zero, or a training in all processes, has failed; rank zero reports it.
    """
    with joined_processes(settings):
        try:
            while (job := _next_training()) is not None:
                _fit_in_process(None, *job)
        except TrainingError:
            raise SystemExit(1) from None
        except Exception as error:
            raise TrainingError(f"{_name(global_rank(settings), settings)}: {format_error(error)}") from error


def _next_training() -> tuple[Any, ...] | None:
    try:
        return receive_training()
    except RuntimeError:  # rank zero has closed the connection
        raise SystemExit(1) from None


def fit_in_processes(
    datamodule: pl.LightningDataModule,
    classifier_settings: dict[str, Any],
    trainer_settings: dict[str, Any],
    *,
    seed: int,
    work_dir: Path,
    report_epoch: Callable[[int, dict[str, float]], None] = ignore_epoch,
) -> tuple[BrainClassifier, Path, pd.DataFrame]:
    """As `fit_fold` with several processes, each of which processes an equal part of every batch.

    The participants of an epoch are divided by torch's `DistributedSampler`, which takes up to
    ``n_processes - 1`` of them twice so that all parts are equal. Every process validates on all validation
    participants. Batch normalisation uses the part of each process on CPU and the whole batch on CUDA
    (Lightning's ``sync_batchnorm``); the running statistics are those of rank zero.

    Parameters
    ----------
    report_epoch : callable(epoch, metrics), optional
        Must be picklable. For the other parameters see `fit_fold`.

    Raises
    ------
    TrainingError
        One of the processes has failed, or a condition of `fit_fold` holds.
    """
    job = (datamodule, classifier_settings, trainer_settings, seed, work_dir)
    if launcher(trainer_settings):
        send_training(job)
        try:
            _fit_in_process(None, *job, report_epoch)
        except RuntimeError as error:  # of the connection to the process that has failed
            raise TrainingError(f"another process has failed ({format_error(error)})") from error
    else:
        _launch(job, trainer_settings, work_dir, report_epoch)
    rows = json.loads(read_text(work_dir / HISTORY))
    (work_dir / HISTORY).unlink()
    classifier = BrainClassifier.load_from_checkpoint(
        work_dir / CHECKPOINT, map_location="cpu", weights_only=True
    )
    history = pd.DataFrame(rows, columns=["epoch", "metric", "value"])
    return classifier.eval(), work_dir / CHECKPOINT, history


def _launch(
    job: tuple[Any, ...],
    settings: dict[str, Any],
    work_dir: Path,
    report_epoch: Callable[[int, dict[str, float]], None],
) -> None:
    """Let Lightning start processes on this machine and wait until they have finished the training."""
    fit: Callable[..., None] = _fit_in_process
    fabric = Fabric(
        accelerator=accelerator_name(settings),
        devices=settings["devices"],
        strategy=QuietDDP(start_method=start_method(settings["strategy"])),
        plugins=[LightningEnvironment()],
    )
    try:
        with _started_processes():
            fabric.launch(fit, *job, report_epoch)
    except ProcessExitedException as error:
        name, how = _name(error.error_index, settings), str(error).strip().splitlines()[0]
        raise TrainingError(f"{name} has ended: {how}") from error
    except ProcessRaisedException as error:
        recorded = work_dir / ERROR
        text = read_text(recorded) if recorded.exists() else str(error).strip().splitlines()[-1]
        raise TrainingError(text) from error


@contextmanager
def _started_processes() -> Iterator[None]:
    """End all processes that were started in the block and restore the environment variables."""
    before = {child.pid for child in multiprocessing.active_children()}
    values = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")}
    torch_log = logging.getLogger("torch.multiprocessing.spawn")
    level = torch_log.level
    torch_log.setLevel(logging.ERROR)  # the error itself says more than which processes are terminated
    try:
        yield
    finally:
        torch_log.setLevel(level)
        for child in multiprocessing.active_children():
            if child.pid not in before:  # after an interrupt
                child.kill()
        for name, value in values.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def start_method(strategy: str) -> Literal["spawn", "fork"]:
    """Start method of processes for the setting ``trainer.strategy``.

    Lightning's "ddp" would start the whole command again in every process. Because only the training is
    divided here, "auto" and "ddp" are replaced by "ddp_spawn", in notebooks by "ddp_notebook" (fork).
    """
    kind = strategy.removesuffix(UNUSED)
    if kind in ("auto", "ddp"):
        kind = "ddp_notebook" if hasattr(sys, "ps1") else "ddp_spawn"
    return "spawn" if kind == "ddp_spawn" else "fork"


class QuietDDP(FabricDDPStrategy):
    """Starts and connects processes without informing the user about each connection."""

    def setup_environment(self) -> None:
        with quiet_lightning():
            super().setup_environment()


def _fit_in_process(
    fabric: Fabric | None,
    datamodule: pl.LightningDataModule,
    classifier_settings: dict[str, Any],
    settings: dict[str, Any],
    seed: int,
    work_dir: Path,
    report_epoch: Callable[[int, dict[str, float]], None] = ignore_epoch,
) -> None:
    """Train in one of the connected processes of `fit_in_processes`."""
    if fabric is not None:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    rank, accelerator = torch.distributed.get_rank(), accelerator_name(settings)
    made = (classifier_settings["network"], classifier_settings.get("task") or {})
    import_trusted([one["_target_"] for one in made if "_target_" in one])  # trusted by the user in rank zero
    unused: dict[str, Any] = {"find_unused_parameters": True} if settings["strategy"].endswith(UNUSED) else {}
    arguments = {
        "accelerator": accelerator,
        "devices": settings["devices"],
        "num_nodes": settings["num_nodes"],
        "strategy": DDPInConnectedProcesses(**unused),
        "plugins": [cluster_environment(settings)],
        "sync_batchnorm": accelerator == "cuda",
        "use_distributed_sampler": False,  # the datamodule has one for training participants
        "callbacks": [RankBehaviour(rank, seed, ends_at_once=rank > 0 or fabric is not None)],
    }
    try:
        _, _, history = fit_network(
            datamodule,
            classifier_settings,
            settings,
            seed=seed,
            work_dir=work_dir,
            report_epoch=report_epoch,
            arguments=arguments,
        )
    except Exception as error:
        if fabric is not None:
            with suppress(FileExistsError), open(work_dir / ERROR, "x") as file:  # the first is the cause
                name = "" if isinstance(error, TrainingError) else f"{_name(rank, settings)}: "
                file.write(f"{name}{format_error(error)}")
        raise
    if rank == 0:
        (work_dir / HISTORY).write_text(json.dumps(history.to_numpy().tolist()))


def _end_with_parent() -> None:
    """End this process when the one that started it was killed, also if that happened before it was ready."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _name(rank: int, settings: Mapping[str, Any]) -> str:
    return f"process {rank + 1} of {n_processes(settings)}"


class DDPInConnectedProcesses(DDPStrategy):
    """Lightning's DDP for processes that are already connected; it starts no processes."""

    def _configure_launcher(self) -> None:
        """Do not create a launcher."""


class RankBehaviour(Callback):
    """Random numbers of one of several processes, and its reaction to SIGTERM.

    With the same seed in all processes, dropout would remove the same units in each part of a batch. On
    SIGTERM Lightning would communicate with the other processes, which may be waiting for another message.
    Instead, the process ends; rank zero of torchrun or SLURM ends as after Ctrl-C.
    """

    def __init__(self, rank: int, seed: int, ends_at_once: bool):
        self.rank, self.seed, self.ends_at_once = rank, seed, ends_at_once

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.rank:
            torch.manual_seed((self.seed + SEED_STEP * self.rank) % 2**32)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():  # Lightning restores handlers at the end
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self.ends_at_once else signal.default_int_handler)

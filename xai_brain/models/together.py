"""One network fitted by several processes at once, a part of every batch each (Lightning's DDP).

The first process is the one that the user started. It starts the others for the time of one fit, so that
this works in the same way from the command line, in a sweep and in a notebook, and so that they know nothing
of the run: they read volumes, and write nothing.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pytorch_lightning as pl
import torch

from xai_brain.config.trust import import_trusted
from xai_brain.models.fitting import fit_epochs, fit_fold
from xai_brain.models.launched import is_launched, launched_rank, tell_others
from xai_brain.models.module import BrainClassifier
from xai_brain.models.ranks import Rank, RankError, accelerator_of

READY = b"ready\n"
SECONDS_TO_END = 60.0  # for the others, when the first has ended


def fit_together(
    datamodule: Any,
    classifier_settings: dict[str, Any],
    trainer_settings: dict[str, Any],
    *,
    devices: int,
    seed: int,
    work_dir: Path,
    tell: Any = lambda epoch, metrics: None,
) -> tuple[BrainClassifier, pl.Trainer, pd.DataFrame]:
    """`fit_fold` by several processes of this machine, a GPU or a share of the CPU's cores each.

    Every step sees the subjects that it would see in one process, in which batch statistics and random
    changes of images are the same too. What remains are rounding errors, and dropout, which is drawn anew;
    and a last batch with fewer subjects than there are processes is left out.

    Parameters
    ----------
    datamodule : BrainDataModule
    devices : int
        Processes; they divide ``datamodule.batch_size``. Where torchrun has started some it is those. For the
        other parameters see `fit_fold`.

    Raises
    ------
    RankError
        There are fewer GPUs or validation subjects than processes, or one of the processes has failed.
    """
    launched = launched_rank(trainer_settings["accelerator"]) if is_launched() else None
    n_ranks = devices if launched is None else launched.n_ranks
    asked = f"trainer.devices={devices}" if launched is None else f"{n_ranks} processes of torchrun"
    n_validation = len(datamodule.val_dataloader().dataset)
    if n_validation < n_ranks:
        raise RankError(f"{asked}: there are {n_validation} validation subjects only")
    if datamodule.batch_size % n_ranks:
        raise RankError(f"{asked}: trainer.batch_size={datamodule.batch_size} cannot be divided by it")
    arguments = (datamodule, classifier_settings, trainer_settings)
    fit = partial(fit_fold, *arguments, seed=seed, work_dir=work_dir, tell=tell)
    if launched is not None:
        tell_others((*arguments, seed, work_dir))
        return fit(rank=launched)
    accelerator = accelerator_of(trainer_settings["accelerator"], devices, asked)
    threads = max(1, torch.get_num_threads() // devices) if accelerator == "cpu" else torch.get_num_threads()
    rank = Rank(0, devices, _free_port(), accelerator)
    with _environment(threads), _others(rank, (*arguments, seed, work_dir, threads)) as others:
        try:
            return fit(rank=rank)
        except RuntimeError as error:
            if told := _why_ended(others):  # what the first noticed is only that the other is gone
                raise RankError(told) from error
            raise


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Lightning and torch put where they meet, and how many threads there are, into the environment."""
    names = ("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    before, threads_before = {name: os.environ.get(name) for name in names}, torch.get_num_threads()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@dataclass
class _Other:
    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    rank: int


@contextmanager
def _others(first: Rank, job: tuple[Any, ...]) -> Iterator[list[_Other]]:
    """The other processes, ready to fit; they end when they have, when we end, or at the end of the block."""
    others: list[_Other] = []
    try:
        for number in range(1, first.n_ranks):
            errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
            command = [sys.executable, "-c", "from xai_brain.models.together import main; main()"]
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                command,
                stdin=pipe,
                stdout=pipe,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            )
            others.append(_Other(process, errors, number))
        for other in others:
            own = Rank(other.rank, first.n_ranks, first.port, first.accelerator)
            assert other.process.stdin is not None
            try:
                pickle.dump((own, *job), other.process.stdin)
                other.process.stdin.flush()
            except BrokenPipeError:
                other.process.wait()
                raise RankError(_why_ended(others)) from None
        for other in others:
            assert other.process.stdout is not None
            if other.process.stdout.readline() != READY:
                other.process.wait()
                raise RankError(_why_ended(others))
        yield others
        for other in others:
            with suppress(subprocess.TimeoutExpired):  # the first has all that comes of it
                other.process.wait(SECONDS_TO_END)
    finally:
        for other in others:
            other.process.kill()
            for file in (other.process.stdin, other.process.stdout, other.errors):
                if file is not None:
                    with suppress(BrokenPipeError):  # what it did not read
                        file.close()
            other.process.wait()


def _why_ended(others: list[_Other]) -> str:
    """One line about the first of them that has failed; none when none has."""
    for other in others:
        try:
            code = other.process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        if code:
            other.errors.seek(0)
            lines = other.errors.read().decode(errors="replace").strip().splitlines() or [f"code {code}"]
            return f"process {other.rank + 1} of trainer.devices={len(others) + 1} has ended: {lines[-1]}"
    return ""


def main() -> None:
    """What another process does: its part of one fit."""
    to_first = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the first process alone speaks

    rank, datamodule, classifier_settings, trainer_settings, seed, work_dir, threads = pickle.load(
        sys.stdin.buffer
    )
    import_trusted([classifier_settings["network"]["_target_"]])  # as the first process has
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_first, daemon=True).start()
    os.write(to_first, READY)
    fit_epochs(datamodule, classifier_settings, trainer_settings, seed=seed, work_dir=work_dir, rank=rank)


def _end_with_first() -> None:
    os.read(0, 1)  # nothing comes; it returns when the first process is gone
    os._exit(1)

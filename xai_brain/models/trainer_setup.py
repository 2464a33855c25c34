"""Arguments of Lightning's Trainer, and its changes to global state of the process."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import signature
from typing import Any

import pytorch_lightning as pl
import torch

from xai_brain.config.setting import ConfigError
from xai_brain.config.training import OWN_TRAINER_ARGUMENTS


def check_trainer_arguments(extra: Mapping[str, Any]) -> None:
    """Refuse names in ``trainer.extra`` that Lightning's Trainer does not have.

    Raises
    ------
    ConfigError
    """
    known = sorted(set(signature(pl.Trainer.__init__).parameters) - {"self", *OWN_TRAINER_ARGUMENTS})
    for name in extra:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise ConfigError(f"trainer.extra.{name}: Lightning's Trainer has no such argument; {hint}")


@contextmanager
def determinism_kept() -> Iterator[None]:
    """Restore the global switches of ``deterministic`` after the block.

    In deterministic mode torch also fills all new tensors, which takes 10 % of a training step or more and
    does not change the results here; this is switched off.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


class quiet_lightning(warnings.catch_warnings):
    """Suppress Lightning's advice on hardware and workers, which the settings already determine."""

    def __enter__(self) -> Any:
        for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        entered = super().__enter__()
        for advice in (
            ".*does not have many workers.*",
            ".*exists and is not empty.*",
            ".*Checkpoint directory.*",
            ".*srun.*",  # SLURM is installed and this process is not a SLURM job
        ):
            warnings.filterwarnings("ignore", advice)
        warnings.filterwarnings("ignore", ".*isinstance.treespec.*")
        return entered

"""What reference networks of thresholds are, and what all with randomised parameters have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.runs.directory import RunDirectory
from xai_brain.runs.threshold_statement import RANDOMIZED


@dataclass(frozen=True, eq=False)
class NullMap:
    """A map of a reference network.

    Parameters
    ----------
    label : str
        Method.
    row : dict
        participant_id, session_id and, for networks of folds, fold.
    values : ndarray of shape (X, Y, Z)
    brain : ndarray of shape (X, Y, Z), bool
    voxel_mm3 : float
        Volume of a voxel.
    """

    label: str
    row: dict[str, Any]
    values: np.ndarray
    brain: np.ndarray
    voxel_mm3: float


class NullNetworks(Protocol):
    """Networks that a threshold is compared with."""

    reference: str  # what they are, in tables and texts
    unit: str  # what they are counted in

    def check(self) -> None:
        """Raise an error if such networks cannot be made."""

    def cost(self, n: int) -> str:
        """What n of them will take."""

    def maps(self, labels: Sequence[str], number: int) -> Iterator[NullMap]:
        """Maps of random participants by the network of this number, from 1."""


@dataclass
class UnknownNetworks:
    """In place of networks that are not stored with their maps: only what is complete can be used."""

    run: RunDirectory
    reference = RANDOMIZED
    unit = "randomised networks"

    def check(self) -> None:
        raise ConfigError(
            f"{self.run.path}: the network is not stored with its maps; call threshold() of the maps that "
            "xai_brain.explain returns, in the same session"
        )

    def cost(self, n: int) -> str:
        return ""

    def maps(self, labels: Sequence[str], number: int) -> Iterator[NullMap]:
        return iter(())


def refuse_blocks(config: Config) -> None:
    """Raise an error if labels were to be permuted within blocks."""
    if blocks := config.evaluation.threshold.blocks:
        raise ConfigError(
            f"evaluation.threshold.blocks={blocks}: the network cannot be trained again, so that no labels "
            "are permuted; leave the setting out"
        )


def cost_of_randomized(n: int, n_images: int, seconds: float) -> str:
    """What the maps of n randomised networks will take, by the duration of the maps of an image."""
    shown = f", about {n * n_images * seconds / 60:.1f} minutes" if np.isfinite(seconds) else ""
    return (
        f"{n} networks with randomised parameters, and the maps of {n_images} images by each{shown}; "
        "finished networks are kept. The network cannot be trained on permuted labels: the threshold is a "
        "weaker statement"
    )

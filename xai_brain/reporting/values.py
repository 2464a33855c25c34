"""Values that sections of the report show."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """An estimate with its 95 % interval (None if unknown) and chance level."""

    value: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None


@dataclass(frozen=True)
class ShownSubject:
    """A participant that is shown in the report, with the files of the maps."""

    participant_id: str
    session_id: str | None
    name: str  # identifier or pseudonym, for people
    session: str  # as shown; empty without sessions
    label: str | None
    predicted: str | None
    probability: float | None  # of the predicted class
    fold: int | None  # from 1
    maps: dict[str, Path]
    image: Path
    truth: Path
    sidecars: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def correct(self) -> bool | None:
        return None if self.predicted is None or self.label is None else self.label == self.predicted


def number(value: Any) -> float | None:
    """A finite float, otherwise None."""
    return float(value) if isinstance(value, int | float | np.number) and np.isfinite(value) else None

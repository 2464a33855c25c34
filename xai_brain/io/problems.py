"""Unusable inputs: stop at the first one, or exclude them and continue."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd


class DataError(ValueError):
    """The cohort cannot be used; the message contains the file, the reason and what to do."""


def named(ids: list[str], at_most: int = 6) -> str:
    """The first ids of a list and the number of further ids, for messages."""
    more = len(ids) - at_most
    return ", ".join(map(str, ids[:at_most])) + (f" and {more} more" if more > 0 else "")


@dataclass
class Problems:
    """Collects unusable inputs.

    Parameters
    ----------
    on_error : {"raise", "skip"}, default "raise"
        ``raise`` stops at the first; ``skip`` keeps a list for ``quarantine.tsv``.
    only : set of str, optional
        Participants that are used; inputs of all others are no problems.
    """

    on_error: str = "raise"
    rows: list[dict[str, str]] = field(default_factory=list)
    only: set[str] | None = None

    def add(self, participant_id: str, path: str | Path, reason: str) -> None:
        if self.on_error == "raise" and self._is_used(participant_id):
            raise DataError(f"{path}: {participant_id}: {reason} (data.on_error=skip excludes such inputs)")
        self.leave_out(participant_id, path, reason)

    def leave_out(self, participant_id: str, path: str | Path, reason: str) -> None:
        """List an input that is left out, whatever `on_error` is."""
        if self._is_used(participant_id):
            self.rows.append({"participant_id": participant_id, "path": str(path), "reason": reason})

    def _is_used(self, participant_id: str) -> bool:
        return self.only is None or participant_id in self.only

    def has(self, participant_id: str) -> bool:
        return any(row["participant_id"] == participant_id for row in self.rows)

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=["participant_id", "path", "reason"])

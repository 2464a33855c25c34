"""Problems that `xai-brain verify` finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xai_brain.io.atomic import file_hash
from xai_brain.runs.directory import read_json


@dataclass
class Findings:
    """Number of files that were checked, and problems that were found."""

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)

    def count(self, kind: str, n: int = 1) -> None:
        """Add files to those that were checked."""
        self.counts[kind] = self.counts.get(kind, 0) + n

    def add(self, other: Findings) -> None:
        """Add what was found in another run."""
        for kind, n in other.counts.items():
            self.count(kind, n)
        for kind, n in other.unknown.items():
            self.unknown[kind] = self.unknown.get(kind, 0) + n
        self.problems += other.problems

    def read(self, path: Path, repair: str) -> dict[str, Any]:
        """Read a JSON file; empty if it does not exist, or is damaged, which is added to the problems."""
        try:
            found = read_json(path) if path.exists() else {}
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        self.problems.append(f"{path}: is damaged; {repair}")
        return {}

    def compare(self, kind: str, path: Path, expected: str | None, repair: str) -> None:
        """Check one file; `expected` is its hash, None if an older version recorded none."""
        self.count(kind)
        if not path.is_file():
            self.problems.append(f"{path}: is missing; {repair}")
        elif expected is None:
            self.unknown[kind] = self.unknown.get(kind, 0) + 1
        elif file_hash(path) != expected:
            self.problems.append(f"{path}: is altered; {repair}")

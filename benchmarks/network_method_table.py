"""Which method explains which network correctly: python benchmarks/network_method_table.py [--small]

Every cell compares a map with an independent calculation in double precision, or quotes the refusal. The
command fails if a cell is wrong, or if a method that has to explain every network refuses one of them.
`--write` writes the table to docs/reference/networks_and_methods.md; `--small` takes small networks.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from table_checks import CHECKS, Case, Check
from table_networks import Kind, convolutional
from table_transformers import transformers

from xai_brain.attribution.model_state import AttributionError

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "networks_and_methods.md"
SHAPES = {True: (12, 14, 16), False: (32, 34, 36)}


@dataclass(frozen=True)
class Cell:
    """What came of one method on one network: an error, or why it was refused."""

    check: Check
    kind: Kind
    error: float = float("nan")
    reason: str = ""

    @property
    def is_right(self) -> bool:
        if self.reason:
            return self.check.required != "all" and not (self.check.required and self.kind.is_usual)
        return self.error <= self.check.tolerance

    @property
    def text(self) -> str:
        if self.reason:
            return f"refused{'' if self.is_right else ' (WRONG)'}"
        return f"{self.error:.0e}" + ("" if self.is_right else " (WRONG)")


def kinds(shape: tuple[int, int, int], small: bool) -> list[Kind]:
    return [*convolutional(shape, small), *transformers(shape, small)]


def run(kind: Kind, shape: tuple[int, int, int], names: Collection[str] = ()) -> list[Cell]:
    """All methods on one network, or those with the given names."""
    case, cells = Case(kind, shape), []
    for check in (check for check in CHECKS if not names or check.name in names):
        try:
            cells.append(Cell(check, kind, check.error(case)))
        except AttributionError as error:
            cells.append(Cell(check, kind, reason=str(error)))
    return cells


def markdown(rows: list[list[Cell]], small: bool) -> str:
    """The table, the reasons of refusals and what every method was compared with."""
    shape = " x ".join(map(str, SHAPES[small]))
    for_all, for_usual = (
        [cell.check.name for cell in rows[0] if cell.check.required == which] for which in ("all", "usual")
    )
    lines = [
        "# Networks and methods",
        "",
        f"Errors of {len(rows[0])} methods on {len(rows)} networks with random weights. The table is made by",
        "`python benchmarks/network_method_table.py --write`, which compares every map with an independent",
        f"calculation in double precision (volumes of {shape} voxels, for SwinUNETR 32 x 64 x 32). A number",
        "is the largest relative error of two volumes, for SwinUNETR of one; *refused* means that the method",
        "stops with one line that names the reason.",
        f"{', '.join(for_all[:-1])} and {for_all[-1]} explain every network;",
        f"{', '.join(for_usual[:-1])} and {for_usual[-1]}",
        "every network with one channel, two classes and modules that can be read.",
        "",
        "| network | " + " | ".join(cell.check.name for cell in rows[0]) + " |",
        "|---|" + "---|" * len(rows[0]),
    ]
    lines += [f"| {row[0].kind.name} | " + " | ".join(cell.text for cell in row) + " |" for row in rows]
    lines += ["", "## Refusals", "", "| network | methods | reason |", "|---|---|---|"]
    for row in rows:
        reasons: dict[str, list[str]] = {}
        for cell in row:
            if cell.reason:
                reason = re.sub(r"; methods for any network: .*", "", cell.reason)
                reason = re.sub(r"^.* has no rule for", "no rule for", reason)
                reason = re.sub(r"^(attention rollout|attention relevance|Grad-CAM on tokens):? ", "", reason)
                reason = re.sub(
                    r"[^ ]+ takes volumes with one channel", "takes volumes with one channel", reason
                )
                reasons.setdefault(reason, []).append(cell.check.name)
        for reason, names in reasons.items():
            lines.append(f"| {row[0].kind.name} | {', '.join(names)} | {reason} |")
    lines += [
        "",
        "## What the maps are compared with",
        "",
        "| method | tolerance | compared with |",
        "|---|---|---|",
    ]
    lines += [f"| {check.name} | {check.tolerance:g} | {check.standard} |" for check in CHECKS]
    lines += [
        "",
        "Methods that decompose the output check their sum for every volume, with a tolerance of 5 %:",
        "DeepLift and IntegratedGradients the difference of the output from the baseline, LRP the output",
        "minus the relevance of biases. A right sum is necessary, not sufficient, for a correct map.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--write", action="store_true")
    settings = parser.parse_args()
    shape, rows = SHAPES[settings.small], []
    for kind in kinds(shape, settings.small):
        rows.append(run(kind, shape))
        print(kind.name, *(f"{cell.check.name}: {cell.text}" for cell in rows[-1]), sep="\n  ", flush=True)
    text = markdown(rows, settings.small)
    if settings.write:
        DOCS.parent.mkdir(exist_ok=True)
        DOCS.write_text(text)
    wrong = [cell for row in rows for cell in row if not cell.is_right]
    for cell in wrong:
        print(f"wrong: {cell.kind.name}, {cell.check.name}: {cell.text} {cell.reason}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

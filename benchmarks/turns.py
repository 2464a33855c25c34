"""The same work done in several ways, in turns, each way in a process of its own.

Processes of their own, because a way may change the whole process (how freed memory is kept, hooks, threads);
in turns, because then what else the machine does hits all ways alike.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

MARK = "told: "  # lines without it are for people


class Side:
    """One way, in a process that does the work once for every line that it is sent.

    Parameters
    ----------
    arguments : list of str
        Of this interpreter: a script that calls `serve`, and its options.
    """

    def __init__(self, arguments: list[str]):
        command = [sys.executable, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.answers = self.process.stdin, self.process.stdout

    def turn(self) -> dict[str, Any]:
        """Do the work once; what the process tells of it."""
        self.requests.write("go\n")
        self.requests.flush()
        for line in self.answers:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise SystemExit(f"{' '.join(map(str, self.process.args))}: ended before its work was done")  # type: ignore[arg-type]

    def close(self) -> None:
        self.requests.close()
        self.process.wait()


def wait_for_turn() -> bool:
    """In the process of a side: until the next turn; False when there is none."""
    return bool(sys.stdin.readline())


def tell(**figures: Any) -> None:
    """In the process of a side: the end of a turn."""
    print(MARK + json.dumps(figures), flush=True)


def serve(work: Callable[[], dict[str, Any]]) -> None:
    """In the process of a side: work at every turn."""
    while wait_for_turn():
        tell(**work())


def in_turns(
    ways: dict[str, Callable[[], dict[str, Any]]], n: int, warm_up: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """What every way tells of n turns; the order is reversed at every other one.

    Parameters
    ----------
    ways : dict of callables
        Each tells at least ``seconds``.
    n : int
    warm_up : bool, default True
        Whether one more turn comes first that does not count.
    """
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for number in range(n + warm_up):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            figures = ways[name]()
            if number >= warm_up:
                told[name].append(figures)
                print(f"turn {number + 1 - warm_up}/{n}, {name}: {figures['seconds']:.2f} s", flush=True)
    return told


def seconds_of(told: dict[str, list[dict[str, Any]]]) -> dict[str, list[float]]:
    return {name: [figures["seconds"] for figures in turns] for name, turns in told.items()}


def show(title: str, values: dict[str, list[float]], unit: str = "s") -> None:
    """A table of medians and ranges."""
    print(f"\n{title}, median of {len(next(iter(values.values())))} (lowest to highest), {unit}")
    width = max(map(len, values))
    for name, each in values.items():
        print(f"  {name:<{width}}  {statistics.median(each):9.3f}  ({min(each):.3f} to {max(each):.3f})")


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the ratios of the turns."""
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)

"""Time several ways of the same work, one after another in every turn, each in its own process.

Each way has its own process because it may change settings of the whole process (allocator, hooks, threads).
The ways alternate so that other load on the machine affects all of them equally.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

PREFIX = "figures: "  # of the lines that `Side` reads; other lines are ignored


class Side:
    """One way, in a process that does the work once for every line that it receives.

    Parameters
    ----------
    arguments : list of str
        Arguments of this interpreter: a script that calls `serve`, and its options.
    """

    def __init__(self, arguments: list[str]):
        command = [sys.executable, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.answers = self.process.stdin, self.process.stdout

    def turn(self) -> dict[str, Any]:
        """Do the work once and return the figures that the process sends."""
        self.requests.write("go\n")
        self.requests.flush()
        for line in self.answers:
            if line.startswith(PREFIX):
                return json.loads(line.removeprefix(PREFIX))
        raise SystemExit(f"{' '.join(map(str, self.process.args))}: ended before its work was done")  # type: ignore[arg-type]

    def close(self) -> None:
        self.requests.close()
        self.process.wait()


def wait_for_turn() -> bool:
    """Wait, in the process of a side, until the next turn; False if there is none."""
    return bool(sys.stdin.readline())


def send_figures(**figures: Any) -> None:
    """End a turn, in the process of a side."""
    print(PREFIX + json.dumps(figures), flush=True)


def serve(work: Callable[[], dict[str, Any]]) -> None:
    """Do the work at every turn, in the process of a side."""
    while wait_for_turn():
        send_figures(**work())


def in_turns(
    ways: dict[str, Callable[[], dict[str, Any]]], n: int, warm_up: bool = True
) -> dict[str, list[dict[str, Any]]]:
    """Figures of every way in n turns; the order is reversed in every second turn.

    Parameters
    ----------
    ways : dict of callables
        Each returns at least ``seconds``.
    n : int
    warm_up : bool, default True
        Whether an additional first turn is discarded.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for number in range(n + warm_up):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            figures = ways[name]()
            if number >= warm_up:
                results[name].append(figures)
                print(f"turn {number + 1 - warm_up}/{n}, {name}: {figures['seconds']:.2f} s", flush=True)
    return results


def seconds_of(results: dict[str, list[dict[str, Any]]]) -> dict[str, list[float]]:
    return {name: [figures["seconds"] for figures in turns] for name, turns in results.items()}


def show(title: str, values: dict[str, list[float]], unit: str = "s") -> None:
    """Print a table of medians and ranges."""
    print(f"\n{title}, median of {len(next(iter(values.values())))} (lowest to highest), {unit}")
    width = max(map(len, values))
    for name, each in values.items():
        print(f"  {name:<{width}}  {statistics.median(each):9.3f}  ({min(each):.3f} to {max(each):.3f})")


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the ratios of the turns."""
    return round(statistics.median(a / b for a, b in zip(above, below, strict=True)), 3)

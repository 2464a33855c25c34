"""Progress on long work: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")
PLAIN_EVERY_SECONDS = 15


def log(text: str) -> None:
    """A line for the user."""
    print(text, flush=True)


def format_error(error: Exception) -> str:
    """What an error says to the user."""
    first = str(error).strip().splitlines()
    text = first[0] if first else ""
    if isinstance(error, OSError) and text.startswith("[Errno") and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    known = type(error).__module__.startswith("xai_brain") or isinstance(error, OSError)
    return text if known and text else f"{type(error).__name__}: {text} (XAI_BRAIN_DEBUG=1 shows where)"


class RateColumn(ProgressColumn):
    """Items per second, such as subjects/s."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def track(items: Iterable[T], description: str) -> Iterator[T]:
    """Iterate with progress.

    Parameters
    ----------
    items : sized iterable
    description : str
        What is done, e.g. ``"explain fold 1, GradCAM"``.
    """
    items = items if isinstance(items, Sized) else list(items)
    total = len(items)
    if not sys.stdout.isatty():
        yield from _plain(items, description, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn())
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(file=sys.stdout), transient=True
    ) as progress:
        yield from progress.track(items, total=total, description=description)


def _plain(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    start = logged = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - logged > PLAIN_EVERY_SECONDS:
            logged = time.monotonic()
            seconds = logged - start
            rate = (
                f"{done / seconds:.1f}/s, {seconds / done * (total - done):.0f} s left" if done else "begun"
            )
            log(f"{description}: {done}/{total}, {rate}")
        yield item
    log(f"{description}: {total}/{total}, {time.monotonic() - start:.1f} s")


class EpochLines:
    """One line at the first, every fifth and the last epoch."""

    def __init__(self, what: str, n_epochs: int):
        self.what, self.n_epochs = what, n_epochs

    def __call__(self, epoch: int, metrics: dict[str, float]) -> None:
        if epoch % 5 == 0 or epoch in (1, self.n_epochs):
            shown = [
                f"{key} {metrics[key]:.3f}"
                for key in ("train/loss", "val/loss", "val/auroc")
                if key in metrics
            ]
            log(f"{self.what}: epoch {epoch}/{self.n_epochs}, {', '.join(shown)}")

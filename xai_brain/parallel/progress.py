"""Messages and progress on long work: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from xai_brain.parallel.verbosity import LOGGER

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

T = TypeVar("T")
ShowProgress = Callable[[Any], Iterable[Any]]  # wraps what is iterated over, as `track` does
PLAIN_EVERY_SECONDS = 15
_logged: set[str] = set()  # lines of `log_once`
BRIEF_SECONDS = 1  # work that usually takes less is not reported


def log(message: RenderableType, level: int = logging.INFO) -> None:
    """Report to the user: a line of text, or a table of rich."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, "%s", message if isinstance(message, str) else _rendered(message))


def log_once(message: str) -> None:
    """Report a line of text, unless this process has reported the same line before."""
    if message not in _logged:
        _logged.add(message)
        log(message)


def log_warning(text: str) -> None:
    """Report a possible problem; it is shown with every verbosity."""
    LOGGER.warning("warning: %s", text)


def log_error(text: str) -> None:
    """Report an error on stderr."""
    LOGGER.error("%s", text)


def log_debug(text: str) -> None:
    """Report a detail, which is shown with the verbosity "verbose"."""
    LOGGER.debug("%s", text)


@contextmanager
def log_seconds(step: str) -> Iterator[None]:
    """Report the duration of a block with the verbosity "verbose"."""
    start = time.monotonic()
    yield
    log_debug(f"{step}: {time.monotonic() - start:.2f} s")


def _rendered(table: RenderableType) -> str:
    from rich.console import Console

    console = Console(file=sys.stdout)
    with console.capture() as captured:
        console.print(table)
    return captured.get().removesuffix("\n")


def format_error(error: Exception) -> str:
    """One line for the user about an error."""
    first = str(error).strip().splitlines()
    text = first[0] if first else ""
    if isinstance(error, OSError) and text.startswith("[Errno") and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    known = type(error).__module__.startswith("xai_brain") or isinstance(error, OSError)
    return text if known and text else f"{type(error).__name__}: {text} (XAI_BRAIN_DEBUG=1 shows where)"


def track(
    items: Iterable[T],
    description: str,
    unit: str,
    *,
    brief: bool = False,
    size: Callable[[T], int] = lambda item: 1,
) -> Iterator[T]:
    """Iterate with progress, which is not shown with the verbosity "quiet".

    Parameters
    ----------
    items : sized iterable
    description : str
        The work, e.g. ``"explain fold 1, GradCAM"``.
    unit : str
        What is counted, e.g. ``"participants"``.
    brief : bool, default False
        The work is usually short: its last line is left out if it took less than a second.
    size : function of an item, default 1
        Number of units in an item, e.g. of participants in a batch.
    """
    items = items if isinstance(items, Sized) else list(items)
    start = time.monotonic()
    if not LOGGER.isEnabledFor(logging.INFO):
        yield from items
        return
    sizes = [size(item) for item in items]
    total = sum(sizes)
    if not sys.stdout.isatty():
        yield from _plain(items, sizes, description, unit, BRIEF_SECONDS if brief else 0)
        return
    with _bar() as progress:
        task = progress.add_task(description, total=total, unit=unit)
        for item, n in zip(items, sizes, strict=True):
            yield item
            progress.advance(task, n)
    log_debug(f"{description}: {total}/{total} {unit}, {time.monotonic() - start:.1f} s")


def _bar() -> Progress:
    """Description, bar, count, rate, elapsed and remaining time, in the terminal."""
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class RateColumn(progress.ProgressColumn):
        """Items per second, such as subjects/s."""

        def render(self, task: progress.Task) -> Text:
            return Text(rate_text(task.speed) if task.speed else "")

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[unit]}"),
        RateColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(file=sys.stdout),
        transient=True,
    )


def rate_text(per_second: float) -> str:
    """Items per second, or per minute if they are fewer than one in two seconds.

    Examples
    --------
    >>> rate_text(12.34), rate_text(0.03)
    ('12.3/s', '1.8/min')
    """
    return f"{per_second:.1f}/s" if per_second >= 0.5 else f"{60 * per_second:.1f}/min"


def _plain(
    items: Iterable[T], sizes: list[int], description: str, unit: str, least_seconds: float
) -> Iterator[T]:
    start = logged = time.monotonic()
    done, total = 0, sum(sizes)
    for item, n in zip(items, sizes, strict=True):
        if time.monotonic() - logged > PLAIN_EVERY_SECONDS:
            logged = time.monotonic()
            seconds = logged - start
            left = f"{seconds / done * (total - done):.0f} s left" if done else ""
            rate = f"{rate_text(done / seconds)}, {left}" if done else "begun"
            log(f"{description}: {done}/{total} {unit}, {rate}")
        yield item
        done += n
    if (seconds := time.monotonic() - start) >= least_seconds:
        log(f"{description}: {total}/{total} {unit}, {seconds:.1f} s")


class EpochLines:
    """Lines about epochs: the first with its duration, every fifth, the last, and at least every 15 seconds.

    With the verbosity "verbose" there is a line for every epoch, with its duration.

    Parameters
    ----------
    name : str
        The network, e.g. ``"train seed 0 fold 1/5"``.
    n_epochs : int
    """

    def __init__(self, name: str, n_epochs: int):
        self.name, self.n_epochs = name, n_epochs
        self.start = self.logged = time.monotonic()

    def __call__(self, epoch: int, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        seconds, self.start = now - self.start, now
        shown = [
            f"{key} {metrics[key]:.3f}" for key in ("train/loss", "val/loss", "val/auroc") if key in metrics
        ]
        line = f"{self.name}: epoch {epoch}/{self.n_epochs}, {', '.join(shown)}"
        if LOGGER.isEnabledFor(logging.DEBUG):
            log_debug(f"{line}, {seconds:.2f} s")
        elif epoch == 1:
            log(f"{line}, {seconds:.1f} s")
        elif epoch % 5 == 0 or epoch == self.n_epochs or self.start - self.logged > PLAIN_EVERY_SECONDS:
            log(line)
        else:
            return
        self.logged = self.start

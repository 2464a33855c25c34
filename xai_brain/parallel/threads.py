"""Work on several items at a time, in threads of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from xai_brain.parallel.progress import ShowProgress, track

T = TypeVar("T")
S = TypeVar("S")


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_all(write: Callable[[T], None], items: Iterable[T], progress: ShowProgress = iter) -> None:
    """Call ``write(item)`` for all of them, in one thread per core: compressing releases the lock of Python.

    What the first one raises is raised; those that were begun are finished.
    """
    start_writing(write, items, progress)()


def start_writing(
    write: Callable[[T], None], items: Iterable[T], progress: ShowProgress = iter
) -> Callable[[], None]:
    """As `write_all`, but return at once, with a function that waits for the end of the writing."""
    pool = ThreadPoolExecutor(available_cores())
    futures = [pool.submit(write, item) for item in items]

    def wait() -> None:
        with pool:
            try:
                for future in progress(futures):
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    return wait


class ReadAhead(Generic[S, T]):
    """Results of a function for items in their order; the next one is computed in a thread meanwhile.

    Parameters
    ----------
    read : function of an item
    items : sequence of hashable items
        In the order in which they will be asked for; some may be left out.
    """

    def __init__(self, read: Callable[[S], T], items: Sequence[S]):
        self.read, self.items = read, list(items)
        self.pool = ThreadPoolExecutor(1)
        self.following: tuple[int, Future[T]] | None = None

    def get(self, item: S) -> T:
        """Result for an item."""
        number = self.items.index(item)
        if self.following is not None and self.following[0] == number:
            result = self.following[1].result()
        else:
            result = self.read(item)
        self.following = None
        if number + 1 < len(self.items):
            self.following = number + 1, self.pool.submit(self.read, self.items[number + 1])
        return result

    def __enter__(self) -> ReadAhead[S, T]:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)


def in_threads(
    do: Callable[[T], S],
    items: Sequence[T],
    description: str,
    unit: str,
    size: Callable[[T], int] = lambda item: 1,
) -> Iterator[S]:
    """What a function makes of each item, in their order, with progress, on all cores.

    For work that numpy and scipy do, outside of Python's lock.
    """
    from joblib import Parallel, delayed

    work = Parallel(n_jobs=available_cores(), prefer="threads", return_as="generator")
    results = work(delayed(do)(item) for item in items)
    for _, result in zip(track(items, description, unit, size=size), results, strict=True):
        yield result

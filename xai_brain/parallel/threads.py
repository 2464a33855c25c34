"""Work on several items at a time, in threads of this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from xai_brain.parallel.progress import track

T = TypeVar("T")
S = TypeVar("S")


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_all(write: Callable[[T], None], items: Iterable[T]) -> None:
    """Call ``write(item)`` for all of them, in one thread per core: compressing releases the lock of Python.

    What the first one raises is raised; those that were begun are finished.
    """
    with ThreadPoolExecutor(available_cores()) as pool:
        futures = [pool.submit(write, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def in_threads(do: Callable[[T], S], items: Sequence[T], description: str) -> Iterator[S]:
    """What a function makes of each item, in their order, with progress, on all cores.

    For work that numpy and scipy do, outside of Python's lock.
    """
    from joblib import Parallel, delayed

    work = Parallel(n_jobs=available_cores(), prefer="threads", return_as="generator")
    results = work(delayed(do)(item) for item in items)
    for _, result in zip(track(items, description), results, strict=True):
        yield result

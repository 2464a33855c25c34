"""Files of many subjects, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def write_all(write: Callable[[T], None], items: Iterable[T]) -> None:
    """Call ``write(item)`` for all of them, in as many threads as torch has: compressing lets others run.

    What the first one raises is raised; those that were begun are finished.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        futures = [pool.submit(write, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

"""Reuse of freed memory by the C library. No torch."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from functools import cache
from typing import Any

_resident = {"floor": 0}  # bytes after memory was last returned; 0 while freed memory is not kept


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of returning them to the kernel after every tensor.

    Activations of 3-D networks are tens of megabytes; mapping and clearing them anew for each layer
    takes about a third of the time of a training step on CPUs.
    """
    if (libc := _glibc()) is None:
        return
    m_mmap_max, m_trim_threshold = -4, -1
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
    _resident["floor"] = _resident["floor"] or resident_bytes()


def return_freed_memory(grown_by: int = 0) -> None:
    """Return freed memory to the kernel, if it is kept.

    Blocks that are kept are divided by smaller ones, so that a later pass finds none that is large enough and
    requests more. Without this function a run of many methods grows to several times the memory it needs.

    Parameters
    ----------
    grown_by : int, default 0
        Bytes by which the process must have grown since the last call; otherwise nothing is done.
    """
    if not _resident["floor"] or resident_bytes() < _resident["floor"] + grown_by:
        return
    gc.collect()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)
    _resident["floor"] = resident_bytes()


def resident_bytes() -> int:
    """Memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@cache
def _glibc() -> Any:
    """None where there is another C library, or another system."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    except OSError:
        return None

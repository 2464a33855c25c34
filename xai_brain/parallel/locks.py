"""Locks of units of work, when several processes work in one folder. No torch.

A lock is a small file that names the process that does a unit of work. It is renewed while the work goes on,
so that the lock of a killed process is recognised as stale: immediately on the same machine, after
`STALE_SECONDS` on another one. A process that takes over a stale lock does not remove it, because two
processes might do so at the same time and one of them might remove the lock of the other. It creates the next
generation of the lock, which only one process can do. Stale locks are removed when no other process works.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from xai_brain.io.atomic import is_gone, this_process

T = TypeVar("T")

BEAT_SECONDS = 10.0  # interval of renewal
STALE_SECONDS = 120.0  # age from which the lock of another machine is stale
WRITING_SECONDS = 5.0  # age from which an empty lock is stale: its process was killed while writing it
POLL_SECONDS = (0.05, 2.0)  # between two looks at the locks of others: first and longest

_held: set[Path] = set()  # locks of this process


def run_shared(
    folder: Path,
    units: dict[str, T],
    *,
    done: Callable[[T], bool],
    do: Callable[[T], Callable[[], object] | None],
    progress: Callable[[list[str]], Iterable[str]] = iter,
    wait: Callable[[int], None] = lambda n: None,
    stay: bool = True,
) -> None:
    """Do every unit of work that is not done and not locked; return when all are done.

    Parameters
    ----------
    folder : Path
        Contains the locks; it is removed with the last one.
    units : dict of str to object
        By names that are the same in every process and valid as file names.
    done : function of a unit
        Whether its results are there.
    do : function of a unit
        Computes its results. If it fails, the lock is released and the error is raised. If it returns a
        function, that one finishes the unit, for example waits for files that are being written; it is called
        when the next unit has been computed, and then the lock is released.
    progress : function that wraps the list of names
    wait : function of the number of units that others do, called once before waiting for them
    stay : bool, default True
        Wait for other processes; otherwise return when this process can do nothing more.
    """
    left = {name: unit for name, unit in units.items() if not done(unit)}
    pause, waiting = POLL_SECONDS[0], False
    while left:
        locked: dict[str, T] = {}
        with ExitStack() as previous:
            for name in list(left) if waiting else progress(list(left)):
                unit = left[name]
                with ExitStack() as current:
                    if not current.enter_context(lock(folder, name)):
                        locked[name] = unit
                    elif not done(unit):
                        finish = do(unit)
                        previous.close()
                        if finish is not None:
                            current.callback(finish)  # before the lock is released
                            previous.push(current.pop_all())
        if not stay:
            return
        if len(locked) == len(left):
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS[1])
        left = {name: unit for name, unit in locked.items() if not done(unit)}
        if left and not waiting:
            wait(len(left))
            waiting = True


def run_exclusive(
    folder: Path,
    name: str,
    do: Callable[[], object],
    done: Callable[[], bool] | None = None,
    stay: bool = True,
) -> None:
    """Do one thing while no other process does it, unless it has been done meanwhile."""
    finished = False

    def work(_: None) -> None:
        nonlocal finished
        do()
        finished = True

    run_shared(
        folder, {name: None}, done=lambda _: finished or (done is not None and done()), do=work, stay=stay
    )


@contextmanager
def lock(folder: Path, name: str) -> Iterator[bool]:
    """Lock a unit of work for the time of the block.

    Yields
    ------
    bool
        Whether this process holds the lock; False if a running process holds it.
    """
    path = _take(folder, name)
    if path is None:
        yield False
        return
    stop = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, stop), daemon=True)
    renewal.start()
    try:
        yield True
    finally:
        stop.set()
        renewal.join()
        _release(path, name)


def is_locked(folder: Path) -> bool:
    """Whether another process holds a lock in this folder."""
    return any(path not in _held and not is_stale(path) for path in folder.glob("*.*"))


def remove_stale_locks(folder: Path) -> None:
    """Remove the locks of killed processes, unless another process that could take them over is at work."""
    if is_locked(folder):
        return
    for path in folder.glob("*.*"):
        if path not in _held and is_stale(path):  # not if it was renewed meanwhile
            path.unlink(missing_ok=True)


def _take(folder: Path, name: str) -> Path | None:
    while True:
        found = _generations(folder, name)
        if found and not is_stale(found[-1]):
            return None
        path = folder / f"{name}.{_generation(found[-1]) + 1 if found else 0}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "x") as file:
                _held.add(
                    path
                )  # before it is written: otherwise another thread of this process considers it stale
                file.write(this_process())
        except FileExistsError:
            return None
        except FileNotFoundError:  # another process released the last lock and removed the folder
            continue
        except OSError as error:
            _held.discard(path)
            with suppress(OSError):
                path.unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error
        return path


def _release(path: Path, name: str) -> None:
    """Earlier generations are removed first, so that none of them becomes valid for a moment."""
    for older in _generations(path.parent, name):
        if _generation(older) < _generation(path):
            older.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    _held.discard(path)
    with suppress(OSError):  # other processes hold locks there
        path.parent.rmdir()


def _generations(folder: Path, name: str) -> list[Path]:
    try:
        found = [path for path in folder.iterdir() if path.name.rpartition(".")[0] == name]
    except FileNotFoundError:
        return []
    return sorted(found, key=_generation)


def _generation(path: Path) -> int:
    return int(path.name.rpartition(".")[2])


def _renew(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        with suppress(OSError):  # the file server may be unavailable for a moment
            os.utime(path)


def is_stale(path: Path) -> bool:
    """Whether the process that holds a lock has ended."""
    try:
        process, age = path.read_text(), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if not process:
        return age > WRITING_SECONDS
    if process == this_process():
        return path not in _held
    gone = is_gone(process)
    return age > STALE_SECONDS if gone is None else gone

"""Who does what, when several processes work in one folder. No torch.

A claim is a small file that says which process does a unit of work. It is renewed while the work goes on, so
that the claim of a process that was killed is known to be stale: at once on the same machine, elsewhere after
`STALE_SECONDS`. Who takes over a stale claim does not remove it, for two might do so at once and one of them
remove the claim of the other: it creates the next generation of it, which only one of them can. Stale claims
are removed when nobody else is at work.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from xai_brain.io.atomic import is_gone, this_process

T = TypeVar("T")

BEAT_SECONDS = 10.0  # how often a claim is renewed
STALE_SECONDS = 120.0  # age at which the claim of another machine counts no more
WRITING_SECONDS = 5.0  # age at which a claim that says nothing was left by a process killed while writing it
POLL_SECONDS = (0.05, 2.0)  # between two looks at the claims of others: at first, and after a while

_held: set[Path] = set()  # claims of this process


def run_shared(
    folder: Path,
    units: dict[str, T],
    *,
    done: Callable[[T], bool],
    do: Callable[[T], object],
    progress: Callable[[list[str]], Iterable[str]] = iter,
    wait: Callable[[int], None] = lambda n: None,
    stay: bool = True,
) -> None:
    """Do every unit of work that is not done and that nobody else does; return when all are done.

    Parameters
    ----------
    folder : Path
        Of the claims; it is gone when there are none.
    units : dict of str to object
        By names that are the same in every process and make file names.
    done : function of a unit
        Whether its results are there.
    do : function of a unit
        Makes its results. Where it fails the claim is given up, and the error goes on.
    progress : function that wraps the list of names
    wait : function of the number of units that others do, told once before waiting for them
    stay : bool, default True
        Wait for what others do; without, return when there is nothing more to be done here.
    """
    left = {name: unit for name, unit in units.items() if not done(unit)}
    pause, told = POLL_SECONDS[0], False
    while left:
        of_others: dict[str, T] = {}
        for name in list(left) if told else progress(list(left)):
            unit = left[name]
            with lock(folder, name) as mine:
                if not mine:
                    of_others[name] = unit
                elif not done(unit):
                    do(unit)
        if not stay:
            return
        if len(of_others) == len(left):
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS[1])
        left = {name: unit for name, unit in of_others.items() if not done(unit)}
        if left and not told:
            wait(len(left))
            told = True


def run_exclusive(
    folder: Path,
    name: str,
    do: Callable[[], object],
    done: Callable[[], bool] | None = None,
    stay: bool = True,
) -> None:
    """Do one thing while no other process does it; nothing when it is done meanwhile."""
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
    """Claim a unit of work for the time of the block.

    Yields
    ------
    bool
        Whether it is ours; False when a process that lives has it.
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
    """Whether another process has a claim in this folder."""
    return any(path not in _held and not is_stale(path) for path in folder.glob("*.*"))


def remove_stale_locks(folder: Path) -> None:
    """Remove what killed processes claimed, when nobody else is at work who could take it over meanwhile."""
    if is_locked(folder):
        return
    for path in folder.glob("*.*"):
        if path not in _held and is_stale(path):  # one that came meanwhile is not
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
                _held.add(path)  # before it says whose it is: another thread of ours would take it for stale
                file.write(this_process())
        except FileExistsError:
            return None
        except FileNotFoundError:  # the last claim of another was given up, and the folder with it
            continue
        except OSError as error:
            _held.discard(path)
            with suppress(OSError):
                path.unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error
        return path


def _release(path: Path, name: str) -> None:
    """The stale ones before it go first, so that none of them is in force for a moment."""
    for older in _generations(path.parent, name):
        if _generation(older) < _generation(path):
            older.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    _held.discard(path)
    with suppress(OSError):  # others have claims there
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
        with suppress(OSError):  # a file server that is away for a moment
            os.utime(path)


def is_stale(path: Path) -> bool:
    """Whether the process of a claim works no more."""
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

"""Write files such that they are visible only when they are complete. No torch.

A file is written under a temporary name, which identifies the writing process, and then renamed. Unfinished
files of killed processes can therefore be recognised and removed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

PARTIAL = ".partial-"  # prefix of the names of incomplete files

_UMASK = os.umask(0)  # reading it requires setting it; done once, before threads start
os.umask(_UMASK)
FILE_MODE = 0o666 & ~_UMASK


def file_hash(path: str | Path) -> str:
    """SHA-256 of the content of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class WriteError(OSError):
    """A result could not be written. The message names the file, the reason and what to do."""

    def __init__(self, path: Path, error: OSError):
        reason = error.strerror or str(error)  # numpy reports only that too few bytes were written
        super().__init__(error.errno, reason, str(path))
        self.path, self.reason = path, reason

    def __reduce__(self) -> Any:  # for errors in worker processes
        return WriteError, (self.path, OSError(self.errno, self.reason))

    def __str__(self) -> str:
        return (
            f"{self.path}: cannot be written ({self.reason}); free disk space or allow writing, "
            "then start again: finished results are kept"
        )


@contextmanager
def disk_full_errors(folder: Path) -> Iterator[None]:
    """Convert errors of libraries that are caused by a full disk to a `WriteError` for the folder."""
    try:
        yield
    except OSError as error:
        if isinstance(error, WriteError) or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise WriteError(folder, error) from error


def write_atomic(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """Write a file such that it is visible only when it is complete.

    Parameters
    ----------
    path : final path
    write : function that writes the content to the temporary path it is given
        The temporary name lies in the same folder and ends like `path`.

    Returns
    -------
    Path

    Raises
    ------
    WriteError
        The disk is full, or the folder cannot be written to; an existing file is unchanged.
    """
    path = Path(path)
    ending = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(
            dir=path.parent, prefix=partial_prefix(), suffix=ending, delete=False
        ) as created:
            temporary = Path(created.name)
        try:
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(FILE_MODE)  # NamedTemporaryFile creates files that only the owner can read
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        where = str(error.filename or path)
        if not where.startswith(str(path.parent)) and not str(path).startswith(where):
            raise  # the error concerns a file that was read
        raise WriteError(path, error) from error
    return path


# --- processes


def this_process() -> str:
    """Identifier of this process: machine, process id and start time."""
    return _token(os.getpid())


@lru_cache(maxsize=1)
def _token(pid: int) -> str:
    return f"{_machine()}-{pid}-{_started(pid) or 0}"


def is_gone(process: str) -> bool | None:
    """Whether a process has ended; None if this is unknown, because it runs on another machine."""
    try:
        machine, pid, started = process.split("-")
        if machine != _machine():
            return None
        now = _started(int(pid))
    except ValueError:
        return None
    return None if now is None else now != started


def _started(pid: int) -> str | None:
    """Start time of a process; "" if there is no such process, None if it cannot be determined."""
    if sys.platform.startswith("linux"):
        try:
            state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        except OSError:
            return None
        return (
            "" if state in "ZX" else rest[18]
        )  # it has ended, but its parent has not collected the exit status
    if os.name != "posix":
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "0"


@lru_cache(maxsize=1)
def _machine() -> str:
    """Identifier of one boot of a machine or container, within which process ids are unique."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]


def partial_prefix() -> str:
    """Beginning of the name of a file that this process is writing."""
    return f"{PARTIAL}{this_process()}-"


def remove_partial_files(folder: Path) -> None:
    """Remove unfinished files and folders of processes that have ended."""
    for path in list(folder.rglob(f"{PARTIAL}*")):
        if is_gone(path.name.removeprefix(PARTIAL).rpartition("-")[0]):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

"""Show, check and clear the cache of prepared images."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from xai_brain.data.cache import (
    checksums_hold,
    default_cache_dir,
    entries,
    partial_files,
    remove,
    settings_of,
)
from xai_brain.data.image_records import is_true, sources
from xai_brain.parallel.progress import log, track

ACTIONS = ("info", "verify", "clear")
PARTS = ("volumes", "sources", "synthetic", "planted")
IN_USE_SECONDS = 3600  # younger files without a record may belong to a running process


class CacheError(ValueError):
    """Arguments that are not valid; the message shows valid ones."""


def cache(arguments: list[str]) -> int:
    """Show, check or clear the cache.

    Parameters
    ----------
    arguments : list of str
        ``info``, ``verify`` or ``clear``, for ``clear`` the parts; ``data.cache_dir=<folder>``.

    Returns
    -------
    int
        1 if `verify` found damaged files, else 0.
    """
    given = [text for text in arguments if "=" in text]
    words = [text for text in arguments if "=" not in text]
    folder = default_cache_dir()
    for text in given:
        key, _, value = text.partition("=")
        if key not in ("data.cache_dir", "cache_dir"):
            raise CacheError(f"{key}: only data.cache_dir=<folder> can be given")
        folder = Path(value).expanduser()
    action, *parts = words or [""]
    if action not in ACTIONS or (parts and action != "clear") or set(parts) - set(PARTS):
        raise CacheError(f"usage: xai-brain cache info|verify|clear [{'|'.join(PARTS)}]")
    if not folder.is_dir():
        log(f"{folder}: nothing is cached yet")
        return 0
    if action == "clear":
        return clear(folder, parts or list(PARTS))
    return info(folder) if action == "info" else verify(folder)


def info(folder: Path) -> int:
    """Print the contents of the cache."""
    found = entries(folder)
    log(f"{folder}: {format_size(size(folder.rglob('*')))}")
    kinds: Counter[str] = Counter()
    bytes_of: Counter[str] = Counter()
    for entry in found:
        settings = settings_of(entry)
        kind = f"{settings['grid']}, scaling {settings['scaling']}" if settings else "incomplete or outdated"
        kinds[kind] += 1
        bytes_of[kind] += size(entry)
    for kind, count in sorted(kinds.items()):
        log(f"  volumes    {count} images ({kind}), {format_size(bytes_of[kind])}")
    log(f"  sources    {len(sources(folder))} images known by path, size and time")
    if (folder / "synthetic").is_dir():
        cohorts = _synthetic(folder)
        held = size((folder / "synthetic").rglob("*"))
        log(f"  synthetic  {len(cohorts)} embedded cohorts, {format_size(held)}")
    if planted := _planted(folder):
        log(f"  planted    {len(planted)} files of planted effects, {format_size(size(planted))}")
    if partial := partial_files(folder):
        log(f"  unfinished {len(partial)} files of running or killed processes, {format_size(size(partial))}")
    return 0


def verify(folder: Path) -> int:
    """Read all volumes and known images again; remove damaged volumes and outdated records."""
    damaged, unfinished = [], []
    for entry in track(entries(folder), "check volumes", "volumes"):
        if settings_of(entry) is None:
            unfinished += [entry] if all(map(_is_old, entry)) else []
        elif not checksums_hold(entry):
            damaged.append(entry)
    false = [source for source in track(sources(folder), "check images", "images") if not is_true(source)]
    leftovers = [path for path in partial_files(folder) if _is_old(path)]
    for entry in damaged + unfinished:
        remove(entry)
    for path in false + leftovers:
        path.unlink(missing_ok=True)
    for entry in damaged:
        log(f"{entry.volume}: damaged, removed; it will be prepared again when needed")
    log(
        f"{folder}: {len(entries(folder))} volumes are intact; removed {len(damaged)} damaged, "
        f"{len(unfinished) + len(leftovers)} unfinished, {len(false)} records of changed or missing images"
    )
    return 1 if damaged else 0


def clear(folder: Path, parts: list[str]) -> int:
    """Remove parts of the cache and log them; only files of xai_brain are removed."""
    for part in parts:
        where = folder / part
        paths: list[Path] = [path for path in partial_files(folder) if path.parent == where]
        if part == "volumes":
            paths += [path for entry in entries(folder) for path in reversed(entry) if path.exists()]
        elif part == "sources":
            paths += sources(folder)
        elif part == "planted":
            paths += _planted(folder)
        else:
            paths += _synthetic(folder)
        if not paths:
            continue
        held = size(file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]))
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        kind = "cohorts" if part == "synthetic" else "files"
        log(f"removed {where}: {len(paths)} {kind}, {format_size(held)}")
        if not any(where.iterdir()):
            where.rmdir()
    return 0


def _synthetic(folder: Path) -> list[Path]:
    """Folders of embedded cohorts; their names are twelve hexadecimal digits."""
    found = sorted((folder / "synthetic").glob("*"))
    return [path for path in found if path.is_dir() and len(path.name.split(".")[0]) == 12]


def _planted(folder: Path) -> list[Path]:
    """Volumes with a planted effect and the masks of these effects."""
    return sorted(
        path for end in ("volume.npy", "truth.nii.gz") for path in (folder / "planted").glob(f"[!.]*_{end}")
    )


def _is_old(path: Path) -> bool:
    return not path.exists() or time.time() - path.stat().st_mtime > IN_USE_SECONDS


def size(paths: Iterable[Path]) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in paths if path.is_file())


def format_size(n_bytes: int) -> str:
    """Size as text, e.g. 1.2 GB."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"

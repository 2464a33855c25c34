"""Prepared volumes on disk: each image is prepared once.

``sources/`` contains JSON records of the content hash of each image by path, size and time of modification,
so that an unchanged cohort is not read again. An entry in ``volumes/`` consists of a volume, its brain mask
and a record with their checksums, which is written last; an entry without record does not exist. Files become
visible only when they are complete, so that processes can be killed and several processes can fill the cache.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xai_brain.config.data import PreprocessingConfig
from xai_brain.data.image_records import content_hash, known_hash, read_record, write_record
from xai_brain.data.preprocessing import ALGORITHM, preprocess_t1w
from xai_brain.io.atomic import write_atomic
from xai_brain.io.nifti import load_img
from xai_brain.io.nifti_header import require_file
from xai_brain.io.problems import DataError
from xai_brain.parallel.locks import lock, run_exclusive
from xai_brain.parallel.progress import log_seconds


def default_cache_dir() -> Path:
    return Path(os.environ.get("XAI_BRAIN_CACHE", "~/.cache/xai_brain")).expanduser()


@contextmanager
def cache_errors(cache_dir: str | Path | None) -> Iterator[None]:
    """Report a cache folder that cannot be written together with the setting of another one.

    Raises
    ------
    DataError
    """
    folder = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    try:
        yield
    except OSError as error:
        path = Path(str(error.filename)) if error.filename else folder
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        if not denied or not (path.is_relative_to(folder) or folder.is_relative_to(path)):
            raise
        raise DataError(
            f"{folder}: the folder of prepared images cannot be written ({os.strerror(error.errno or 0)}); "
            "choose another one with the environment variable XAI_BRAIN_CACHE=<folder> or with "
            "data.cache_dir=<folder>"
        ) from error


class Source(NamedTuple):
    """One image to prepare."""

    path: str
    mask_path: str | None
    space: str | None
    orientation: str | None = None
    space_check: str = "error"


class Entry(NamedTuple):
    """Paths of one prepared image; the record is complete only when the others are.

    `alignment` exists for images that were aligned to MNI152; it leads back to their own voxels.
    """

    volume: Path
    mask: Path
    alignment: Path
    record: Path


def entry_of(key: str, folder: Path) -> Entry:
    volumes = folder / "volumes"
    return Entry(
        *(volumes / f"{key}_{what}" for what in ("volume.npy", "mask.npy", "xfm.json", "record.json"))
    )


def entry_key(content: str, mask_content: str | None, source: Source, settings: PreprocessingConfig) -> str:
    """Name of an entry: content of the image, its space, settings and version of the algorithm.

    The endings of the file names are part of it, because a file that is not what its name says is refused,
    also if the same content was prepared from a file with the right name.
    """
    said = source.space, source.orientation, source.space_check
    endings = Path(source.path).suffix, Path(source.mask_path or "").suffix
    recipe = [ALGORITHM, content, mask_content, *said, *endings, asdict(settings)]
    return sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]


def find(source: Source, settings: PreprocessingConfig, folder: Path) -> dict[str, str] | None:
    """The prepared image if it is in the cache and undamaged; unchanged source images are not read."""
    content = known_hash(source.path, folder)
    mask_content = known_hash(source.mask_path, folder) if source.mask_path else None
    if content is None or (source.mask_path and mask_content is None):
        return None
    entry = entry_of(entry_key(content, mask_content, source, settings), folder)
    return _columns(entry, content) if is_sound(entry) else None


def prepare(
    source: Source, settings: PreprocessingConfig, folder: Path, *, wait: bool
) -> dict[str, str] | None:
    """Prepare one image into the cache, unless it is there.

    Parameters
    ----------
    source : Source
    settings : PreprocessingConfig
    folder : Path
    wait : bool
        Whether to wait for another process that prepares this image.

    Returns
    -------
    dict of str to str
        Columns of the table; None if another process prepares the image and `wait` is False.

    Raises
    ------
    ImageError
        The image cannot be used.
    """
    for path in (source.path, *([source.mask_path] if source.mask_path else [])):
        require_file(path)
    content = content_hash(source.path, folder)
    mask_content = content_hash(source.mask_path, folder) if source.mask_path else None
    entry = entry_of(entry_key(content, mask_content, source, settings), folder)
    if is_sound(entry):
        return _columns(entry, content)
    name = entry.record.name.removesuffix("_record.json")
    if wait:
        run_exclusive(locks(folder), name, lambda: _make(entry, source, settings), lambda: is_sound(entry))
        return _columns(entry, content)
    with lock(locks(folder), name) as acquired:
        if not acquired:
            return None
        if not is_sound(entry):
            _make(entry, source, settings)
    return _columns(entry, content)


def locks(folder: Path) -> Path:
    """Folder of the locks of running processes; it exists only while there are any."""
    return folder / ".locks"


def _make(entry: Entry, source: Source, settings: PreprocessingConfig) -> None:
    with log_seconds(f"prepare {source.path}"):
        _write_entry(entry, source, settings)


def _write_entry(entry: Entry, source: Source, settings: PreprocessingConfig) -> None:
    t1w_img = load_img(source.path, source.orientation)
    prepared = preprocess_t1w(
        t1w_img,
        settings,
        brain_mask_img=load_img(source.mask_path, source.orientation) if source.mask_path else None,
        space=source.space,
        space_check=source.space_check,
        path=source.path,
    )
    write_atomic(entry.mask, lambda temporary: np.save(temporary, prepared.brain_mask))
    write_atomic(entry.volume, lambda temporary: np.save(temporary, prepared.volume))
    if prepared.mni_to_native is not None:
        alignment = {
            "MNI152ToNative": prepared.mni_to_native.tolist(),
            "NativeAffine": t1w_img.affine.tolist(),
            "NativeShape": list(t1w_img.shape),
        }
        write_record(entry.alignment, alignment)
    _write_record(entry, source.path, asdict(settings), prepared.space_warning)


def _columns(entry: Entry, content: str) -> dict[str, str]:
    return {
        "volume_path": str(entry.volume),
        "volume_mask_path": str(entry.mask),
        "alignment_path": str(entry.alignment) if entry.alignment.exists() else "",
        "space_warning": (read_record(entry.record) or {}).get("space_warning", ""),
        "sha256": content,
    }


# --- checksums of entries


def is_sound(entry: Entry) -> bool:
    """Whether the files are unchanged, by size and time, or by checksum if the time differs."""
    record = read_record(entry.record)
    if record is None:
        return False
    unchanged = True
    for path in (entry.volume, entry.mask):
        try:
            stat = path.stat()
        except OSError:
            return False
        recorded = record["files"].get(path.name, {})
        if stat.st_size != recorded.get("size"):
            return False
        unchanged &= stat.st_mtime_ns == recorded.get("mtime_ns")
    if unchanged:
        return True
    if not checksums_hold(entry):
        return False
    _write_record(
        entry, record["source"], record["settings"], record["space_warning"]
    )  # the cache was copied, or two processes wrote the entry
    return True


def checksums_hold(entry: Entry) -> bool:
    """Read both files and compare."""
    record = read_record(entry.record)
    return record is not None and all(
        path.exists() and _checksum(path) == record["files"].get(path.name, {}).get("crc32")
        for path in (entry.volume, entry.mask)
    )


def _write_record(entry: Entry, source: str, settings: dict[str, Any], space_warning: str) -> None:
    files = {}
    for path in (entry.volume, entry.mask):
        stat = path.stat()  # before reading, so that a change during reading is detected
        files[path.name] = {
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "crc32": _checksum(path),
        }
    about = {
        "algorithm": ALGORITHM,
        "source": source,
        "settings": settings,
        "space_warning": space_warning,
    }
    write_record(entry.record, {**about, "files": files})


def _checksum(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            value = zlib.crc32(chunk, value)
    return value


# --- content of images


# --- looking after it


def entries(folder: Path) -> list[Entry]:
    """All entries with at least one file, sorted by key."""
    names = {path.name.partition("_")[0] for path in (folder / "volumes").glob("[!.]*_*")}
    return [entry_of(key, folder) for key in sorted(names)]


def partial_files(folder: Path) -> list[Path]:
    """Incomplete files of killed or running processes."""
    return sorted(
        path for part in ("volumes", "sources", "planted") for path in (folder / part).glob(".partial-*")
    )


def settings_of(entry: Entry) -> dict[str, Any] | None:
    """Settings of a complete entry."""
    record = read_record(entry.record)
    return record["settings"] if record else None


def remove(entry: Entry) -> None:
    """Remove an entry, beginning with its record, without which it does not exist."""
    for path in reversed(entry):
        path.unlink(missing_ok=True)

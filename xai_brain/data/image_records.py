"""Records of content hashes of source images, identified by path, size and time."""

from __future__ import annotations

import json
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from xai_brain.io.atomic import file_hash, write_atomic
from xai_brain.io.nifti import ImageError

RACY_NS = 2 * 10**9  # a file changed this shortly before it was hashed may change again unnoticed


def content_hash(path: str, folder: Path) -> str:
    """SHA-256 of an image file, from its record if the file is unchanged."""
    if (known := known_hash(path, folder)) is not None:
        return known
    try:
        stat = os.stat(path)
        content = file_hash(path)
    except OSError as error:
        raise ImageError(path, f"cannot be read ({error.strerror})") from error
    if time.time_ns() - stat.st_mtime_ns > RACY_NS:
        about = {"path": os.path.abspath(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        write_record(_source_record(path, folder), {**about, "sha256": content})
    return content


def known_hash(path: str, folder: Path) -> str | None:
    record = read_record(_source_record(path, folder))
    if record is None:
        return None
    try:
        stat = os.stat(path)
    except OSError:
        return None
    same = (record["size"], record["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
    return record["sha256"] if same else None


def _source_record(path: str, folder: Path) -> Path:
    return folder / "sources" / f"{sha256(os.path.abspath(path).encode()).hexdigest()[:32]}.json"


def read_record(path: Path) -> dict[str, Any] | None:
    """A record; None if it is missing or damaged, so that it is written again."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    wanted = (
        {"files", "source", "settings", "space_warning"}
        if path.name.endswith("_record.json")
        else {"path", "size", "mtime_ns", "sha256"}
    )
    return record if isinstance(record, dict) and wanted <= set(record) else None


def write_record(path: Path, record: dict[str, Any]) -> None:
    write_atomic(path, lambda temporary: temporary.write_text(json.dumps(record)))


def sources(folder: Path) -> list[Path]:
    """Records of images."""
    return sorted((folder / "sources").glob("[!.]*.json"))


def is_true(source: Path) -> bool:
    """Whether an image still exists with the recorded content. Computes its hash."""
    record = read_record(source)
    if record is None or not Path(record["path"]).is_file():
        return False
    return bool(file_hash(record["path"]) == record["sha256"])

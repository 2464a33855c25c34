"""Manifests: the inputs of results, and whether results are up to date."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xai_brain.io.atomic import file_hash
from xai_brain.io.numbers import plain_value
from xai_brain.runs.directory import read_json, write_json


def write_manifest(manifest: Path, inputs: Any, made: Iterable[Path], **more: Any) -> None:
    """Record the inputs of results and the hash of each result file; written last."""
    there = {os.path.relpath(path, manifest.parent): path for path in made if path.is_file()}
    files = {name: file_hash(path) for name, path in sorted(there.items())}
    write_json({"Of": inputs, **more, "Files": files}, manifest)


def is_up_to_date(manifest: Path, inputs: Any) -> bool:
    """Whether the results of a manifest were made from these inputs."""
    expected = json.loads(json.dumps(inputs, default=plain_value))
    return manifest.exists() and read_json(manifest).get("Of") == expected


def manifest_files(manifest: Path) -> dict[Path, str]:
    """Hash of each file in a manifest."""
    files = read_json(manifest).get("Files", {})
    return {Path(os.path.normpath(manifest.parent / name)): content for name, content in files.items()}


def is_intact(manifest: Path, inputs: Any) -> bool:
    """Whether the results of a manifest were made from these inputs, and its files are there, unaltered."""
    return is_up_to_date(manifest, inputs) and all(
        path.is_file() and file_hash(path) == expected for path, expected in manifest_files(manifest).items()
    )

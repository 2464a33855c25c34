"""Versions, machine and commit with which results were made."""

from __future__ import annotations

import datetime
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ["xai-brain", "torch", "pytorch-lightning", "captum", "nibabel", "nilearn"]
PACKAGES += ["numpy", "scikit-learn"]


def provenance(seeds: list[int], inputs: dict[str, str]) -> dict[str, Any]:
    """Versions, machine, commit, seeds and the hashes of the inputs of a run."""
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "git_commit": git_commit(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
        },
        "seeds": list(seeds),
        "inputs_sha256": inputs,
    }


@cache  # reading versions takes as long as writing a map
def versions() -> dict[str, str]:
    """Installed versions of this package and of those that influence results.

    Returns
    -------
    dict
        Version of each package by its name; packages that are not installed are left out.

    Examples
    --------
    >>> "torch" in versions()
    True
    """
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str | None:
    """Commit of a checkout; None for an installed package."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        ask = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(ask, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

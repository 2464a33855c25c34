"""Settings of choices that were not made, such as of a method that is not among the chosen ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from xai_brain.config.checks import DATA_SCHEMAS

SEVERAL = ("attribution", "baselines")  # groups of which several files are chosen


def unchosen(key: str, conf: Path) -> str:
    """To which choice a setting belongs, and how to choose it; empty if it belongs to none.

    Parameters
    ----------
    key : str
        Dotted name of a setting that the composed settings do not have.
    conf : Path
        Folder of the configuration files.
    """
    group, _, rest = key.partition(".")
    files = [path.stem for path, keys in keys_of_files(conf, group) if rest in keys] if rest else []
    if not files:
        return ""
    if group in SEVERAL:
        label = rest.partition(".")[0]
        what = "method" if group == "attribution" else "baseline"
        name = min(files, key=len)  # the quick variants have longer names
        return f"it belongs to the {what} {label}, which is not chosen; add {name} to {group}=[...]"
    choices = " or ".join(f"{group}={name}" for name in files)
    return f"it belongs to {choices}, which is not chosen"


def keys_of_files(conf: Path, group: str = "") -> Iterator[tuple[Path, set[str]]]:
    """Files of a group of choices, with the names of their settings below the group.

    Parameters
    ----------
    conf : Path
    group : str, default ""
        Such as ``attribution``; nothing is found if there is no such group.
    """
    for path in sorted((conf / group).glob("*.yaml")) if group else []:
        keys = set(_dotted(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))
        if group == "data" and path.stem in DATA_SCHEMAS:
            keys |= set(DATA_SCHEMAS[path.stem].__dataclass_fields__)
        yield path, keys


def _dotted(content: Any, prefix: str = "") -> Iterator[str]:
    for key, value in content.items() if isinstance(content, dict) else ():
        if key != "defaults":
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")

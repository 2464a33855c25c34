"""List settings with their meaning, type and default: ``xai-brain settings [group]``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig

from xai_brain.config.checks import DATA_SCHEMAS
from xai_brain.config.compose import conf_dir
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError

# files of these groups are not listed, because they concern sweeps only
HIDDEN = ("hydra",)


@dataclass(frozen=True)
class Setting:
    """Name, type, default and meaning of one setting."""

    name: str
    kind: str
    default: str
    meaning: str


def settings(arguments: list[str]) -> int:
    """List all settings, or those whose names begin with a group.

    Parameters
    ----------
    arguments : list of str
        At most one group, such as ``trainer`` or ``evaluation.group``.

    Raises
    ------
    ConfigError
        There is no such group; the valid ones are listed.
    """
    if len(arguments) > 1:
        raise ConfigError(f"xai-brain settings takes one group, not {len(arguments)}: {' '.join(arguments)}")
    group = arguments[0].rstrip(".") if arguments else ""
    found = [each for each in all_settings() if not group or f"{each.name}.".startswith(f"{group}.")]
    files = list(choices(group))
    if group and not found and not files:
        groups = sorted({each.name.rpartition(".")[0] for each in all_settings()} - {""} | set(group_names()))
        raise ConfigError(f"there is no group of settings {group!r}; there are {', '.join(groups)}")
    lines = [f"{each.name}={each.default}  ({each.kind})\n    {each.meaning}" for each in found]
    if files:
        lines += [
            "",
            "files that can be chosen:",
            *(f"{text}\n    {meaning}".rstrip() for text, meaning in files),
        ]
    print("\n".join(lines).strip())
    return 0


def all_settings() -> list[Setting]:
    """Every setting of the schema by its dotted name; the meaning states the layout if only one has it."""
    found: dict[str, Setting] = {}
    for each in _settings_of(Config, ""):
        found.setdefault(each.name, each)
    for layout, schema in DATA_SCHEMAS.items():
        for each in _settings_of(schema, "data."):
            if each.name not in found:
                meaning = f"with data={layout}: {each.meaning}"
                found[each.name] = Setting(each.name, each.kind, each.default, meaning)
    return list(found.values())


def group_names() -> list[str]:
    """Groups of files in ``conf/``."""
    return sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir())


def choices(group: str) -> Iterator[tuple[str, str]]:
    """Files of a group as ``group=name``, with their first comment; of all groups if it is empty."""
    for name in group_names():
        if name in HIDDEN or group not in ("", name):
            continue
        for path in sorted((conf_dir() / name).glob("*.yaml")):
            yield _as_override(name, path), _first_comment(path)


def _as_override(group: str, path: Path) -> str:
    several = group in ("attribution", "baselines")
    return f"{group}=[{path.stem}]" if several else f"{group}={path.stem}"


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            text = line.lstrip("# ")
            return "" if text.startswith("xai-brain ") else text.partition(": xai-brain ")[0]
    return ""


def _settings_of(schema: type, prefix: str) -> Iterator[Setting]:
    hints = get_type_hints(schema)
    described = _parameters_of(schema)
    for each in fields(schema):
        kind, name = hints[each.name], f"{prefix}{each.name}"
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _settings_of(kind, f"{name}.")
            continue
        meaning = each.metadata.get("meaning") or described.get(each.name, "")
        if valid := [str(choice) for choice in each.metadata.get("choices", ()) if choice is not None]:
            meaning = f"{meaning}; one of {', '.join(valid)}"
        yield Setting(name, _kind(each), _default(each), meaning or "see the files of its group")


def _kind(each: Field[Any]) -> str:
    text = str(each.type).replace("None", "null")
    return "any" if text == "Any" else text


def _default(each: Field[Any]) -> str:
    value = each.default if each.default is not NO_DEFAULT else None
    if each.default_factory is not NO_DEFAULT:
        value = each.default_factory()
    if isinstance(value, DictConfig | dict):
        return "{}" if not value else str(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value).replace(" ", "")


def _parameters_of(schema: type) -> dict[str, str]:
    """First sentences of the parameters in a numpydoc docstring."""
    text = (schema.__doc__ or "").partition("Parameters\n    ----------\n")[2]
    found: dict[str, str] = {}
    for match in re.finditer(r"^    (\w[\w, ]*) : [^\n]*\n((?:        [^\n]*\n?)*)", text, re.MULTILINE):
        sentence = " ".join(match[2].split()).partition(". ")[0].rstrip(".")
        found |= {name.strip(): sentence for name in match[1].split(",")}
    return found

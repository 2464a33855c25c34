"""One setting of a dataclass: its default, its meaning and the values that it may have."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf


class ConfigError(ValueError):
    """A setting that does not exist, has the wrong type or contradicts another."""


def setting(
    default: Any,
    meaning: str,
    *,
    choices: Sequence[Any] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    role: str | None = None,
) -> Any:
    """Field of a dataclass with what the command line, the documentation and the checks need of it.

    Parameters
    ----------
    default : object
        Lists and dictionaries are copied for every instance.
    meaning : str
        One line, with the unit.
    choices : sequence, optional
        Valid values; None is valid where it is one of them or the default.
    at_least, above, at_most, below : float, optional
        Limits of a number, or of each number of a list.
    role : {"path", "label"}, optional
        ``~`` is expanded in a path; a label is compared with the text of a table.
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    metadata = {"meaning": meaning, "choices": tuple(choices), "limits": limits, "role": role}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_values(section: Any, where: str) -> None:
    """Refuse values that are not among the choices or exceed the limits of their fields.

    Parameters
    ----------
    section : dataclass instance
        Its fields are made with `setting`.
    where : str
        Dotted name of the section, such as ``"evaluation.group"``.

    Raises
    ------
    ConfigError
        One line that names the setting, its value and the valid ones.
    """
    for each in fields(section):
        value, choices = getattr(section, each.name), each.metadata.get("choices", ())
        if value is None and (each.default is None or None in choices):
            continue
        name = f"{where}.{each.name}={value}"
        if choices and value not in choices:
            known = ", ".join(str(choice) for choice in choices if choice is not None)
            raise ConfigError(f"{name}: one of {known} is needed")
        limits = {key: limit for key, limit in each.metadata.get("limits", {}).items() if limit is not None}
        for number in value if isinstance(value, list) else [value]:
            if limits and not _is_within(number, **limits):
                raise ConfigError(f"{name}: {_describe(**limits)} is needed")


def _is_within(
    value: float,
    at_least: float = float("-inf"),
    above: float = float("-inf"),
    at_most: float = float("inf"),
    below: float = float("inf"),
) -> bool:
    return at_least <= value <= at_most and above < value < below


def _describe(**limits: float) -> str:
    if {"above", "below"} <= set(limits):
        return f"a number between {limits['above']:g} and {limits['below']:g}"
    words = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}
    return ", ".join(f"{words[key]} {limit:g}" for key, limit in limits.items())


def free_names() -> DictConfig:
    """Names and values of any kind."""
    return DictConfig({}, flags={"struct": False})


def plain_mapping(section: Any, name: str, where: str, example: str) -> None:
    """Make the field a dict, or refuse a value that is not one."""
    value = getattr(section, name)
    if isinstance(value, DictConfig):
        value = OmegaConf.to_container(value)
    if not isinstance(value, dict):
        raise ConfigError(f"{where}.{name}={value}: names and values are needed, as in {{{example}}}")
    setattr(section, name, value)

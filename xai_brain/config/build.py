"""Settings made of explicit arguments: what the objects pass on to the functions that take settings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xai_brain.config.checks import editable, read_config
from xai_brain.config.compose import compose, conf_dir, format_config_error
from xai_brain.config.overrides import finish
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError

MAX_LISTED = 30  # names in a message
FREE_SECTIONS = ("attribution", "baselines", "model", "data.cohort")  # sections without a schema


def valid_choice(what: str, value: object, valid: Iterable[object]) -> None:
    """Refuse a name that does not exist.

    Raises
    ------
    ConfigError
        One line that lists the valid names.

    Examples
    --------
    >>> valid_choice("grid", "t1w_3mm", ["t1w_2mm", "t1w_4mm"])
    Traceback (most recent call last):
    xai_brain.config.setting.ConfigError: there is no grid 't1w_3mm'; there are t1w_2mm, t1w_4mm
    """
    valid = list(valid)
    if value in valid:
        return
    names = [str(name) for name in valid]
    more = len(names) - MAX_LISTED
    if more > 0:  # the most similar ones first
        near = _similar(str(value), names)
        near += [name for name in names if name not in near]
        names = [*near[:MAX_LISTED], f"{more} more"]
    raise ConfigError(f"there is no {what} {value!r}; there are {', '.join(names) or 'none'}")


def _similar(value: str, names: list[str]) -> list[str]:
    """Names that contain a value or resemble it; case and signs do not count."""
    folded = {name: "".join(filter(str.isalnum, name.lower())) for name in names}
    wanted = "".join(filter(str.isalnum, value.lower()))
    near = difflib.get_close_matches(wanted, folded.values(), n=5)
    return [name for name in names if wanted in folded[name] or folded[name] in near]


def choices_of(group: str) -> list[str]:
    """Names of the files of one group of choices, such as ``model``.

    Examples
    --------
    >>> choices_of("planted")
    ['atrophy', 'expansion', 'intensity', 'lesion', 'none']
    """
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def build_settings(choices: Mapping[str, str], values: Mapping[str, Any]) -> Config:
    """Complete and checked settings.

    Parameters
    ----------
    choices : mapping of group to name
        Such as ``{"model": "kan2020"}``.
    values : mapping of dotted name to value
        Such as ``{"trainer.max_epochs": 2}``; values are taken literally.

    Raises
    ------
    ConfigError
        A choice or setting does not exist, has the wrong type or contradicts another.
    """
    for group, name in choices.items():
        valid_choice(group, name, choices_of(group))
    cfg = compose("run", [f"{group}={name}" for group, name in choices.items()], checked=False)
    return _read_changed(cfg, values)


def change_settings(config: Config, values: Mapping[str, Any]) -> Config:
    """The same settings with other values by dotted name; methods and networks are replaced as a whole.

    Raises
    ------
    ConfigError
    """
    return _read_changed(editable(config), values)


def _read_changed(cfg: DictConfig, values: Mapping[str, Any]) -> Config:
    try:
        for key, value in values.items():
            section, _, name = key.rpartition(".")
            if section not in FREE_SECTIONS:
                known = OmegaConf.select(cfg, section) if section else cfg
                valid_choice(f"setting in {section or 'the settings'}:", name, known or ())
            there = OmegaConf.select(cfg, key)
            typed = isinstance(there, DictConfig) and OmegaConf.get_type(there) not in (dict, None)
            OmegaConf.update(cfg, key, value, merge=typed and isinstance(value, dict), force_add=True)
        finish(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(format_config_error(error, "run", [])) from error
    return read_config(cfg)


@cache
def method_files() -> dict[str, str]:
    """Methods of ``conf/attribution``: label (GradCAM) to the name of the file of its usual settings."""
    found: dict[str, str] = {}
    for name in sorted(choices_of("attribution"), key=len):  # the quick variants have longer names
        for label in OmegaConf.load(conf_dir() / "attribution" / f"{name}.yaml"):
            found.setdefault(str(label), name)
    return found


def similar_method_file(label: str, settings: Mapping[str, Any]) -> str | None:
    """The file of ``conf/attribution`` for a label whose settings agree most with given ones, if any."""
    agreement: dict[str, int] = {}
    for name in sorted(choices_of("attribution"), key=len):  # the usual settings before the quick ones
        content = OmegaConf.to_container(OmegaConf.load(conf_dir() / "attribution" / f"{name}.yaml"))
        if isinstance(content, dict) and label in content:
            known = content[label]
            agreement[name] = sum(known.get(key) == value for key, value in settings.items())
    return max(agreement, key=lambda name: agreement[name]) if agreement else None


def read_baselines(names: Sequence[str]) -> dict[str, Any]:
    """Settings of baselines of ``conf/baselines`` by name.

    Raises
    ------
    ConfigError
        There is no such baseline; the valid names are listed.

    Examples
    --------
    >>> list(read_baselines(["linear_svm", "pca_logistic"]))
    ['linear_svm', 'pca_logistic']
    """
    found: dict[str, Any] = {}
    for name in names:
        valid_choice("baseline", name, choices_of("baselines"))
        content = OmegaConf.to_container(OmegaConf.load(conf_dir() / "baselines" / f"{name}.yaml"))
        assert isinstance(content, dict)
        found |= {str(label): settings for label, settings in content.items()}
    return found


def read_method(name: str) -> dict[str, dict[str, Any]]:
    """Settings of a method by its label (GradCAM) or the name of its file (grad_cam).

    Returns
    -------
    dict
        Label to settings.

    Raises
    ------
    ConfigError
        There is no such method; the valid names are listed.
    """
    by_label = method_files()
    file = by_label.get(name, name)
    if file not in choices_of("attribution"):
        valid_choice("method", name, sorted(by_label))
    content = OmegaConf.to_container(OmegaConf.load(conf_dir() / "attribution" / f"{file}.yaml"))
    assert isinstance(content, dict)
    return {str(label): dict(settings) for label, settings in content.items()}

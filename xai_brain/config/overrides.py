"""Values of settings on the command line: paths, labels and other texts are taken literally.

Hydra reads a value by a grammar of its own, in which ``TRUE`` is a boolean, ``1`` a number, and ``(``, ``=``,
``&``, quotes and umlauts are errors. The schema (`xai_brain.config.schema`) states which settings are texts.
"""

from __future__ import annotations

import re
import types
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError

QUOTES = ("'", '"')
# Arguments of networks, methods and baselines, whose dictionaries have no schema.
UNTYPED = ("model", "attribution", "baselines")
UNTYPED_PATHS = ("weights", "labels_img", "table", "mask_img")
SWEEP_FUNCTION = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\(.*\)")


@dataclass(frozen=True)
class Text:
    """What the schema says of a setting that is a text."""

    is_list: bool = False
    is_path: bool = False
    is_label: bool = False


@cache
def text_settings() -> dict[str, Text]:
    """Settings of the schema that are texts or lists of texts, by dotted name."""
    found: dict[str, Text] = {}

    def walk(schema: type, prefix: str) -> None:
        hints = get_type_hints(schema)
        for field in fields(schema):
            kind, name = hints[field.name], f"{prefix}{field.name}"
            if get_origin(kind) in (Union, types.UnionType):  # str | None
                (kind,) = (each for each in get_args(kind) if each is not type(None))
            if is_dataclass(kind):
                assert isinstance(kind, type)
                for each in (kind, *kind.__subclasses__()):
                    walk(each, f"{name}.")
            is_list = get_origin(kind) is list
            of = get_args(kind)[0] if is_list else kind
            role = field.metadata.get("role")
            if of is str or role is not None:
                found[name] = Text(is_list, role == "path", role == "label")

    walk(Config, "")
    return found


def text_setting(key: str) -> Text | None:
    """What a setting is by its dotted name; None where its value is not a text."""
    known = text_settings()
    first, _, last = key.partition(".")[0], "", key.rpartition(".")[2]
    if first in UNTYPED and last in UNTYPED_PATHS:
        return Text(is_path=True)
    parent = known.get(key.rpartition(".")[0])  # data.entities.run
    return known.get(key) or (parent if parent is not None and not parent.is_list else None)


def literal(override: str, multirun: bool = False) -> str:
    """An override in Hydra's grammar whose text is what was written; applied twice it changes nothing.

    Parameters
    ----------
    override : str
        ``key=value``. A value in quotes is the text between them; ``null`` is no value.
    multirun : bool, default False
        Whether commas separate the values of several jobs.

    Raises
    ------
    ConfigError
        A list without brackets, or a path with a comma that is not quoted in a sweep.
    """
    key, equals, value = override.partition("=")
    if not equals or key.startswith(("~", "-")):
        return override
    name = key.lstrip("+")
    if (text := text_setting(name)) is None or value.startswith("{"):
        return override if _is_grammatical(override) else f"{key}={quoted(value)}"
    if not multirun:
        return f"{key}={_literal_value(name, value, text)}"
    if SWEEP_FUNCTION.fullmatch(value):
        return override
    values = split_commas(value)
    if len(values) > 1 and text.is_path and Path(value).expanduser().exists():
        raise ConfigError(
            f"{override}: in a sweep (-m) commas separate values; put the path into quotes of its own: "
            f"""'{key}="{value}"'"""
        )
    return f"{key}={','.join(_literal_value(name, each, text) for each in values)}"


def quoted(value: str) -> str:
    """The text in quotes of Hydra's grammar."""
    value = re.sub(r"(\\*)'", lambda found: 2 * found[1] + r"\'", value)
    return "'" + re.sub(r"(\\+)$", lambda found: 2 * found[1], value) + "'"


def unquoted(value: str) -> str:
    """The text between quotes; a value that is not in quotes as it is."""
    if value[:1] not in QUOTES or value[-1:] != value[:1]:
        return value
    try:
        parsed = OverridesParser.create().parse_override(f"key={value}")._value
    except HydraException:
        return value
    return parsed.text if isinstance(parsed, QuotedString) else value


def split_commas(value: str) -> list[str]:
    """Values between commas, without those inside brackets and quotes.

    A quote counts where a value begins with it and ends with it, so that O'Brien is a value.
    """
    if value.count(",") == 0:
        return [value]
    text = r"\s*(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\s*"
    many = rf"\[(?:{text}|[^\],]*)(?:,(?:{text}|[^\],]*))*\]"
    return [found[0] for found in re.finditer(rf"(?<![^,])(?:{text}|{many}|[^,]*)(?=,|$)", value)]


def all_values(override: str) -> list[str]:
    """The overrides of the jobs that one override of a sweep asks for; of an interval only its start."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except Exception:  # compose reports the error
        return [override]
    if not parsed.is_sweep_override():
        return [override]
    key = override.split("=")[0]
    if isinstance(value := parsed.value(), IntervalSweep):
        return [f"{key}={value.start}"]
    return [f"{key}={each}" for each in parsed.sweep_string_iterator()]


def first_value(override: str) -> str:
    """An override of a sweep with its first value, to be checked before any job starts."""
    return all_values(override)[0]


def finish(cfg: DictConfig) -> None:
    """Expand ``~`` in paths, and make labels texts, also those that come from YAML files.

    Raises
    ------
    ConfigError
        A label that YAML has read as a boolean: how it was written is not known any more.
    """
    for name, text in text_settings().items():
        if OmegaConf.is_missing(cfg, name.partition(".")[0]):  # no choice was made, as of data
            continue
        value = OmegaConf.select(cfg, name, default=None)
        if value is None or not (text.is_path or text.is_label):
            continue
        if isinstance(value, DictConfig):
            for key, each in value.items():
                value[key] = _finished(f"{name}.{key!s}", each, text)
        elif isinstance(value, ListConfig):
            OmegaConf.update(cfg, name, [_finished(name, each, text) for each in value], merge=False)
        else:
            OmegaConf.update(cfg, name, _finished(name, value, text), merge=False)


def _finished(name: str, value: Any, text: Text) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        raise ConfigError(
            f"{name}={value}: YAML reads yes, no, true and TRUE as booleans; write the label in quotes, as "
            'in "TRUE"'
        )
    return expanded(str(value)) if text.is_path else str(value)


def expanded(path: str) -> str:
    """A path with the home folder in place of ``~``."""
    return str(Path(path).expanduser()) if path.startswith("~") else path


def _literal_value(key: str, value: str, text: Text) -> str:
    if value == "null":
        return value
    if not text.is_list:
        return _literal_text(value, text)
    if not (value.startswith("[") and value.endswith("]")):
        raise ConfigError(f"{key}={value}: a list is needed, {key}=[{value}]")
    values = split_commas(value[1:-1]) if value[1:-1].strip() else []
    return f"[{','.join(_literal_text(each.strip(), text) for each in values)}]"


def _literal_text(value: str, text: Text) -> str:
    value = unquoted(value)
    if text.is_path:
        value = expanded(value)
    return value if _means_itself(value) else quoted(value)


def _means_itself(value: str) -> bool:
    """Whether Hydra reads a value as the text that it is; with blanks it does so only without a sweep."""
    if not re.fullmatch(r"[A-Za-z0-9_./:*?%+-]+", value):
        return False
    return OverridesParser.create().parse_override(f"key={value}").value() == value


def _is_grammatical(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True

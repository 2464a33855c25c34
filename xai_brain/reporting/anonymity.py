"""Anonymised reports: pseudonyms of participants; texts without identifiers, paths, user and host names."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from random import SystemRandom
from typing import Any

import pandas as pd

from xai_brain.config.checks import SECTIONS
from xai_brain.config.data import DataConfig
from xai_brain.config.schema import Config
from xai_brain.runs.directory import RunDirectory, read_tsv, write_tsv

HIDDEN_PATH = "<path>"
ADDRESSES = ("data.url",)
GENERIC_NAMES = (
    "root",
    "user",
    "home",
    "data",
    "admin",
    "localhost",
)  # common words of settings
# an absolute path (/a/b, ~/a, C:\a, \\host\a), an address, a relative path to a file, a name of an image
PATH = re.compile(
    r"""\w+://[^\s'"<>]+ | (?<![\w.<)])(?:~|[A-Za-z]:)?[/\\]{1,2}\w[^\s'",;:<>]*
    | [\w.-]+(?:[/\\][\w.@+-]+)+\.\w+ | [\w-]+(?:\.[\w-]+)*\.(?:nii|mgz|mgh|img|hdr)(?:\.gz)?\b""",
    re.VERBOSE,
)


class Anonymity:
    """Replaces identifiers and paths in the texts of one run.

    Parameters
    ----------
    pseudonyms : mapping of str to str
        From `draw_pseudonyms`.
    folders : iterable of str or Path
        Folders that are removed from texts even where their names contain spaces.
    """

    def __init__(self, pseudonyms: Mapping[str, str], folders: Iterable[str | Path] = ()):
        self.pseudonyms = dict(pseudonyms)
        # the longest first, because one folder may contain another
        self._folders = sorted({str(folder) for folder in folders if len(str(folder)) > 2}, key=len)[::-1]

    @cached_property
    def _names(self) -> dict[str, str]:
        """Identifiers, also without ``sub-`` where they are not just a number or a word."""
        bare = {key.removeprefix("sub-"): name for key, name in self.pseudonyms.items()}
        bare = {
            key: name for key, name in bare.items() if re.search(r"[A-Za-z]", key) and re.search(r"\d", key)
        }
        own = {getpass.getuser(): "<user>", socket.gethostname(): "<host>"}
        own = {name: shown for name, shown in own.items() if len(name) > 1 and name not in GENERIC_NAMES}
        return {**own, **bare, **self.pseudonyms}

    @cached_property
    def _identifiers(self) -> re.Pattern[str]:
        names = "|".join(re.escape(name) for name in sorted(self._names, key=len, reverse=True))
        return re.compile(rf"(?<![A-Za-z0-9])(?:{names or '(?!)'})(?![A-Za-z0-9])")

    def clean(self, text: str) -> str:
        """The text with pseudonyms, and without paths."""
        for folder in self._folders:
            text = text.replace(folder, "/path")
        text = PATH.sub(HIDDEN_PATH, text)
        return self._identifiers.sub(lambda match: self._names[match[0]], text)

    def clean_settings(self, settings: Any, prefix: str = "") -> Any:
        """Settings in which values that are paths or addresses are hidden."""
        if isinstance(settings, dict):
            return {key: self.clean_settings(value, f"{prefix}{key}.") for key, value in settings.items()}
        if isinstance(settings, list):
            return [self.clean_settings(value, prefix) for value in settings]
        if not isinstance(settings, str):
            return settings
        name = prefix.removesuffix(".")
        is_atlas = name == "evaluation.atlas" and re.fullmatch(r"\w+", settings)  # a name, e.g. aal
        if (name in path_settings() and not is_atlas) or name in ADDRESSES:
            return HIDDEN_PATH
        return self.clean(settings)


def path_settings() -> set[str]:
    """Dotted names of the settings that are paths."""
    sections = {"": Config, "data.": DataConfig, **{f"{name}.": schema for name, schema in SECTIONS.items()}}
    return {
        f"{section}{each.name}"
        for section, schema in sections.items()
        for each in fields(schema)
        if each.metadata.get("role") == "path"
    }


def draw_pseudonyms(run: RunDirectory, participant_ids: Sequence[str]) -> dict[str, str]:
    """Pseudonyms ``sub-001``, ``sub-002``, ... of participants in random order.

    The order is drawn once from the random source of the operating system and kept in pseudonyms.tsv of the
    run, so that it cannot be derived from the identifiers and all reports of a run use the same names.
    Participants that are added later get further numbers.

    Parameters
    ----------
    run : RunDirectory
    participant_ids : sequence of str

    Returns
    -------
    dict of participant_id to pseudonym
    """
    known: dict[str, str] = {}
    if run.pseudonyms.exists():
        known = read_tsv(run.pseudonyms).set_index("participant_id")["pseudonym"].to_dict()
    new = sorted(set(participant_ids) - set(known))
    if not new:
        return known
    SystemRandom().shuffle(new)
    numbers = range(len(known) + 1, len(known) + len(new) + 1)
    drawn = [f"sub-{number:03d}" for number in numbers]
    everyone = {*known, *new}
    if everyone & {*drawn, *known.values()}:  # a pseudonym must not be another participant's identifier
        drawn = [f"sub-anon{number:03d}" for number in numbers]
    pseudonyms = {**known, **dict(zip(new, drawn, strict=True))}
    table = pd.DataFrame({"participant_id": list(pseudonyms), "pseudonym": list(pseudonyms.values())})
    write_tsv(table.sort_values("participant_id"), run.pseudonyms)
    return pseudonyms

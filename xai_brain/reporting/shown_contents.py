"""Names, texts and files of a run as a report shows them: with or without identifiers and paths."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import pandas as pd
import yaml

from xai_brain.io.text_tables import read_text
from xai_brain.reporting.anonymity import Anonymity, draw_pseudonyms
from xai_brain.runs.contents import RunContents
from xai_brain.runs.group_maps import find_group_maps


class ShownContents(RunContents):
    """Contents of a run, with pseudonyms instead of identifiers if ``report.anonymise`` is set.

    Parameters
    ----------
    run : RunDirectory
    """

    @cached_property
    def anonymity(self) -> Anonymity | None:
        """Replacement of identifiers and paths; None unless ``report.anonymise`` is set."""
        if not self.setting("report.anonymise", False):
            return None
        tables = map(self.table, (self.run.participants, self.run.predictions, self.run.quarantine))
        ids = {
            str(name)
            for t in tables
            if t is not None and "participant_id" in t
            for name in t["participant_id"]
        }
        ids |= {
            folder.name for folder in (self.run.path / "attributions").glob("**/sub-*") if folder.is_dir()
        }
        known = (self.setting("data.root"), self.setting("data.cache_dir"), self.run.path, Path.home())
        folders = [Path(folder) for folder in known if folder]
        return Anonymity(draw_pseudonyms(self.run, sorted(ids)), [*folders, self.run.path.resolve()])

    def shown_name(self, participant_id: str) -> str:
        """The participant's identifier, or pseudonym, for people."""
        return self.anonymity.pseudonyms[participant_id] if self.anonymity else participant_id

    def shown_session(self, participant_id: str, session_id: str | None) -> str:
        """The session; in an anonymised report, where it may be a date, its number."""
        if not self.anonymity or not session_id or self.participants is None:
            return session_id or ""
        own = self.participants[self.participants["participant_id"] == participant_id]
        return f"ses-{1 + sorted(own['session_id']).index(session_id)}"

    def _in_shown_order(self, table: pd.DataFrame | None) -> pd.DataFrame | None:
        """Rows in the order of the pseudonyms, because points of figures are drawn in the order of rows."""
        if table is None or self.anonymity is None or "participant_id" not in table:
            return table
        return table.sort_values("participant_id", key=lambda ids: ids.map(self.shown_name), kind="stable")

    @cached_property
    def participants(self) -> pd.DataFrame | None:
        return self._in_shown_order(self.table(self.run.participants))

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        return self._in_shown_order(self.table(self.run.predictions))

    @cached_property
    def settings_text(self) -> str:
        """Text of config.yaml; empty if it does not exist."""
        if not self.run.config.exists():
            return ""
        if self.anonymity is None:
            return read_text(self.run.config)
        return yaml.safe_dump(self.anonymity.clean_settings(self.config), sort_keys=False)

    def files(self, *patterns: str) -> list[str]:
        """Existing files and folders of the run, relative to it; none for an anonymised report.

        Parameters
        ----------
        patterns : str
            As in `pathlib.Path.glob`.
        """
        if self.anonymity:
            return []
        found = [path for pattern in patterns for path in sorted(self.run.path.glob(pattern))]
        return [path.relative_to(self.run.path).as_posix() + "/" * path.is_dir() for path in found]

    def group_files(self, method: str, quantity: str, statistic: str) -> list[str]:
        """Existing group maps, as `files`; the arguments are patterns of `find_group_maps`."""
        found = find_group_maps(self.run, method, [quantity], statistic)
        return self.files(*(each.path.relative_to(self.run.path).as_posix() for each in found))

    def clean(self, text: object) -> str:
        """Text without the paths of the run and of the home folder, or anonymised."""
        text = str(text)
        if self.anonymity:
            return self.anonymity.clean(text)
        for folder, name in (
            (self.run.path.resolve(), "<run_dir>"),
            (self.run.path, "<run_dir>"),
            (Path.home(), "~"),
        ):
            if "/" in folder.as_posix()[1:]:  # not a single word, such as a run in the current folder
                text = re.sub(rf"(?<![\w./-]){re.escape(str(folder))}(?![\w-])", name, text)
        return text

"""Contents of a run directory: settings, tables and map files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from xai_brain.io.nifti import parse_entities
from xai_brain.io.text_tables import read_text
from xai_brain.runs.directory import CHANNEL, RunDirectory, first_repeat, read_json, read_tsv, sidecar
from xai_brain.runs.group_maps import find_group_maps

TRUTH = "truth"  # in place of a method in names of group maps: the mean of planted effects
IMAGE = "image"  # in place of a method: the prepared images, compared between classes like maps


class RunContents:
    """Contents of a run; results that do not exist are None or empty.

    Parameters
    ----------
    run : RunDirectory
    """

    def __init__(self, run: RunDirectory):
        self.run = run

    # -- settings ------------------------------------------------------------------------------
    @cached_property
    def config(self) -> dict[str, Any]:
        """Settings of the run as nested dictionaries."""
        return (yaml.safe_load(read_text(self.run.config)) or {}) if self.run.config.exists() else {}

    def setting(self, dotted: str, default: Any = None) -> Any:
        """A value of the settings by its dotted name; `default` if it is absent or null."""
        value: Any = self.config
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return default if value is None else value

    # -- tables --------------------------------------------------------------------------------
    def table(self, path: Path) -> pd.DataFrame | None:
        """A table with at least one row, otherwise None."""
        if not path.exists() or not read_text(path).strip():
            return None
        table = read_tsv(path)
        return None if table.empty else table

    @cached_property
    def participants(self) -> pd.DataFrame | None:
        return self.table(self.run.participants)

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        return self.table(self.run.predictions)

    @cached_property
    def metrics(self) -> dict[str, float]:
        return read_json(self.run.metrics) if self.run.metrics.exists() else {}

    def evaluation(self, name: str) -> pd.DataFrame | None:
        return self.table(self.run.evaluation(name))

    @cached_property
    def curves(self) -> pd.DataFrame | None:
        """Training curves of all folds and seeds: run, epoch, metric, value."""
        found = sorted((self.run.path / "checkpoints").glob("*fold-*.tsv"))
        files = [file for file in found if re.fullmatch(r"(seed-\d+_)?fold-\d+", file.stem)]
        tables = [table.assign(run=file.stem) for file in files if (table := self.table(file)) is not None]
        return pd.concat(tables, ignore_index=True) if tables else None

    # -- maps ----------------------------------------------------------------------------------
    @cached_property
    def explained(self) -> pd.DataFrame:
        """Images that can have maps: predictions of the first repeat, else participants.

        Columns as in the table, with session_id (empty where there is none) and seed.
        """
        table = self.predictions
        table = self.participants if table is None else first_repeat(table)
        if table is None or "participant_id" not in table:
            folders = sorted((self.run.path / "attributions").glob("sub-*"))
            table = pd.DataFrame({"participant_id": [folder.name for folder in folders]}, dtype=str)
        missing = {"session_id": "", "seed": self.run.seeds[0]}
        return table.assign(**{key: value for key, value in missing.items() if key not in table})

    @cached_property
    def methods(self) -> list[str]:
        """Methods with maps: those of the settings in their order, then others of the first participant."""
        known = [*(self.setting("attribution") or {}), *(self.setting("imported_methods") or [])]
        folder = self.run.path / "attributions"
        found = [str(name) for name in known if any(folder.rglob(f"*_desc-{name}_attribution.nii.gz"))]
        if len(self.explained):
            first = self.explained.iloc[0]
            path = self.run.attribution(first["participant_id"], first["session_id"], "any", first["seed"])
            others = {parse_entities(each).get("desc", "") for each in path.parent.glob("*_attribution.nii*")}
            found += sorted(name for name in others - {*found, ""} if CHANNEL not in name)
        return found

    @cached_property
    def channels(self) -> list[str]:
        """Names of the channels of the inputs; empty for inputs with one channel."""
        maps = (path for _, row in self.explained.iterrows() for path in self._maps_of_row(row).values())
        first = next((path for path in maps if sidecar(path).exists()), None)
        names = (read_json(sidecar(first)).get("Channels") or []) if first is not None else []
        return [str(name) for name in names] if len(names) > 1 else []

    def _maps_of_row(self, row: pd.Series) -> dict[str, Path]:
        return self.maps_of(row["participant_id"], row["session_id"], row["seed"])

    def maps_of(self, participant_id: str, session_id: str, seed: int) -> dict[str, Path]:
        """Map files of one image and network, by method."""
        paths = {
            method: self.run.attribution(participant_id, session_id, method, seed) for method in self.methods
        }
        return {method: path for method, path in paths.items() if path.exists()}

    def map_rows(self, methods: list[str]) -> Iterator[dict[str, Any]]:
        """Rows of the maps of some methods, for maps that have a sidecar.

        Yields
        ------
        dict
            participant_id, session_id, seed, fold, label (true class), method, path and file_state (size and
            modification time of the file).
        """
        labels: dict[Any, Any] = {}
        if self.participants is not None:
            labels = self.participants.set_index(["participant_id", "session_id"])["label"].to_dict()
        for row in self.explained.assign(**({} if "fold" in self.explained else {"fold": 0})).itertuples():
            about = {"participant_id": row.participant_id, "session_id": row.session_id, "seed": row.seed}
            about |= {"fold": row.fold, "label": labels.get((row.participant_id, row.session_id))}
            for method in methods:
                path = self.run.attribution(row.participant_id, row.session_id, method, row.seed)
                if path.exists() and sidecar(path).exists():
                    state = path.stat()
                    yield {
                        **about,
                        "method": method,
                        "path": path,
                        "file_state": f"{state.st_size} {state.st_mtime_ns}",
                    }

    @cached_property
    def group_maps(self) -> dict[tuple[str, str], dict[str, Path]]:
        """Group maps: (quantity, statistic), such as ``("class-male", "mean")``, to method to path."""
        found: dict[tuple[str, str], dict[str, Path]] = {}
        for each in find_group_maps(self.run):
            if each.method != TRUTH:
                found.setdefault((each.quantity, each.statistic), {})[each.method] = each.path
        return found

    @property
    def group_truth(self) -> Path | None:
        """Mean of the planted effects."""
        path = self.run.group_map(TRUTH, "class-all", "mean")
        return path if path.exists() else None

    def prepared_images(self, at_most: int) -> list[Path]:
        """The first prepared T1 images."""
        return sorted((self.run.path / "images").glob("*_desc-prepared_T1w.nii.gz"))[:at_most]

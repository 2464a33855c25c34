"""Catalogue of the participants and group maps of a run, with their files. Only tables are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import yaml

from xai_brain.io.nifti import parse_entities
from xai_brain.io.text_tables import read_text
from xai_brain.runs.directory import RunDirectory, first_repeat, read_tsv
from xai_brain.task.build import task_of_table
from xai_brain.task.protocol import Task

Image = str | Path | nib.Nifti1Image
N_BEHIND_GROUP = 8  # number of prepared images whose mean is the background of a group map


@dataclass(frozen=True)
class Entry:
    """An entry of the list: a participant (of one seed) or group maps."""

    name: str  # participant_id, or quantity and statistic of a group map
    text: str
    session_id: str = ""
    seed: int = 0
    fold: int | None = None
    label: str | None = None
    predicted: str | None = None
    probability: float | None = None  # of the predicted class
    explained: str | None = None  # class that the maps explain
    group: bool = False

    @property
    def correct(self) -> bool | None:
        return None if self.label is None or self.predicted is None else self.label == self.predicted


@dataclass(frozen=True)
class Images:
    """Files or images of one entry; several backgrounds are averaged.

    `orientation` applies to files without orientation, see `xai_brain.io.orientation`.
    """

    title: str
    background: list[Image]
    maps: Mapping[str, Image]
    truth: Image | None = None
    orientation: str | None = None


@dataclass(frozen=True)
class GivenImages:
    """A catalogue with one entry, made from given images."""

    images: Images
    messages: list[str] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        return [Entry(self.images.title, self.images.title)]

    @property
    def methods(self) -> list[str]:
        return list(self.images.maps)

    def images_of(self, entry: Entry) -> Images:
        return self.images


class RunCatalogue:
    """Participants and group maps of a run directory; all files are optional.

    Parameters
    ----------
    run : RunDirectory
    """

    def __init__(self, run: RunDirectory):
        self.run = run
        self.messages: list[str] = []
        self.config = self._read_config()
        seeds = self.config.get("seeds") or [0]
        self.seeds: list[int] = list(seeds)
        self.space = self._space()
        self.group = self._group_maps()
        self.entries = [*self._subjects(), *self._group_entries()]
        self.methods = self._methods()
        if not self.entries:
            self.messages.append(f"{run.path.name or run.path}: there is no run with maps here")

    def images_of(self, entry: Entry) -> Images:
        if entry.group:
            behind = sorted((self.run.path / "images").glob("*_desc-prepared_T1w.nii.gz"))[:N_BEHIND_GROUP]
            truth = self.run.group_map("truth", "class-all", "mean")
            maps = self.group[entry.name]
            return Images(entry.text, list(behind), dict(maps), truth if truth.exists() else None)
        session = entry.session_id or None
        truth = self.run.image(entry.name, session, self.space, "mask")
        return Images(
            entry.text,
            [self.run.image(entry.name, session, self.space)],
            {method: self._map(entry, method) for method in self.methods},
            truth if truth.exists() else None,
        )

    def _map(self, entry: Entry, method: str) -> Path:
        session = entry.session_id or None
        return self.run.attribution(entry.name, session, self.space, method, entry.seed, self.seeds)

    # -- tables --------------------------------------------------------------------------------
    def _read_config(self) -> dict[str, Any]:
        try:
            return yaml.safe_load(read_text(self.run.config)) or {}
        except FileNotFoundError:
            return {}
        except (OSError, yaml.YAMLError) as error:
            self.messages.append(f"config.yaml cannot be read: {str(error).splitlines()[0]}")
            return {}

    def _table(self, path: Path) -> pd.DataFrame:
        try:
            return read_tsv(path)
        except FileNotFoundError:
            return pd.DataFrame()
        except (OSError, ValueError) as error:
            self.messages.append(f"{path.name} cannot be read: {str(error).splitlines()[0]}")
            return pd.DataFrame()

    def _space(self) -> str:
        for folder in ("images", "attributions"):
            for path in (self.run.path / folder).rglob("*_space-*.nii.gz"):
                return parse_entities(path)["space"]  # all maps are in the same space
        return "MNI152"

    def _subjects(self) -> list[Entry]:
        table = first_repeat(self._table(self.run.predictions))
        if table.empty:
            table = self._table(self.run.participants)
        if "participant_id" not in table:
            folders = sorted((self.run.path / "attributions").glob("sub-*"))
            table = pd.DataFrame({"participant_id": [folder.name for folder in folders]})
        task = task_of_table(self.config.get("task"), table.columns)
        rows = table.sort_values("participant_id", kind="stable").to_dict("records")
        return [self._entry(row, task) for row in rows]

    def _entry(self, row: dict[str, Any], task: Task) -> Entry:
        label, predicted, probability = str(row["label"]) if "label" in row else None, None, None
        if task.names:
            values = np.array([[row[column] for column in task.columns]], float)
            label = task.labels_of(np.array([row["target"]]))[0] if "target" in row else label
            predicted = task.predicted_labels(values)[0]
            probability = float(values.max()) if task.has_classes else None
        rule = (self.config.get("explain") or {}).get("target", "predicted")
        session, seed = str(row.get("session_id") or ""), int(row.get("seed", self.seeds[0]))
        fold = int(row["fold"]) if "fold" in row else None
        parts = [str(row["participant_id"]), session]
        if predicted:
            sign = ("✓" if label == predicted else "✗") if label and task.has_classes else ""
            how_sure = "" if probability is None else f"{probability:.2f} {sign}"
            parts.append(f"{label or ''} → {predicted} {how_sure}".strip())
        elif label:
            parts.append(label)
        if "n_networks" in row:
            parts.append(f"{row['n_networks']} networks")
        elif fold is not None:
            parts.append(f"fold {fold}")
        if len(self.seeds) > 1:
            parts.append(f"seed {seed}")
        return Entry(
            str(row["participant_id"]),
            " · ".join(part for part in parts if part),
            session, seed, fold, label, predicted, probability,
            {"predicted": predicted, "true": label}.get(rule, str(rule)),
        )  # fmt: skip

    # -- groups and methods --------------------------------------------------------------------
    def _group_maps(self) -> dict[str, dict[str, Path]]:
        """Group maps: (quantity, statistic) -> method -> path."""
        found: dict[str, dict[str, Path]] = {}
        for path in sorted((self.run.path / "group").glob("desc-*_stat-*_statmap.nii.gz")):
            method, rest = path.name.removeprefix("desc-").split("_", 1)
            what, stat = rest.removesuffix("_statmap.nii.gz").split("_stat-")
            if method != "truth":
                found.setdefault(f"{stat} {what.replace('-', ' ')}", {})[method] = path
        return found

    def _group_entries(self) -> list[Entry]:
        return [Entry(name, f"group · {name}", group=True) for name in self.group]

    def _methods(self) -> list[str]:
        """Methods of the settings in their order, then others of the first participant or a group."""
        configured = [str(name) for name in self.config.get("attribution") or {}]
        there = {method for maps in self.group.values() for method in maps}
        first = next((entry for entry in self.entries if not entry.group), None)
        if first:
            folder = self._map(first, "any").parent
            there |= {parse_entities(path).get("desc", "") for path in folder.glob("*_attribution.nii*")}
        return configured + sorted(there - set(configured) - {""})

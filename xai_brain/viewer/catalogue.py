"""Catalogue of the participants and group maps of a run, with their files. Only tables are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import yaml

from xai_brain.io.numbers import fixed_digits
from xai_brain.runs.contents import IMAGE, RunContents
from xai_brain.runs.directory import RunDirectory, of_channel, read_json, sidecar
from xai_brain.runs.threshold_statement import PERMUTED, reference_of
from xai_brain.task.build import task_of_table
from xai_brain.task.protocol import Task
from xai_brain.viewer.meaning import channel_text, explained_text, explained_text_of_group

Image = str | Path | nib.Nifti1Image
N_BEHIND_GROUP = 8  # number of prepared images whose mean is the background of a group map


@dataclass(frozen=True)
class Entry:
    """An entry of the list: a participant (of one seed) or group maps."""

    name: str  # participant_id, or quantity and statistic of a group map
    text: str
    session_id: str = ""
    seed: int = 0
    fold: int | None = None  # from 1
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

    `orientation` applies to files without orientation, see `xai_brain.io.orientation`. `explained` is a
    sentence about what the maps explain, `sidecars` the content of their sidecars by method, `corrected` the
    corrected thresholds of methods in units of the root mean square.
    """

    title: str
    background: list[Image]
    maps: Mapping[str, Image]
    truth: Image | None = None
    orientation: str | None = None
    explained: str = ""
    sidecars: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    corrected: Mapping[str, float] = field(default_factory=dict)


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

    channels: list[str] = field(default_factory=list)
    corrected: dict[str, float] = field(default_factory=dict)
    reference: str = PERMUTED

    def images_of(self, entry: Entry, channel: str = "") -> Images:
        return self.images


class RunCatalogue(RunContents):
    """Participants and group maps of a run; files that cannot be read are listed in `messages`.

    Parameters
    ----------
    run : RunDirectory
    """

    def __init__(self, run: RunDirectory):
        super().__init__(run)
        self.messages: list[str] = []
        self.task = task_of_table(self.setting("task"), self.explained.columns)
        self.group: dict[str, dict[str, Path]] = {}
        for (what, stat), maps in self.group_maps.items():
            if of_methods := {method: path for method, path in maps.items() if method != IMAGE}:
                self.group[f"{stat} {what.replace('-', ' ')}"] = of_methods
        self.entries = [*self._participants(), *self._group_entries()]
        if not self.entries:
            self.messages.append(f"{run.path.name or run.path}: there is no run with maps here")

    @cached_property
    def config(self) -> dict[str, Any]:
        try:
            return super().config
        except (OSError, yaml.YAMLError) as error:
            self.messages.append(f"config.yaml cannot be read: {str(error).splitlines()[0]}")
            return {}

    def table(self, path: Path) -> pd.DataFrame | None:
        try:
            return super().table(path)
        except (OSError, ValueError) as error:
            self.messages.append(f"{path.name} cannot be read: {str(error).splitlines()[0]}")
            return None

    @cached_property
    def methods(self) -> list[str]:
        """Methods with maps of participants, then those with group maps only."""
        of_groups = {method for maps in self.group.values() for method in maps}
        return [*super().methods, *sorted(of_groups - set(super().methods))]

    @cached_property
    def _thresholds(self) -> pd.DataFrame | None:
        path = self.run.evaluation("thresholds")
        return self.table(path) if path.exists() else None

    @property
    def reference(self) -> str:
        """Networks that corrected thresholds are compared with."""
        return PERMUTED if self._thresholds is None else reference_of(self._thresholds)

    @cached_property
    def corrected(self) -> dict[str, float]:
        """Corrected thresholds of the largest voxel, by method, in units of the root mean square."""
        if self._thresholds is None:
            return {}
        rows = self._thresholds[self._thresholds["statistic"] == "max"]
        return dict(zip(rows["method"], rows["threshold"].astype(float), strict=True))

    def images_of(self, entry: Entry, channel: str = "") -> Images:
        """Images of an entry.

        Parameters
        ----------
        entry : Entry
        channel : str, default ""
            One of `channels`: its image and its maps. Default: the image of the first channel
            and the sums over the channels.
        """
        if entry.group:
            behind = self.prepared_images(N_BEHIND_GROUP)
            target = str(self.setting("explain.target", "predicted"))
            number = self.task.names[0] if self.task.reported_as == "number" and self.task.names else ""
            explained = explained_text_of_group(entry.name, target, number)
            return Images(
                entry.text,
                list(behind),
                dict(self.group[entry.name]),
                self.group_truth,
                explained=explained,
            )
        session = entry.session_id or None
        truth = self.run.image(entry.name, session, "mask")
        maps = {method: self._map(entry, method, channel) for method in self.methods}
        sidecars = {method: about for method, path in maps.items() if (about := _sidecar_of(path))}
        return Images(
            f"{entry.text} · {channel}" if channel else entry.text,
            [self._image(entry, channel)],
            maps,
            truth if truth.exists() else None,
            explained=" ".join(filter(None, (explained_text(sidecars), channel_text(sidecars, channel)))),
            sidecars=sidecars,
            corrected={} if channel else self.corrected,
        )

    def _map(self, entry: Entry, method: str, channel: str) -> Path:
        """The map of a channel, if the method has one for each; otherwise the one for all."""
        session = entry.session_id or None
        paths = [self.run.attribution(entry.name, session, method, entry.seed)]
        if channel:
            own = of_channel(method, channel)
            paths.insert(0, self.run.attribution(entry.name, session, own, entry.seed))
        return next((path for path in paths if path.exists()), paths[-1])

    def _image(self, entry: Entry, channel: str) -> Path:
        """The image of a channel, that of the first if it was not written."""
        session = entry.session_id or None
        first, own = self.run.image(entry.name, session), self.run.channel_image(entry.name, session, channel)
        return own if channel in self.channels[1:] and own.exists() else first

    # -- entries -------------------------------------------------------------------------------
    def _participants(self) -> list[Entry]:
        rows = self.explained.sort_values("participant_id", kind="stable").to_dict("records")
        return [self._entry(row, self.task) for row in rows]

    def _entry(self, row: dict[str, Any], task: Task) -> Entry:
        label, predicted, probability = str(row["label"]) if "label" in row else None, None, None
        if task.names:
            values = np.array([[row[column] for column in task.columns]], float)
            label = task.labels_of(np.array([row["target"]]))[0] if "target" in row else label
            predicted = task.predicted_labels(values)[0]
            probability = float(values.max()) if task.has_classes else None
        rule = self.setting("explain.target", "predicted")
        session, seed = str(row.get("session_id") or ""), int(row.get("seed", self.run.seeds[0]))
        fold = int(row["fold"]) + 1 if "fold" in row else None
        parts = [str(row["participant_id"]), session]
        if len(self.run.seeds) > 1:
            parts.append(f"seed {seed}")
        if predicted:
            sign = ("✓" if label == predicted else "✗") if label and task.has_classes else ""
            how_sure = "" if probability is None else f"{fixed_digits(probability, 2)} {sign}"
            known = f"{label} → {predicted}" if label else f"predicted {predicted}"
            parts.append(f"{known} {how_sure}".strip())
        elif label:
            parts.append(label)
        if "n_networks" in row:
            parts.append(f"{row['n_networks']} networks")
        elif fold is not None:
            parts.append(f"fold {fold}")
        return Entry(
            str(row["participant_id"]),
            " · ".join(part for part in parts if part),
            session, seed, fold, label, predicted, probability,
            {"predicted": predicted, "true": label}.get(rule, str(rule)),
        )  # fmt: skip

    def _group_entries(self) -> list[Entry]:
        return [Entry(name, f"group · {name}", group=True) for name in self.group]


def _sidecar_of(path: Path) -> dict[str, Any]:
    """Content of the sidecar of a map; empty if it cannot be read."""
    try:
        content = read_json(sidecar(path))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

"""Contents of a run directory for the report: tables, estimates, maps. All files are optional."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from xai_brain.io.nifti import parse_entities
from xai_brain.io.text_tables import read_text
from xai_brain.reporting.values import Estimate, ShownSubject, number
from xai_brain.runs.directory import RunDirectory, first_repeat, read_json, read_tsv, sidecar
from xai_brain.task.build import task_of_table
from xai_brain.task.protocol import Task


class RunContents:
    """Contents of a run for the report; results that have not been computed are None or empty.

    Parameters
    ----------
    run : RunDirectory
    """

    def __init__(self, run: RunDirectory):
        self.run = run

    # -- settings ------------------------------------------------------------------------------
    @cached_property
    def config(self) -> dict[str, Any]:
        return (yaml.safe_load(read_text(self.run.config)) or {}) if self.run.config.exists() else {}

    def setting(self, dotted: str, default: Any = None) -> Any:
        """A value of the settings by its dotted name; `default` if it is absent or null."""
        value: Any = self.config
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return default if value is None else value

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return read_json(self.run.provenance) if self.run.provenance.exists() else {}

    @cached_property
    def seeds(self) -> list[int]:
        return list(self.setting("seeds", [0]))

    @cached_property
    def seed(self) -> int:
        """The seed whose maps are shown: the first explained seed."""
        return int((self.setting("explain.seeds") or self.seeds)[0])

    def clean(self, text: object) -> str:
        """Text in which the paths of the run and of the home folder are replaced."""
        text = str(text)
        for folder, name in (
            (self.run.path.resolve(), "<run_dir>"),
            (self.run.path, "<run_dir>"),
            (Path.home(), "~"),
        ):
            if len(str(folder)) > 2:
                text = text.replace(str(folder), name)
        return text

    # -- tables --------------------------------------------------------------------------------
    @cached_property
    def participants(self) -> pd.DataFrame | None:
        table = _table(self.run.participants)
        if table is not None and "label" in table:
            table["label"] = table["label"].astype(str)
        return table

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        return _table(self.run.predictions)

    @cached_property
    def quarantine(self) -> list[tuple[str, str]]:
        table = _table(self.run.quarantine)
        if table is None:
            return []
        name = next((c for c in ("participant_id", "path", "t1w_path") if c in table), table.columns[0])
        rows = zip(
            table[name].astype(str), table.get("reason", pd.Series("", table.index)).astype(str), strict=True
        )
        return [(Path(self.clean(what)).name, self.clean(why)) for what, why in rows]

    @cached_property
    def task(self) -> Task:
        """What the networks have learned, with the names of the predicted outputs."""
        return task_of_table(
            self.setting("task"), () if self.predictions is None else self.predictions.columns
        )

    @cached_property
    def class_names(self) -> list[str]:
        """In the order of the targets."""
        if self.predictions is not None:
            return list(self.task.names)
        if self.participants is not None and {"label", "target"} <= set(self.participants):
            return list(self.participants.sort_values("target")["label"].drop_duplicates())
        return [str(name) for name in self.setting("data.class_names", [])]

    @cached_property
    def n_networks(self) -> int | None:
        """Number of networks that are averaged for new participants; None for a run with folds."""
        predictions = self.predictions
        return (
            None
            if predictions is None or "n_networks" not in predictions
            else int(predictions["n_networks"].max())
        )

    @cached_property
    def curves(self) -> pd.DataFrame | None:
        """Training curves of all folds and seeds: run, epoch, metric, value."""
        found = sorted((self.run.path / "checkpoints").glob("*fold-*.tsv"))
        files = [file for file in found if re.fullmatch(r"(seed-\d+_)?fold-\d+", file.stem)]
        tables = [table.assign(run=file.stem) for file in files if (table := _table(file)) is not None]
        return pd.concat(tables, ignore_index=True) if tables else None

    def evaluation(self, name: str) -> pd.DataFrame | None:
        return _table(self.run.evaluation(name))

    def summary(self, table: str, metric: str | None = None) -> pd.DataFrame:
        """Rows of evaluation/summary.tsv; if it is missing, means of the tidy table without intervals."""
        rows = self.evaluation("summary")
        if rows is not None:
            rows = rows[rows["table"].astype(str).str.startswith(table)]
        if rows is None or rows.empty:
            rows = self._means(table)
        if metric is not None and not rows.empty:
            rows = rows[rows["metric"] == metric]
        return rows.drop_duplicates(["method", "metric", "top_percent"]) if not rows.empty else rows

    def _means(self, name: str) -> pd.DataFrame:
        tidy = self.evaluation(name)
        if tidy is None:
            return pd.DataFrame()
        if name == "agreement":
            tidy = tidy[tidy["level"] == "subject"].assign(
                method=lambda t: t["method_a"] + " × " + t["method_b"], participant_id=lambda t: t["name"]
            )
        else:
            tidy = tidy.assign(top_percent=np.nan)
        groups = tidy.groupby(["method", "metric", "top_percent"], dropna=False, sort=False)
        means = groups.agg(
            mean=("value", "mean"), chance=("chance", "mean"), n=("participant_id", "nunique")
        ).reset_index()
        return means.assign(ci_low=np.nan, ci_high=np.nan)

    # -- estimates -----------------------------------------------------------------------------
    @cached_property
    def metrics(self) -> dict[str, float]:
        return read_json(self.run.metrics) if self.run.metrics.exists() else {}

    def estimate(self, key: str, chance: float | None = None) -> Estimate | None:
        if (value := number(self.metrics.get(key))) is None:
            return None
        low, high = number(self.metrics.get(f"{key}_ci_low")), number(self.metrics.get(f"{key}_ci_high"))
        return Estimate(value, low, high, chance)

    @property
    def stage_seconds(self) -> dict[str, float]:
        return {k.removeprefix("seconds/"): v for k, v in self.metrics.items() if k.startswith("seconds/")}

    # -- maps ----------------------------------------------------------------------------------
    @cached_property
    def space(self) -> str:
        for folder in ("images", "attributions"):
            for path in sorted((self.run.path / folder).rglob("*_space-*.nii.gz")):
                return parse_entities(path)["space"]
        return str(self.setting("data.space", "MNI152"))

    @cached_property
    def group_maps(self) -> dict[str, dict[str, Path]]:
        """Mean map files: method -> class -> path."""
        found: dict[str, dict[str, Path]] = {}
        for path in sorted((self.run.path / "group").glob("desc-*_class-*_stat-mean_statmap.nii.gz")):
            method, name = path.name.removeprefix("desc-").split("_class-", 1)
            found.setdefault(method, {})[name.removesuffix("_stat-mean_statmap.nii.gz")] = path
        found.pop("truth", None)
        rank = {name: i for i, name in enumerate(self.class_names)}
        return {m: dict(sorted(c.items(), key=lambda item: rank.get(item[0], 99))) for m, c in found.items()}

    @property
    def group_truth(self) -> Path | None:
        path = self.run.group_map("truth", "class-all", "mean")
        return path if path.exists() else None

    @cached_property
    def methods(self) -> list[str]:
        """Methods with maps: those of the settings in their order, then imported ones."""
        there = set(self.group_maps) | {
            parse_entities(path).get("desc", "")
            for path in (self.run.path / "attributions").rglob("*_attribution.nii.gz")
        }
        configured = [str(name) for name in self.setting("attribution", {})]
        return [m for m in configured if m in there] + sorted(there - set(configured) - {""})

    def maps_of(self, participant_id: str, session_id: str | None) -> dict[str, Path]:
        paths = {
            method: self.run.attribution(
                participant_id, session_id, self.space, method, self.seed, self.seeds
            )
            for method in self.methods
        }
        return {method: path for method, path in paths.items() if path.exists()}

    @cached_property
    def explained(self) -> pd.DataFrame:
        """Predictions (or participants) of the shown seed that have maps, with the map files."""
        table = self.predictions if self.predictions is not None else self.participants
        if table is None:
            return pd.DataFrame()
        if "seed" in table and self.predictions is not None:
            table = first_repeat(table[table["seed"] == self.seed])
        sessions = table["session_id"] if "session_id" in table else [None] * len(table)
        maps = [self.maps_of(*ids) for ids in zip(table["participant_id"], sessions, strict=True)]
        table = table.assign(session_id=list(sessions), maps=maps)
        return table[[bool(found) for found in maps]]

    def n_explained(self, method: str, class_name: str) -> int:
        """Number of participants of a class with a map of a method."""
        table = self.explained
        if table.empty or "target" not in table:
            return 0
        known = class_name in self.class_names
        rows = table[table["target"] == (self.class_names.index(class_name) if known else -1)]
        return rows.loc[[method in found for found in rows["maps"]], "participant_id"].nunique()

    def shown_subjects(self, at_most: int = 6) -> list[ShownSubject]:
        """For each class, the most confident correct and the most confident wrong prediction."""
        table = self.explained
        if table.empty:
            return []
        if self.predictions is None:
            return [self._shown(row) for _, row in table.head(2).iterrows()]
        prob = table[self.task.columns].to_numpy(float)
        table = table.assign(predicted=prob.argmax(1), confidence=prob.max(1))
        table = table.sort_values(["confidence", "participant_id"], ascending=[False, True])
        right = (table["predicted"] == table["target"]) | (table["target"] < 0)
        chosen: list[pd.Series] = []
        for rows in (table[right], table[~right]):
            kind = "target" if (table["target"] >= 0).all() else "predicted"
            first = [part.iloc[0] for _, part in rows.groupby(kind, sort=True)]
            chosen += first[: at_most // 2]
        return [self._shown(row) for row in chosen]

    def _shown(self, row: pd.Series) -> ShownSubject:
        pid, session = row["participant_id"], row["session_id"]
        named = "target" in row and row["target"] >= 0 and self.class_names
        return ShownSubject(
            pid, session,
            label=self.class_names[int(row["target"])] if named else None,
            predicted=self.class_names[int(row["predicted"])] if "predicted" in row else None,
            probability=float(row["confidence"]) if "confidence" in row else None,
            fold=int(row["fold"]) if "fold" in row else None,
            maps=row["maps"],
            image=self.run.image(pid, session, self.space),
            truth=self.run.image(pid, session, self.space, "mask"),
            sidecars={m: read_json(sidecar(p)) for m, p in row["maps"].items() if sidecar(p).exists()},
        )  # fmt: skip

    def some_images(self, at_most: int = 8) -> Iterator[Path]:
        yield from sorted((self.run.path / "images").glob("*_desc-prepared_T1w.nii.gz"))[:at_most]


def _table(path: Path) -> pd.DataFrame | None:
    """A table with at least one row, otherwise None."""
    if not path.exists() or not read_text(path).strip():
        return None
    table = read_tsv(path)
    return None if table.empty else table

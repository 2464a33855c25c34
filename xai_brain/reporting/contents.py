"""Contents of a run directory for the report: tables, estimates, maps. All files are optional."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.reporting.anonymity import HIDDEN_PATH
from xai_brain.reporting.shown_contents import ShownContents
from xai_brain.reporting.values import Estimate, ShownSubject, number
from xai_brain.reporting.wording import count_networks
from xai_brain.runs.directory import read_json, sidecar
from xai_brain.task.build import task_of_table
from xai_brain.task.protocol import Task

OF_TRAINING = ("trainer", "folds", "augmentation", "seeds")  # settings that do not describe a given network
OF_RUNS = ("preprocessing", "model", "data")  # nor, for `xai_brain.explain`, its images


class ReportContents(ShownContents):
    """Contents of a run for the report; results that have not been computed are None or empty.

    Parameters
    ----------
    run : RunDirectory
    """

    @cached_property
    def config(self) -> dict[str, Any]:
        """Settings, without those that do not describe a network that was trained elsewhere."""
        config = super().config
        unknown = OF_TRAINING * self.is_given_network + OF_RUNS * self.has_given_images
        return {key: value for key, value in config.items() if key not in unknown}

    @cached_property
    def has_given_images(self) -> bool:
        """Whether the maps are those of `xai_brain.explain`: of a given network on given images."""
        table = self.table(self.run.predictions)
        return table is not None and "fold" not in table

    @cached_property
    def is_given_network(self) -> bool:
        """Whether the network comes from a file or an object, so that its training is not known."""
        networks = Path(str(super().config.get("networks") or ""))
        return self.has_given_images or (bool(networks.suffix) and not networks.is_dir())

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return read_json(self.run.provenance) if self.run.provenance.exists() else {}

    @cached_property
    def seed(self) -> int:
        """The seed whose maps are shown: the first explained seed."""
        return int((self.setting("explain.seeds") or self.run.seeds)[0])

    # -- tables --------------------------------------------------------------------------------
    @cached_property
    def quarantine(self) -> list[tuple[str, str]]:
        table = self.table(self.run.quarantine)
        if table is None:
            return []
        name = next((c for c in ("participant_id", "path", "t1w_path") if c in table), table.columns[0])
        reasons = table["reason"].astype(str) if "reason" in table else [""] * len(table)
        rows = list(zip(table[name].astype(str), reasons, strict=True))
        if self.anonymity:
            shown = {what: self.anonymity.pseudonyms.get(what, HIDDEN_PATH) for what, _ in rows}
            return sorted((shown[what], why) for what, why in rows)
        return [(Path(self.clean(what)).name, why) for what, why in rows]

    @cached_property
    def task(self) -> Task:
        """What the networks have learned, with the names of the predicted outputs."""
        return task_of_table(
            self.setting("task"), () if self.predictions is None else self.predictions.columns
        )

    @cached_property
    def class_names(self) -> list[str]:
        """In the order of the targets; none where the target is a number."""
        if self.task.reported_as == "number":
            return []
        if self.predictions is not None:
            return list(self.task.names)
        if self.participants is not None and {"label", "target"} <= set(self.participants):
            return list(self.participants.sort_values("target")["label"].drop_duplicates())
        return [str(name) for name in self.setting("data.class_names", [])]

    @cached_property
    def n_networks(self) -> int | None:
        """Number of networks that are averaged for new participants; None for a run with folds."""
        predictions = self.predictions
        if self.has_given_images:
            return 1
        return (
            None
            if predictions is None or "n_networks" not in predictions
            else int(predictions["n_networks"].max())
        )

    def count_networks(self, seeds: Sequence[int] | None = None) -> str:
        """Number of networks of the folds of a run, in words; empty where there are no folds.

        Parameters
        ----------
        seeds : sequence of int, optional
            Default: all seeds with predictions.
        """
        table = self.predictions if seeds is None else self.explained
        if table is None or "fold" not in table:
            return ""
        n_seeds = len(seeds) if seeds else table["seed"].nunique() if "seed" in table else 1
        return count_networks(table["fold"].nunique(), n_seeds)

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
    def estimate(self, key: str, chance: float | None = None) -> Estimate | None:
        if (value := number(self.metrics.get(key))) is None:
            return None
        low, high = number(self.metrics.get(f"{key}_ci_low")), number(self.metrics.get(f"{key}_ci_high"))
        return Estimate(value, low, high, chance)

    @property
    def auroc(self) -> str:
        """Name of the AUROC of the summary: the mean over folds, or pooled where it does not exist."""
        # without folds, for new participants, both are equal
        known = self.n_networks is None and self.estimate("test/auroc") is not None
        return "auroc" if known else "auroc_pooled"

    @property
    def stage_seconds(self) -> dict[str, float]:
        return {k.removeprefix("seconds/"): v for k, v in self.metrics.items() if k.startswith("seconds/")}

    # -- maps ----------------------------------------------------------------------------------
    @cached_property
    def mean_maps(self) -> dict[str, dict[str, Path]]:
        """Mean maps: method to class, in the order of the targets, to path."""
        found: dict[str, dict[str, Path]] = {}
        for (what, stat), paths in self.group_maps.items():
            if stat == "mean" and what.startswith("class-"):
                for method, path in paths.items():
                    found.setdefault(method, {})[what.removeprefix("class-")] = path
        rank = {name: i for i, name in enumerate(self.class_names)}
        return {m: dict(sorted(c.items(), key=lambda item: rank.get(item[0], 99))) for m, c in found.items()}

    @cached_property
    def shown(self) -> pd.DataFrame:
        """Rows of `explained` of the shown seed that have maps, with the map files."""
        table = self.explained[self.explained["seed"] == self.seed]
        ids = zip(table["participant_id"], table["session_id"], strict=True)
        maps = [self.maps_of(*each, self.seed) for each in ids]
        return table.assign(maps=maps)[[bool(found) for found in maps]]

    def n_explained(self, method: str, class_name: str) -> int:
        """Number of participants of a class with a map of a method."""
        table = self.shown
        if table.empty or "target" not in table:
            return 0
        if self.task.reported_as == "number":  # there are no classes: all participants
            rows = table.loc[[method in found for found in table["maps"]]]
            return rows["participant_id"].nunique()
        known = class_name in self.class_names
        rows = table[table["target"] == (self.class_names.index(class_name) if known else -1)]
        return rows.loc[[method in found for found in rows["maps"]], "participant_id"].nunique()

    def shown_subjects(self, at_most: int = 6) -> list[ShownSubject]:
        """For each class, the most confident correct and the most confident wrong prediction.

        Of a number, the smallest and the largest error in each third of the true values.
        """
        table = self.shown
        if table.empty:
            return []
        if self.predictions is None:
            return [self._shown(row) for _, row in table.head(2).iterrows()]
        if self.task.reported_as == "number":
            return [self._shown(row) for row in self._by_error(table, at_most)]
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

    def _by_error(self, table: pd.DataFrame, at_most: int) -> list[pd.Series]:
        """Rows with the smallest and the largest error in each third of the true numbers."""
        values = table[self.task.columns].to_numpy(float)
        error = np.abs(values[:, 0] - table["target"].to_numpy(float))
        table = table.assign(error=error, predicted=self.task.predicted_labels(values))
        table = table.assign(label=self.task.labels_of(table["target"].to_numpy()))
        table = table.sort_values(["error", "participant_id"], kind="stable")
        thirds = np.array_split(table["target"].sort_values(kind="stable").index.to_numpy(), 3)
        parts = [part for third in thirds if len(part := table[table.index.isin(third)])]
        smallest = [part.iloc[0] for part in parts]
        return [*smallest, *(part.iloc[-1] for part in parts if len(part) > 1)][:at_most]

    def _shown(self, row: pd.Series) -> ShownSubject:
        pid, session = row["participant_id"], row["session_id"]
        label = predicted = None
        if self.task.reported_as == "number":
            label, predicted = row.get("label"), row.get("predicted")
        else:
            if "target" in row and row["target"] >= 0 and self.class_names:
                label = self.class_names[int(row["target"])]
            if "predicted" in row:
                predicted = self.class_names[int(row["predicted"])]
        return ShownSubject(
            pid, session, self.shown_name(pid), self.shown_session(pid, session),
            label=label,
            predicted=predicted,
            probability=float(row["confidence"]) if "confidence" in row else None,
            fold=int(row["fold"]) + 1 if "fold" in row else None,
            maps=row["maps"],
            image=self.run.image(pid, session),
            truth=self.run.image(pid, session, "mask"),
            sidecars={m: read_json(sidecar(p)) for m, p in row["maps"].items() if sidecar(p).exists()},
        )  # fmt: skip

"""Relevance rank accuracy of the maps of a cell, and that of networks trained on permuted labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.io.nifti import load_img
from xai_brain.metrics.detection import predictions_of
from xai_brain.metrics.localization import localization
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory, first_repeat, read_json, read_tsv
from xai_brain.study.benchmarks.units import kept_table
from xai_brain.study.explanation.configured_methods import parameters_of
from xai_brain.study.explanation.network_maps import NetworkMap, network_maps
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.thresholds.null_maps import permuted_maps
from xai_brain.study.training.networks import load_networks
from xai_brain.study.training.permuted import permuted_run

COLUMNS = ["method", "kind", "what", "participant_id", "value", "chance", "target", "fold", "seed"]


def ranks_of_cell(config: Config, kinds: Mapping[str, str], n_perm: int, n_participants: int) -> pd.DataFrame:
    """Rows of maps, of their permutation null and of the predictions, as `detection_curve` reads them.

    Parameters
    ----------
    config : Config
        Settings of the run of a cell, which is trained.
    kinds : mapping of method to {"method", "baseline"}
        Baselines, which use no network, have no permutation null.
    n_perm : int
        Networks that are trained on permuted labels.
    n_participants : int
        Test participants who are explained by each of them.
    """
    cell = _Cell(config)
    methods = [label for label in config.attribution if kinds[label] == "method"]
    tables = [cell.ranks().assign(what="rra")]
    for number in range(1, n_perm + 1):
        null = cell.null_ranks(methods, number, n_participants)
        tables.append(null.assign(what="null", permutation=number))
    ranks = pd.concat(tables, ignore_index=True)
    ranks["kind"] = ranks["method"].map(kinds)
    table = pd.concat([ranks, predictions_of(cell.run)], ignore_index=True)
    return table.reindex(columns=[*COLUMNS, "permutation"])


class _Cell:
    """The trained run of a cell; its cohort is prepared only if ranks are missing."""

    def __init__(self, config: Config):
        self.config, self.run = config, RunDirectory(Path(config.run_dir))

    @cached_property
    def cohort(self) -> pd.DataFrame:
        return same_cohort(prepared_cohort(self.config, self.run), self.run)

    def ranks(self) -> pd.DataFrame:
        """Ranks of the maps of all test participants."""

        def make() -> pd.DataFrame:
            predictions = first_repeat(read_tsv(self.run.predictions))
            log(f"{self.config.name}: maps of {len(predictions)} images by {len(labels)} methods")
            maps = [
                network_maps(self.config, self.run, self.cohort, networks, predictions[own], labels)
                for (seed, fold), networks in load_networks(self.config, self.run).items()
                for own in [(predictions["seed"] == seed) & (predictions["fold"] == fold)]
            ]
            return _ranked(each for part in maps for each in part)

        labels = list(self.config.attribution)
        return kept_table(self.run.evaluation("ranks"), self._inputs(labels), make)

    def null_ranks(self, labels: Sequence[str], number: int, n_participants: int) -> pd.DataFrame:
        """Ranks of the maps of one permuted network, which is trained if it is missing."""

        def make() -> pd.DataFrame:
            log(f"{self.config.name}: maps of permuted network {number}")
            where = (self.config, self.run, self.cohort)
            return _ranked(permuted_maps(*where, labels, number, n_participants))

        path = permuted_run(self.config, self.run, number).path / "ranks.tsv"
        return kept_table(path, {**self._inputs(labels), "Participants": n_participants}, make)

    def _inputs(self, labels: Sequence[str]) -> dict[str, Any]:
        """What ranks depend on; the settings of training are those of the run."""
        explain = asdict(self.config.explain)
        about = read_json(self.run.checkpoint_about(0, self.config.seeds[0]))
        return {
            "Methods": {label: parameters_of(self.config, label) for label in labels},
            "Explain": {key: explain[key] for key in ("target", "output", "n_reference_volumes")},
            "Network": about["CheckpointSHA256"],
        }


def _ranked(maps: Iterable[NetworkMap]) -> pd.DataFrame:
    """Participant, method, relevance rank accuracy and chance level of each map."""
    masks: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    rows: list[dict[str, Any]] = []
    for each in maps:
        path = str(each.of_cohort["truth_path"])
        if path not in masks:
            truth = np.asanyarray(load_img(path).dataobj) > 0
            masks[path] = truth, np.load(each.of_cohort["volume_mask_path"])
        found = localization(each.values, *masks[path])
        about = {key: each.row[key] for key in ("participant_id", "fold", "seed")}
        rows.append({**about, "method": each.label, "value": found["rra"], "chance": found["chance"]})
    return pd.DataFrame(rows)

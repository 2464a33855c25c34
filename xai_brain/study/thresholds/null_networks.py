"""Reference networks of thresholds: trained on permuted labels, or with randomised parameters."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.folds.tables import fold_numbers
from xai_brain.data.permuted_labels import n_exchangeable
from xai_brain.io.nifti import get_grid
from xai_brain.models.calibrated import CalibratedNetwork
from xai_brain.parallel.verbosity import LOGGER, temporary_verbosity
from xai_brain.runs.directory import RunDirectory, first_repeat, read_json, read_tsv
from xai_brain.runs.threshold_statement import PERMUTED, RANDOMIZED
from xai_brain.study.explanation.batches import load_volume
from xai_brain.study.explanation.network_maps import network_maps
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.thresholds.null_maps import (
    choose_participants,
    is_retrainable,
    permuted_maps,
)
from xai_brain.study.thresholds.random_parameters import check_parameters, randomize_parameters
from xai_brain.study.thresholds.reference_networks import (
    NullMap,
    NullNetworks,
    UnknownNetworks,
    cost_of_randomized,
    refuse_blocks,
)
from xai_brain.study.thresholds.statistic import voxel_mm3
from xai_brain.study.training.cross_validation import is_fitted
from xai_brain.study.training.networks import ALL, Network, load_networks
from xai_brain.study.training.permuted import permuted_run
from xai_brain.study.training.predict_participants import ensemble_predictions


def null_networks(config: Config, run: RunDirectory) -> NullNetworks:
    """The reference networks of a run directory; see `UnknownNetworks` for maps of `xai_brain.explain`."""
    if is_retrainable(run):
        return PermutedNetworks(config, run)
    if config.networks:
        return RandomizedNetworks(config, run)
    return UnknownNetworks(run)


@dataclass
class OfRun:
    """Networks on the participants of a run directory."""

    config: Config
    run: RunDirectory

    @cached_property
    def cohort(self) -> pd.DataFrame:
        return same_cohort(prepared_cohort(self.config, self.run), self.run).reset_index(drop=True)


@dataclass
class PermutedNetworks(OfRun):
    """Networks that are trained on permuted labels, with the folds and the budget of a run."""

    reference = PERMUTED
    unit = "permutations"

    def check(self) -> None:
        settings, family = self.config.evaluation.threshold, self.config.folds.group_column
        cohort = self.cohort
        for name in settings.blocks:
            if name not in cohort:
                listed = ", ".join(column for column in cohort if not str(column).endswith("_path"))
                raise ConfigError(
                    f"evaluation.threshold.blocks={name}: not in participants.tsv (its columns: {listed})"
                )
        n, total = n_exchangeable(cohort, settings.blocks, family), cohort["participant_id"].nunique()
        if n < total / 2:
            within = " and ".join([*settings.blocks, *([family] if family else [])])
            raise ConfigError(
                f"threshold: the labels of {total - n} of {total} participants cannot be permuted within "
                f"{within}; choose fewer blocks (evaluation.threshold.blocks)"
            )

    def cost(self, n: int) -> str:
        folds = fold_numbers(first_repeat(read_tsv(self.run.folds)))
        numbers = range(1, self.config.evaluation.threshold.n_perm + 1)
        left = sum(not self._is_trained(number, folds) for number in numbers)
        seconds = read_json(self.run.metrics).get("seconds/train", np.nan) / len(self.config.seeds)
        time = f", about {left * seconds / 60:.1f} minutes (as in this run)" if np.isfinite(seconds) else ""
        training = f"training of {len(folds)} networks for {left} of them{time}" if left else "no training"
        return (
            f"{n} permutations: {training}, and the maps of "
            f"{self.config.evaluation.threshold.n_participants} participants in each; finished permutations "
            "are kept"
        )

    def _is_trained(self, number: int, folds: Sequence[int]) -> bool:
        own, seed = permuted_run(self.config, self.run, number), int(self.config.seeds[0])
        return all(is_fitted(own, fold, seed) for fold in folds)

    def maps(self, labels: Sequence[str], number: int) -> Iterator[NullMap]:
        n = self.config.evaluation.threshold.n_participants
        mm3 = voxel_mm3(get_grid(self.config.preprocessing.grid).affine)
        for each in permuted_maps(self.config, self.run, self.cohort, labels, number, n):
            yield NullMap(each.label, each.row, each.values, _brain(each.of_cohort), mm3)


@dataclass
class RandomizedNetworks(OfRun):
    """Copies of given networks with randomised parameters, on the participants of a run directory."""

    reference = RANDOMIZED
    unit = "randomised networks"

    @cached_property
    def networks(self) -> list[Network]:
        return load_networks(self.config, self.run)[ALL]

    def check(self) -> None:
        refuse_blocks(self.config)
        for network in self.networks:
            check_parameters(network.load(self.config).network)

    def cost(self, n: int) -> str:
        before = read_json(self.run.metrics) if self.run.metrics.exists() else {}
        n_images = len(read_tsv(self.run.predictions))
        n_explained = min(self.config.evaluation.threshold.n_participants, n_images)
        return cost_of_randomized(n, n_explained, before.get("seconds/explain", np.nan) / n_images)

    def maps(self, labels: Sequence[str], number: int) -> Iterator[NullMap]:
        config, n = self.config, self.config.evaluation.threshold.n_participants
        rows = choose_participants(read_tsv(self.run.predictions), n, number)
        keys = rows.set_index(["participant_id", "session_id"]).index
        cohort = self.cohort.set_index(["participant_id", "session_id"]).loc[keys].reset_index()
        batches = split_evenly(cohort["volume_path"].tolist(), config.explain.batch_size)
        randomized = [
            RandomizedNetwork(each.checkpoint, each.seed, each.fold, each.sha256, number, batches)
            for each in self.networks
        ]
        with temporary_verbosity(None if LOGGER.isEnabledFor(logging.DEBUG) else "quiet"):
            values, task = ensemble_predictions(config, cohort, list(randomized))
        rows = rows.assign(**dict(zip(task.columns, values.mean(0).T, strict=True)))
        mm3 = voxel_mm3(get_grid(config.preprocessing.grid).affine)
        for each in network_maps(config, self.run, cohort, randomized, rows, labels):
            yield NullMap(each.label, each.row, each.values, _brain(each.of_cohort), mm3)


@dataclass(frozen=True)
class RandomizedNetwork(Network):
    """A copy of a network with randomised parameters."""

    number: int
    batches: list[list[str]]  # prepared volumes, for the statistics of batch normalisation

    def load(self, config: Config) -> CalibratedNetwork:
        """Load the network, and randomise its parameters."""
        network = super().load(config)
        device = next(network.parameters()).device
        volumes = (
            torch.from_numpy(np.stack([load_volume(path) for path in paths]))[:, None].to(device)
            for paths in self.batches
        )
        state = hash((self.number, self.seed, self.fold)) % 2**31  # networks of an ensemble differ
        randomize_parameters(network, volumes, state)
        return network


def split_evenly(items: list[str], size: int) -> list[list[str]]:
    """Batches of nearly equal size: none has a single item if it can be avoided."""
    n = -(-len(items) // size)
    return [list(part) for part in np.array_split(np.array(items, dtype=object), n)]


def _brain(of_cohort: pd.Series) -> np.ndarray:
    return np.load(of_cohort["volume_mask_path"])

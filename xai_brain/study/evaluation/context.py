"""Data of one network and its test participants: inputs, saved maps, brain masks, true locations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from xai_brain.attribution.outputs import ClassScore
from xai_brain.attribution.reference import Reference
from xai_brain.config.evaluation import CardConfig
from xai_brain.config.schema import Config
from xai_brain.io.nifti import get_grid
from xai_brain.models.calibrated import CalibratedNetwork
from xai_brain.runs.directory import RunDirectory, read_json, sidecar
from xai_brain.study.explanation.batches import build_reference, load_volume
from xai_brain.study.explanation.configured_methods import build_method
from xai_brain.study.run_images import brain_of, map_values, truth_of
from xai_brain.study.training.networks import Network, training_subjects


@dataclass
class EvaluationContext:
    """Inputs of the metrics of one network.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    cohort : pandas.DataFrame
        Prepared cohort.
    network : Network
    classifier : CalibratedNetwork
    rows : pandas.DataFrame
        participant_id, session_id and seed of the participants, as in predictions.tsv.
    shared : dict
        Results that are the same for all methods.
    """

    config: Config
    run: RunDirectory
    cohort: pd.DataFrame
    network: Network
    classifier: CalibratedNetwork
    rows: pd.DataFrame
    shared: dict[Any, Any] = field(default_factory=dict)

    def head(self, n: int) -> EvaluationContext:
        """The same context for the participants whose number is below n."""
        return replace(self, rows=self.rows[self.rows["number"] < n])

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Result of ``make()``, computed at the first call with this key and these participants."""
        key = (key, tuple(self.rows["participant_id"]), tuple(self.rows["session_id"]))
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    @property
    def card(self) -> CardConfig:
        return self.config.evaluation.card

    @property
    def batch_size(self) -> int:
        return self.config.explain.batch_size

    @property
    def device(self) -> torch.device:
        return next(self.classifier.parameters()).device

    @property
    def training(self) -> pd.DataFrame:
        """Rows of the cohort that the network was trained on."""
        key = "training subjects"
        if key not in self.shared:
            self.shared[key] = self.training_of(self.cohort)
        return self.shared[key]

    def training_of(self, cohort: pd.DataFrame) -> pd.DataFrame:
        """Rows of a cohort, which may have other labels, that the network was trained on."""
        return next(training_subjects(self.config, self.run, cohort, [self.network]))

    @property
    def reference(self) -> Reference:
        return self.reference_of("reference", lambda: self.training)

    def reference_of(self, key: str, train: Callable[[], pd.DataFrame]) -> Reference:
        if key not in self.shared:
            task, n = self.classifier.task, self.config.explain.n_reference_volumes
            grid = get_grid(self.config.preprocessing.grid)
            self.shared[key] = build_reference(train(), task, n, grid)
        return self.shared[key]

    def method(
        self, label: str, model: torch.nn.Module | None = None, reference: Reference | None = None
    ) -> Any:
        """Build a configured method for this network or another one."""
        return build_method(self.config, label, model or self.classifier, reference or self.reference)[0]

    def scorer(self, output: str) -> ClassScore:
        """The network, returning one of its outputs, such as probabilities."""
        return ClassScore(self.classifier, output, self.classifier.task)

    def output(self, label: str) -> str:
        """Output of the network that a method explains."""
        return build_method(self.config, label, self.classifier, self.reference)[1]

    @cached_property
    def inputs(self) -> torch.Tensor:
        """Prepared volumes of the participants, (N, 1, X, Y, Z)."""
        keys = self.cohort.set_index(["participant_id", "session_id"])
        volumes = [load_volume(keys.loc[image, "volume_path"]) for image in self._ids()]
        return torch.from_numpy(np.stack(volumes))[:, None].to(self.device)

    def map_paths(self, label: str) -> list[Path]:
        return [self.run.attribution(*image, label, self.network.seed) for image in self._ids()]

    def saved(self, label: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps of the run (N, 1, X, Y, Z) and the classes that they explain (N,)."""
        paths = self.map_paths(label)
        maps = [map_values(path) for path in paths]
        targets = torch.tensor([read_json(sidecar(path))["Target"] for path in paths], device=self.device)
        return torch.from_numpy(np.stack(maps))[:, None], targets

    def brains(self) -> list[np.ndarray]:
        return [brain_of(self.run, *image) for image in self._ids()]

    def common_brain(self) -> np.ndarray:
        """Voxels in the brain masks of all participants."""
        return self.cached("common brain", lambda: np.logical_and.reduce(self.brains()))

    def truths(self) -> list[np.ndarray] | None:
        """True voxels of each participant; None where they are not known."""
        found = [truth_of(self.run, *image) for image in self._ids()]
        known = [truth for truth in found if truth is not None]
        return known if len(known) == len(found) else None

    def _ids(self) -> list[tuple[str, str]]:
        return list(zip(self.rows["participant_id"], self.rows["session_id"], strict=True))

"""What a network learns: the interface of tasks. No torch.

A task is one class in one file. Networks, folds, predictions, scores, explanations and the comparison of
groups ask it for all that differs between, for example, classification and regression. Methods that receive
tensors import torch where they use it, so that results can be read without torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from xai_brain.statistics.classifier_comparison import Comparison
from xai_brain.task.labels import LabelRule
from xai_brain.task.targets import Targets as Targets

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True)
class Task(ABC):
    """Everything that depends on what a network learns.

    Parameters
    ----------
    names : tuple of str, default ()
        Names of the outputs of the network, e.g. of the classes in the order of their index. Empty until the
        participants are known.
    """

    names: tuple[str, ...] = ()

    # Whether the targets are classes. Baselines, evaluation, report and planted effects need them.
    has_classes: ClassVar[bool] = False
    # What a report describes: "classes" or "number"; None: there is neither evaluation nor report.
    reported_as: ClassVar[str | None] = None
    # What folds are stratified by, in messages.
    stratum: ClassVar[str] = "stratum"
    # Target of participants without a label.
    unknown_target: ClassVar[float] = float("nan")
    # Whether the network learns (target - mean) / SD, of the training images, and returns the target's unit.
    standardizes_targets: ClassVar[bool] = False
    # Whether rows without a value are left out and counted; otherwise they are unusable inputs.
    excludes_missing: ClassVar[bool] = False
    # Epoch metrics of which the lowest value is the best; of all others it is the highest.
    lower_is_better: ClassVar[tuple[str, ...]] = ("train/loss", "val/loss")
    # Values of ``explain.output``; the first is the default of methods whose own default is not among them.
    outputs: ClassVar[tuple[str, ...]] = ()
    # The output that maps must explain for group analyses; None: they cannot be tested.
    group_output: ClassVar[str | None] = None
    score_titles: ClassVar[Mapping[str, str]] = {}  # of scores that reports show
    compared_scores: ClassVar[tuple[str, ...]] = ()  # of baselines

    def with_names(self, names: Sequence[str]) -> Self:
        """The same task for a cohort whose outputs have these names."""
        return replace(self, names=tuple(names))

    def settings(self) -> dict[str, Any]:
        """``_target_`` and arguments, without the names: what config.yaml and checkpoints contain."""
        kind = type(self)
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "names"}
        return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **own}

    # -- participants --------------------------------------------------------------------------
    @abstractmethod
    def read_targets(self, values: pd.Series, rule: LabelRule, where: str) -> Targets:
        """Labels and targets of the column of a table.

        Parameters
        ----------
        values : pandas.Series of str
            NaN where missing.
        rule : LabelRule
            Settings ``data.label``, ``data.class_names``, ``data.threshold`` and ``data.bins``.
        where : str
            The table, for messages.

        Raises
        ------
        DataError
            The column or the settings do not suit the task.
        """

    @abstractmethod
    def names_of(self, participants: pd.DataFrame, label: str) -> list[str]:
        """Names of the outputs, from columns ``label`` and ``target`` and from the name of the label."""

    def check_cohort(self, participants: pd.DataFrame, names: Sequence[str], label: str, where: str) -> None:
        """Refuse participants that a network cannot be trained and tested with (DataError)."""
        return None

    def describe(self, participants: pd.DataFrame) -> str:
        """Distribution of the targets in a few words."""
        known = participants["target"].dropna()
        return f"{', '.join(self.names)} {known.min():g} to {known.max():g}" if len(known) else "no targets"

    def is_known(self, targets: np.ndarray) -> np.ndarray:
        """Which participants have a label, (n,) bool."""
        return ~np.isnan(np.asarray(targets, float))

    @abstractmethod
    def labels_of(self, targets: np.ndarray) -> list[str | None]:
        """Labels of targets (n,); None where a participant has none."""

    # -- folds ---------------------------------------------------------------------------------
    @abstractmethod
    def strata(self, targets: pd.Series) -> pd.Series:
        """Integers by which folds and validation parts are stratified, with the index of the targets."""

    def check_folds(self, sides: Mapping[int, tuple[pd.Series, pd.Series]]) -> None:
        """Refuse folds (DataError); `sides` are the training and test targets of every fold."""
        return None

    # -- training ------------------------------------------------------------------------------
    @property
    def n_outputs(self) -> int:
        """Number of outputs."""
        return len(self.names)

    def decoder(self) -> Module | None:
        """From what the network returns, (N, n_inputs), to outputs; None if it returns the outputs."""
        return None

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Mean loss of what the network returns, before the decoder, and targets (N,), standardised if so."""

    @abstractmethod
    def validation_metrics(self) -> dict[str, Any]:
        """Metrics of torchmetrics by name, of `predict` (one column as (N,)) and the targets."""

    def monitor_mode(self, monitor: str) -> str:
        """Whether the best epoch has the lowest (``min``) or highest (``max``) value of a metric."""
        return "min" if monitor in self.lower_is_better else "max"

    def fit_temperature(self, outputs: Tensor, targets: Tensor) -> float:
        """Number by which the network divides its outputs, from its validation part: calibration."""
        return 1.0

    def predict(self, outputs: Tensor) -> Tensor:
        """Values of `columns`, (N, n_columns), of the outputs (N, n_outputs)."""
        return outputs

    # -- predictions.tsv -----------------------------------------------------------------------
    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Columns of predictions.tsv that contain what `predict` returns."""

    @abstractmethod
    def names_in(self, columns: Sequence[str]) -> list[str]:
        """Names of the outputs, from the columns of a table of predictions."""

    def prediction_table(
        self, images: pd.DataFrame, values: np.ndarray, *, fold: int, seed: int
    ) -> pd.DataFrame:
        """Rows of predictions.tsv: participant_id, session_id, seed, fold, target and `columns`.

        Classes are also named, see `with_labels`.

        Parameters
        ----------
        images : pandas.DataFrame
            participant_id, target and, if known, session_id.
        values : ndarray of shape (n_images, n_columns)
            From `predict`.
        fold, seed : int
        """
        ids = ["participant_id", *(["session_id"] if "session_id" in images else [])]
        table = images[ids].assign(seed=seed, fold=fold, target=images["target"].to_numpy())
        for k, column in enumerate(self.columns):
            table[column] = values[:, k]
        return self.with_labels(table.reset_index(drop=True))

    def with_labels(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """The table with the names of the true (label) and the predicted class, if there are classes."""
        if not self.has_classes:
            return predictions
        rest = predictions.drop(columns=["label", "predicted"], errors="ignore")
        place = rest.columns.get_loc("target") + 1
        rest.insert(place, "label", self.labels_of(rest["target"].to_numpy()))
        rest.insert(place + 1, "predicted", self.predicted_labels(rest[self.columns].to_numpy()))
        return rest

    @abstractmethod
    def predicted_labels(self, values: np.ndarray) -> list[str]:
        """What is predicted, as text, of values (n, n_columns)."""

    def ensemble_columns(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """How far networks agree: further columns (n,) of predictions (n_networks, n, n_columns)."""
        return {}

    # -- scores --------------------------------------------------------------------------------
    def can_be_scored(self, targets: np.ndarray) -> bool:
        """Whether all participants have labels from which scores can be computed."""
        return len(targets) > 0 and bool(self.is_known(targets).all())

    @abstractmethod
    def scores(
        self, predictions: pd.DataFrame, prefix: str = "test", n_bootstrap: int = 1000, random_state: int = 0
    ) -> dict[str, float]:
        """Scores of a table of predictions with 95 % intervals over participants.

        Returns
        -------
        dict
            ``<prefix>/<score>``, ``<prefix>/<score>_ci_low`` and ``<prefix>/<score>_ci_high``; NaN where a
            score is not defined.
        """

    def compare(
        self, first: pd.DataFrame, second: pd.DataFrame, n_participants: int
    ) -> dict[str, tuple[str, Comparison]]:
        """Paired tests of two tables of predictions, first minus second: name of the test, by score."""
        return {}

    @abstractmethod
    def chance_levels(self, targets: Sequence[Any] | None = None) -> dict[str, float]:
        """Value of each score at chance; scores whose value depends on the targets need these."""

    @abstractmethod
    def summary(self, predictions: pd.DataFrame) -> str:
        """One score with its name, for the log line of a fold."""

    def missing_scores(self, predictions: pd.DataFrame, scores: Mapping[str, float]) -> str | None:
        """Why a score is not defined, in one line."""
        return None

    # -- explanation ---------------------------------------------------------------------------
    def default_output(self, of_method: str) -> str:
        """Output that is explained unless ``explain.output`` is set, given the default of the method."""
        return of_method if of_method in self.outputs else self.outputs[0]

    def explained_output(self, outputs: Tensor, name: str) -> Tensor:
        """Values that are explained, (N, n_outputs), of outputs (N, n_outputs); a name of `outputs`."""
        return outputs

    @property
    @abstractmethod
    def valid_targets(self) -> tuple[str, ...]:
        """Values of ``explain.target``."""

    @abstractmethod
    def read_target(self, target: str) -> str | int:
        """What ``explain.target`` means: a rule that depends on the participant, or the index of an output.

        Raises
        ------
        ConfigError
            There is no such target; the valid ones are listed.
        """

    def in_own_names(self, target: str) -> str:
        """``explain.target`` with the name of the task where the table spells it otherwise."""
        return target

    def target_rule(self, target: str) -> str:
        """``explain.target`` as the sidecars of maps contain it."""
        return target

    @abstractmethod
    def explained_targets(self, target: str, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Index of the output that is explained for every participant, (n,).

        Parameters
        ----------
        target : str
            ``explain.target``.
        values : ndarray of shape (n, n_columns)
            Predictions.
        targets : ndarray of shape (n,)

        Raises
        ------
        ConfigError
        """

    def target_record(self, index: int, values: np.ndarray) -> dict[str, Any]:
        """Fields of the sidecar of a map about the explained output, given the predictions (n_columns,)."""
        return {"Target": index, "TargetName": self.names[index]}

    def reference_groups(self, targets: pd.Series) -> pd.Series:
        """Groups (integers from 0) of training participants, whose mean volumes methods use as a reference.

        Methods that explain output k use the groups other than k.
        """
        return pd.Series(0, index=targets.index)

    # -- comparison of groups ------------------------------------------------------------------
    def contrasts(self) -> list[tuple[str, ...]]:
        """What is tested in maps: pairs of labels, as second minus first, or the name of one number."""
        return []

"""Regression: one number per participant, such as age, predicted in its unit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from xai_brain.config.setting import ConfigError
from xai_brain.io.problems import DataError
from xai_brain.io.tables import bounds
from xai_brain.parallel.progress import log_once
from xai_brain.statistics.classifier_comparison import Comparison
from xai_brain.statistics.continuous.comparison import paired_error_test
from xai_brain.statistics.continuous.metrics import FIGURES, regression_metrics
from xai_brain.statistics.continuous.outliers import OUTLIER_SD, outliers
from xai_brain.task.labels import LabelRule
from xai_brain.task.protocol import Targets, Task

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

PREFIX = "predicted_"  # of the column of predictions.tsv
LOSSES = ("mse", "l1", "huber", "soft_bins")
PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
TITLES = {"mae": "MAE", "rmse": "RMSE", "r2": "R²", "pearson_r": "Pearson r"}
TITLES["residual_r"] = "Correlation of residuals with the target"


@dataclass(frozen=True)
class Regression(Task):
    """A number of each participant, e.g. its age; networks learn (target - mean) / SD of the training part.

    Parameters
    ----------
    names : tuple of str, default ()
        Name of the column of the number.
    loss_function : {"mse", "l1", "huber", "soft_bins"}, default "mse"
        Of the standardised targets; Huber's loss is linear beyond an error of one standard deviation. With
        "soft_bins" the network predicts a distribution over `n_bins` bins, whose expected value is the
        predicted number (see `xai_brain.task.soft_bins`).
    n_strata : int, default 5
        Folds and validation parts are stratified by as many quantiles of the target; fewer if a quantile
        would have fewer than five participants.
    min_distinct : int, default 10
        Columns with fewer different numbers are refused: they are often codes of classes.
    n_bins : int, default 40
        Of "soft_bins": from -3.5 to 3.5 standard deviations of the training targets.
    """

    loss_function: str = "mse"
    n_strata: int = 5
    min_distinct: int = 10
    n_bins: int = 40

    reported_as: ClassVar[str | None] = "number"
    stratum: ClassVar[str] = "quantile of the target"
    standardizes_targets: ClassVar[bool] = True
    excludes_missing: ClassVar[bool] = True
    lower_is_better: ClassVar[tuple[str, ...]] = ("train/loss", "val/loss", "val/mae")
    outputs: ClassVar[tuple[str, ...]] = ("value",)
    group_output: ClassVar[str | None] = "value"
    score_titles: ClassVar[Mapping[str, str]] = {
        f"{name}{suffix}": f"{TITLES[name]}, {what}"
        for suffix, what in (("", "mean over folds"), ("_pooled", "pooled"))
        for name in FIGURES
    }

    compared_scores: ClassVar[tuple[str, ...]] = (
        *("mae", "mae_pooled", "rmse", "r2", "r2_pooled", "pearson_r", "residual_r", "residual_r_pooled"),
    )

    def __post_init__(self) -> None:
        if self.loss_function not in LOSSES:
            raise ValueError(f"task.loss_function={self.loss_function}: one of {', '.join(LOSSES)} is needed")
        for name, least in (("n_strata", 1), ("min_distinct", 1), ("n_bins", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"task.{name}={getattr(self, name)}: at least {least} is needed")

    # -- participants --------------------------------------------------------------------------
    def read_targets(self, values: pd.Series, rule: LabelRule, where: str) -> Targets:
        if rule.threshold is not None or rule.bins:
            raise DataError("data.threshold and data.bins: need classes, see task=classification")
        reasons = values.map(lambda value: _why_no_number(value, rule.column)).astype(object)
        texts = values.where(reasons == "")
        found = texts.map(lambda text: float(text) if isinstance(text, str) else np.nan).astype(float)
        labels = found.map(lambda value: f"{value:g}" if np.isfinite(value) else np.nan).astype(object)
        return Targets(labels, found, [rule.column], reasons)

    def names_of(self, participants: pd.DataFrame, label: str) -> list[str]:
        return [label]

    def check_cohort(self, participants: pd.DataFrame, names: Sequence[str], label: str, where: str) -> None:
        """Refuse a target that is constant or has few different values; report outliers, which are kept."""
        known = participants.drop_duplicates("participant_id").dropna(subset=["target"])
        targets = known["target"].to_numpy(float)
        n_distinct = len(np.unique(targets))
        if n_distinct < 2:
            what = f"is {targets[0]:g} for all" if n_distinct else "has no number for any"
            raise DataError(f"{where}: {label} {what} participants; there is nothing to learn")
        if n_distinct < self.min_distinct:
            raise DataError(
                f"{where}: {label} has {n_distinct} different values only; if they are classes, use "
                f"task=classification, otherwise task.min_distinct={n_distinct}"
            )
        if (far := outliers(targets)).any():
            listed = [
                f"{row.participant_id} {row.target:g}" for row in known[far].head(5).itertuples(index=False)
            ]
            more = f" and {far.sum() - len(listed)} more" if far.sum() > len(listed) else ""
            log_once(
                f"{where}: {label} of {', '.join(listed)}{more}: more than {OUTLIER_SD:g} robust standard "
                f"deviations from the median ({np.median(targets):g}); used, correct the table if it is wrong"
            )

    def labels_of(self, targets: np.ndarray) -> list[str | None]:
        return [f"{target:g}" if np.isfinite(target) else None for target in np.asarray(targets, float)]

    # -- folds ---------------------------------------------------------------------------------
    def strata(self, targets: pd.Series) -> pd.Series:
        """Quantiles of the target, from 0."""
        n = max(1, min(self.n_strata, len(targets) // 5))
        rank = pd.to_numeric(targets).rank(method="first").to_numpy()
        return pd.Series(((rank - 1) * n // max(len(targets), 1)).astype(int), targets.index)

    # -- training ------------------------------------------------------------------------------
    def decoder(self) -> Module | None:
        from xai_brain.task.soft_bins import ExpectedValue

        return ExpectedValue(self.n_bins) if self.loss_function == "soft_bins" else None

    def loss(self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        from torch.nn import functional

        from xai_brain.task.soft_bins import soft_bin_loss

        if self.loss_function == "soft_bins":
            return soft_bin_loss(outputs, targets)
        function = {"mse": "mse_loss", "l1": "l1_loss", "huber": "huber_loss"}[self.loss_function]
        return getattr(functional, function)(outputs[:, 0], targets.to(outputs))

    def validation_metrics(self) -> dict[str, Any]:
        from torchmetrics import MeanAbsoluteError

        return {"mae": MeanAbsoluteError()}

    # -- predictions.tsv -----------------------------------------------------------------------
    @property
    def columns(self) -> list[str]:
        return [f"{PREFIX}{name}" for name in self.names]

    def names_in(self, columns: Sequence[str]) -> list[str]:
        return [str(name).removeprefix(PREFIX) for name in columns if str(name).startswith(PREFIX)]

    def predicted_labels(self, values: np.ndarray) -> list[str]:
        return [f"{value:.4g}" for value in values[:, 0]]

    def ensemble_columns(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Standard deviation of the predictions of the networks."""
        return {"networks_sd": values[:, :, 0].std(0)}

    # -- scores --------------------------------------------------------------------------------
    def scores(
        self, predictions: pd.DataFrame, prefix: str = "test", n_bootstrap: int = 1000, random_state: int = 0
    ) -> dict[str, float]:
        return regression_metrics(predictions, self.columns[0], prefix, n_bootstrap, random_state)

    def compare(
        self, first: pd.DataFrame, second: pd.DataFrame, n_participants: int
    ) -> dict[str, tuple[str, Comparison]]:
        return {"mae": ("paired t", paired_error_test(first, second, self.columns[0]))}

    def chance_levels(self, targets: Sequence[Any] | None = None) -> dict[str, float]:
        """R² and r of a constant prediction are 0; MAE and RMSE are those of the mean of the targets."""
        levels = {f"{name}{suffix}": 0.0 for name in ("r2", "pearson_r") for suffix in ("", "_pooled")}
        known = np.asarray([] if targets is None else targets, float)
        known = known[np.isfinite(known)]
        if len(known):
            errors = {"mae": float(np.abs(known - known.mean()).mean()), "rmse": float(known.std())}
            levels |= {f"{name}{suffix}": errors[name] for name in errors for suffix in ("", "_pooled")}
        return levels

    def summary(self, predictions: pd.DataFrame) -> str:
        errors = (predictions[self.columns[0]] - predictions["target"]).abs()
        return f"test MAE {errors.mean():.3g}"

    def missing_scores(self, predictions: pd.DataFrame, scores: Mapping[str, float]) -> str | None:
        if np.isfinite(scores.get("test/pearson_r", np.nan)):
            return None
        return (
            "test/r2 and test/pearson_r are not defined in every fold: a fold tests fewer than two different "
            "targets or has equal predictions; the pooled values use all folds together"
        )

    # -- explanation ---------------------------------------------------------------------------
    @property
    def valid_targets(self) -> tuple[str, ...]:
        return ("predicted", *self.names)

    def read_target(self, target: str) -> str | int:
        if target not in self.valid_targets:
            raise ConfigError(
                f"explain.target={target}: one of {', '.join(self.valid_targets)} is needed; the predicted "
                "number is explained"
            )
        return 0

    def target_rule(self, target: str) -> str:
        self.read_target(target)
        return self.names[0]  # there is one output, whatever was predicted

    def explained_targets(self, target: str, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.full(len(targets), self.read_target(target))

    # -- group analyses ------------------------------------------------------------------------
    def contrasts(self) -> list[tuple[str, ...]]:
        return [(name,) for name in self.names]

    def target_record(self, index: int, values: np.ndarray) -> dict[str, Any]:
        return {**super().target_record(index, values), "PredictedValue": float(values[index])}


def _why_no_number(value: Any, column: str) -> str:
    """Why a cell of a table is no number; empty if it is one."""
    if not isinstance(value, str):
        return f"no value of {column}"
    if PLAIN.fullmatch(value) and np.isfinite(float(value)):
        return ""
    known = bounds(value)
    if re.fullmatch(r"[+-]?\d+,\d+", value):
        return f"{column} is {value!r}, with a comma; write {value.replace(',', '.')} with a decimal point"
    if known is not None and known[0] != known[1]:
        return f"{column} is {value!r}, a range of numbers; one number is needed"
    if not PLAIN.fullmatch(value) and re.match(r"[+-]?[\d.,]+\s*[^\W\d]", value):
        return f"{column} is {value!r}, a number with a unit; write the number only"
    return f"{column} is {value!r}, no number"

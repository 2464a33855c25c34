"""Classification: one output for each class, cross entropy, calibrated probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from xai_brain.config.setting import ConfigError
from xai_brain.io.problems import DataError
from xai_brain.statistics.classification import classification_metrics
from xai_brain.statistics.classifier_comparison import Comparison, corrected_t_test, delong_test
from xai_brain.task.labels import LabelRule, class_named, make_labels
from xai_brain.task.protocol import Targets, Task

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "prob_"  # of the columns of predictions.tsv
RESERVED = ("predicted", "true")  # the class that the network predicts, the participant's own class
LABEL, RULE = "label:", "rule:"


@dataclass(frozen=True)
class Classification(Task):
    """The class of a participant, e.g. its sex; targets are the indices of the classes.

    Parameters
    ----------
    names : tuple of str, default ()
        Classes in the order of their index.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    has_classes: ClassVar[bool] = True
    reported_as: ClassVar[str | None] = "classes"
    stratum: ClassVar[str] = "class"
    unknown_target: ClassVar[float] = -1
    outputs: ClassVar[tuple[str, ...]] = ("logit", "logit_difference", "probability")
    group_output: ClassVar[str | None] = "logit_difference"
    score_titles: ClassVar[Mapping[str, str]] = {
        "auroc": "AUROC, mean over folds",
        "auroc_pooled": "AUROC, pooled",
        "balanced_accuracy": "Balanced accuracy",
        "accuracy": "Accuracy",
    }
    compared_scores: ClassVar[tuple[str, ...]] = (
        *("auroc", "auroc_pooled", "balanced_accuracy", "accuracy", "brier"),
    )

    # -- participants --------------------------------------------------------------------------
    def read_targets(self, values: pd.Series, rule: LabelRule, where: str) -> Targets:
        labels, names, reasons = make_labels(values, rule, where)
        values = [names.index(label) if isinstance(label, str) else np.nan for label in labels]
        return Targets(labels, pd.Series(values, labels.index, dtype=object), names, reasons)

    def names_of(self, participants: pd.DataFrame, label: str) -> list[str]:
        return participants.drop_duplicates("target").sort_values("target")["label"].tolist()

    def check_cohort(self, participants: pd.DataFrame, names: Sequence[str], label: str, where: str) -> None:
        """Refuse a cohort in which a class is empty or has one member only."""
        members = participants.drop_duplicates(["participant_id", "label"])["label"]
        counts = members.value_counts().reindex(names, fill_value=0)
        text = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"
        if len(names) < 2 or (counts == 0).any():
            raise DataError(
                f"{where}: two classes of {label} are needed; there are {text}; "
                "see data.label, data.class_names and quarantine.tsv"
            )
        if (counts == 1).any():
            too_small = counts.index[counts == 1][0]
            raise DataError(
                f"{where}: class {too_small!r} of {label} has one member, too few to learn and to test "
                f"({text}); leave it out with data.class_names"
            )

    def describe(self, participants: pd.DataFrame) -> str:
        """Number of participants of each class."""
        unique = participants.drop_duplicates(["participant_id", "label"])
        counts = unique["label"].value_counts().reindex(list(self.names))
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    def is_known(self, targets: np.ndarray) -> np.ndarray:
        return np.asarray(targets) >= 0

    def labels_of(self, targets: np.ndarray) -> list[str | None]:
        return [self.names[int(target)] if target >= 0 else None for target in targets]

    # -- folds ---------------------------------------------------------------------------------
    def strata(self, targets: pd.Series) -> pd.Series:
        return targets

    def check_folds(self, sides: Mapping[int, tuple[pd.Series, pd.Series]]) -> None:
        """Every fold is trained with all classes, and some fold tests two of them."""
        n_tested = []
        for fold, (train, test) in sides.items():
            if absent := sorted({*train, *test} - set(train)):
                raise DataError(f"fold {fold + 1}: its training side has no participant of class {absent[0]}")
            n_tested.append(test.nunique())
        if max(n_tested, default=0) < 2:
            raise DataError(
                "folds: every fold tests one class only, so that no AUROC exists; use other folds"
            )

    # -- training ------------------------------------------------------------------------------
    def loss(self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Cross entropy; with weights the weighted mean over the batch."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets, class_weights)

    def validation_metrics(self) -> dict[str, Any]:
        from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

        n_classes = self.n_outputs
        return {
            "accuracy": MulticlassAccuracy(n_classes, average="micro"),
            "balanced_accuracy": MulticlassAccuracy(n_classes, average="macro"),
            "auroc": MulticlassAUROC(n_classes),
        }

    def fit_temperature(self, outputs: Tensor, targets: Tensor, log_sd: float = 0.5) -> float:
        """Temperature T of logits / T with the highest posterior probability.

        The maximum of the likelihood is at T = 0 if all participants of a small validation part are
        classified correctly. The log-normal prior around 1 prevents this.

        Parameters
        ----------
        outputs : Tensor of shape (N, n_classes)
            Logits.
        targets : Tensor of shape (N,)
        log_sd : float, default 0.5
            Standard deviation of log T in the prior.
        """
        import torch

        candidates = torch.from_numpy(np.geomspace(0.05, 20, 601))
        log_p = (outputs.double()[None] / candidates[:, None, None]).log_softmax(-1)  # (T, N, n_classes)
        likelihood = log_p[:, torch.arange(len(targets)), targets].sum(1)
        prior = -(candidates.log() ** 2) / (2 * log_sd**2)
        return float(candidates[(likelihood + prior).argmax()])

    def predict(self, outputs: Tensor) -> Tensor:
        """Probabilities (N, n_classes) of logits."""
        return outputs.softmax(1)

    # -- predictions.tsv -----------------------------------------------------------------------
    @property
    def columns(self) -> list[str]:
        return [f"{PREFIX}{name}" for name in self.names]

    def names_in(self, columns: Sequence[str]) -> list[str]:
        return [str(name).removeprefix(PREFIX) for name in columns if str(name).startswith(PREFIX)]

    def predicted_labels(self, values: np.ndarray) -> list[str]:
        return [self.names[index] for index in values.argmax(1)]

    def ensemble_columns(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Share of the networks that choose the class of their mean probability."""
        return {"networks_agree": (values.argmax(2) == values.mean(0).argmax(1)).mean(0)}

    # -- scores --------------------------------------------------------------------------------
    def can_be_scored(self, targets: np.ndarray) -> bool:
        """Whether the class of every participant is known, and all classes occur."""
        return {int(target) for target in targets} == set(range(self.n_outputs))

    def scores(
        self, predictions: pd.DataFrame, prefix: str = "test", n_bootstrap: int = 1000, random_state: int = 0
    ) -> dict[str, float]:
        return classification_metrics(predictions, prefix, n_bootstrap, random_state)

    def compare(
        self, first: pd.DataFrame, second: pd.DataFrame, n_participants: int
    ) -> dict[str, tuple[str, Comparison]]:
        return {
            "auroc": ("DeLong", delong_test(first, second)),
            "accuracy": ("corrected t", corrected_t_test(first, second, n_participants)),
        }

    def chance_levels(self, targets: Sequence[Any] | None = None) -> dict[str, float]:
        """Chance levels; those of accuracy and Brier score depend on the targets.

        They are the share of the most frequent class, and the score of the constant prediction of the
        classes' shares.
        """
        levels = dict.fromkeys(("auroc", "auroc_pooled", "auroc_size_matched"), 0.5)
        levels["balanced_accuracy"] = 1 / max(self.n_outputs, 2)
        for name in self.names if self.n_outputs > 2 else ():
            levels |= {f"auroc/{name}": 0.5, f"auroc_pooled/{name}": 0.5}
            levels[f"sensitivity/{name}"] = 1 / self.n_outputs  # of a choice without information
        if targets is not None:
            shares = pd.Series(targets).value_counts(normalize=True)
            levels["accuracy"] = float(shares.max())
            levels["brier"] = float(1 - shares.pow(2).sum()) / (2 if self.n_outputs == 2 else 1)
        return levels

    def summary(self, predictions: pd.DataFrame) -> str:
        accuracy = (predictions[self.columns].to_numpy().argmax(1) == predictions["target"]).mean()
        return f"test accuracy {accuracy:.3f}"

    def missing_scores(self, predictions: pd.DataFrame, scores: Mapping[str, float]) -> str | None:
        if np.isfinite(scores.get("test/auroc", np.nan)):
            return None
        n_tested = predictions.groupby("fold")["target"].nunique()
        incomplete = n_tested.index[n_tested < predictions["target"].nunique()]
        return (
            "test/auroc is not defined, because not every class is tested in fold "
            f"{', '.join(str(fold + 1) for fold in incomplete)}; test/auroc_pooled ranks all folds together"
        )

    # -- explanation ---------------------------------------------------------------------------
    def explained_output(self, outputs: Tensor, name: str) -> Tensor:
        """Logits, probabilities, or each logit minus the mean of the other classes' logits."""
        if name == "probability":
            return outputs.softmax(1)
        if name == "logit_difference":
            others = (outputs.sum(1, keepdim=True) - outputs) / (outputs.shape[1] - 1)
            return outputs - others
        return outputs

    @property
    def valid_targets(self) -> tuple[str, ...]:
        return (*RESERVED, *self.names)

    def read_target(self, target: str) -> str | int:
        """A reserved word, or the index of the class that is explained for all participants.

        Parameters
        ----------
        target : str
            ``predicted``, ``true`` or a label; of sex also as the table spells it, such as M for male. Where
            a label equals one of these words, ``label:true`` is the label and ``rule:true`` the reserved
            word.

        Raises
        ------
        ConfigError
            There is no such label, or it equals a reserved word.
        """
        target = self.in_own_names(target)
        if target in RESERVED and target in self.names:
            raise ConfigError(
                f"explain.target={target}: is a label of this run and also a reserved word; explain.target="
                f"{LABEL}{target} explains the class, explain.target={RULE}{target} is the reserved word"
            )
        if target in self.names:
            return self.names.index(target)
        if target.removeprefix(RULE) in RESERVED:
            return target.removeprefix(RULE)
        if target.startswith(LABEL) and target.removeprefix(LABEL) in self.names:
            return self.names.index(target.removeprefix(LABEL))
        raise ConfigError(
            f"explain.target={target}: one of {', '.join(self.valid_targets)} is needed; "
            "the classes are those of data.label in participants.tsv"
        )

    def in_own_names(self, target: str) -> str:
        """M, as the table may spell it, is male."""
        prefix = LABEL if target.startswith(LABEL) else ""
        return prefix + class_named(target.removeprefix(LABEL), self.names)

    def target_rule(self, target: str) -> str:
        """A reserved word or a label (``label:true``)."""
        found = self.read_target(target)
        if isinstance(found, str):
            return found
        name = self.names[found]
        return f"{LABEL}{name}" if name in RESERVED else name

    def explained_targets(self, target: str, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
        found = self.read_target(target)
        if isinstance(found, int):
            return np.full(len(targets), found)
        if found == "predicted":
            return values.argmax(1)
        if not self.is_known(targets).all():
            raise ConfigError(
                "explain.target=true: there are participants without a label; use predicted or a class"
            )
        return np.asarray(targets, int)

    def target_record(self, index: int, values: np.ndarray) -> dict[str, Any]:
        return {**super().target_record(index, values), "TargetProbability": float(values[index])}

    def reference_groups(self, targets: pd.Series) -> pd.Series:
        return targets

    # -- comparison of groups ------------------------------------------------------------------
    def contrasts(self) -> list[tuple[str, ...]]:
        return list(combinations(self.names, 2))

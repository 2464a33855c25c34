"""Tasks: classification with known answers, and a regression of one class that nothing else knows."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

import xai_brain as xb
from xai_brain.attribution.outputs import ClassScore
from xai_brain.config.schema import ConfigError
from xai_brain.data.folds.splits import make_folds, split_fold
from xai_brain.io.problems import DataError
from xai_brain.io.tables import numbers
from xai_brain.models.calibrated import read_checkpoint
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar
from xai_brain.stages.train import train
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.statistics.classification import brier_score
from xai_brain.task.build import build_task, task_of_table
from xai_brain.task.classification import Classification
from xai_brain.task.labels import LabelRule
from xai_brain.task.protocol import Targets, Task


@dataclass(frozen=True)
class Age(Task):
    """The number of a column, by its mean squared error: everything that the package needs of a task."""

    n_bins: int = 2

    standardizes_targets: ClassVar[bool] = True
    lower_is_better: ClassVar[tuple[str, ...]] = ("train/loss", "val/loss", "val/mae")
    outputs: ClassVar[tuple[str, ...]] = ("number",)

    def read_targets(self, values, rule, where):
        found = numbers(values)
        reasons = found.isna().map({True: f"{rule.column} is no number", False: ""})
        labels = found.map(lambda value: f"{value:g}").where(found.notna())
        return Targets(labels, found, [rule.column], reasons)

    def names_of(self, participants, label):
        return [label]

    def labels_of(self, targets):
        return [f"{target:g}" if np.isfinite(target) else None for target in targets]

    def strata(self, targets):
        return pd.Series(pd.qcut(targets.rank(method="first"), self.n_bins, labels=False), targets.index)

    def loss(self, outputs, targets):
        return (outputs[:, 0] - targets.float()).square().mean()

    def validation_metrics(self):
        from torchmetrics import MeanAbsoluteError

        return {"mae": MeanAbsoluteError()}

    @property
    def columns(self):
        return [f"predicted_{name}" for name in self.names]

    def names_in(self, columns):
        return [name.removeprefix("predicted_") for name in columns if name.startswith("predicted_")]

    def predicted_labels(self, values):
        return [f"{value:.1f}" for value in values[:, 0]]

    def scores(self, predictions, prefix="test", n_bootstrap=1000, random_state=0):
        errors = (predictions[self.columns[0]] - predictions["target"]).abs()
        value, low, high = bootstrap_mean(errors.to_numpy(), n_bootstrap, random_state)
        return {f"{prefix}/mae": value, f"{prefix}/mae_ci_low": low, f"{prefix}/mae_ci_high": high}

    def chance_levels(self, targets=None):
        return {} if targets is None else {"mae": float(np.abs(targets - np.mean(targets)).mean())}

    def summary(self, predictions):
        return f"mean absolute error {self.scores(predictions, n_bootstrap=1)['test/mae']:.2f}"

    @property
    def valid_targets(self):
        return ("predicted", *self.names)

    def read_target(self, target):
        if target not in self.valid_targets:
            raise ConfigError(f"explain.target={target}: one of {', '.join(self.valid_targets)} is needed")
        return 0

    def explained_targets(self, target, values, targets):
        return np.full(len(targets), self.read_target(target))


TASK = f"task._target_={__name__}.Age"
SETTINGS = [
    *("data=synthetic", "data.label=age", "data.class_names=null", "data.cohort.n_subjects=16"),
    *("preprocessing=t1w_4mm", "model.channels=[2,3,4]", "trainer.max_epochs=2", "trainer.batch_size=4"),
    *("trainer.monitor=val/mae", "folds.n_folds=2", "evaluation.n_bootstrap=20", "attribution=[saliency]"),
    *(TASK, "+task.n_bins=3", f"trusted_modules=[{__name__}]"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RunDirectory:
    """The whole path of a task without classes."""
    run_dir = tmp_path_factory.mktemp("task") / "age"
    return xb.run(xb.compose("run", [*SETTINGS, f"run_dir={run_dir}"]))


# -- a task of one class -------------------------------------------------------------------------
def test_a_new_task_predicts_out_of_fold_with_its_own_columns_and_scores(trained):
    predictions, participants = read_tsv(trained.predictions), read_tsv(trained.participants)
    assert list(predictions) == ["participant_id", "session_id", "seed", "fold", "target", "predicted_age"]
    ages = participants.set_index("participant_id")["age"]
    np.testing.assert_array_equal(predictions["target"], ages[predictions["participant_id"]])
    # the unit is that of the targets, and not that of their z-scores
    assert predictions["predicted_age"].between(ages.min() - 30, ages.max() + 30).all()
    metrics = read_json(trained.metrics)
    error = (predictions["predicted_age"] - predictions["target"]).abs().mean()
    assert metrics["test/mae"] == pytest.approx(error)
    assert metrics["test/mae_ci_low"] <= metrics["test/mae"] <= metrics["test/mae_ci_high"]
    assert not [name for name in metrics if name.startswith("test/") and "mae" not in name]
    history = read_tsv(trained.history(0, 0))
    assert {"train/loss", "val/loss", "val/mae"} == set(history["metric"])


def test_folds_of_a_new_task_are_stratified_by_its_strata(trained):
    participants = read_tsv(trained.participants).set_index("participant_id")["target"]
    folds = read_tsv(trained.folds).set_index("participant_id")["fold"]
    strata = Age(n_bins=3).strata(participants)
    counts = pd.crosstab(strata, folds[participants.index].to_numpy())
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1


def test_a_checkpoint_contains_its_task(trained):
    network = read_checkpoint(trained.checkpoint(0, 0))
    assert network.task == Age(("age",), n_bins=3)
    rows = read_tsv(trained.predictions).query("fold == 0")
    assert float(network.target_sd) > 1
    assert abs(float(network.target_mean) - rows["target"].mean()) < 20


def test_a_new_task_is_explained(trained):
    network = read_checkpoint(trained.checkpoint(0, 0))
    row = read_tsv(trained.predictions).query("fold == 0").iloc[0]
    path = trained.attribution(row["participant_id"], row["session_id"], "Saliency", 0)
    about = read_json(sidecar(path))
    assert (about["Target"], about["TargetName"], about["Output"]) == (0, "age", "number")
    assert "TargetProbability" not in about
    prepared = trained.image(row["participant_id"], row["session_id"])
    values = np.asarray(nib.load(path).dataobj)
    assert values.shape == nib.load(prepared).shape
    assert np.abs(values).max() > 0
    assert network.output_names == ["age"]


def test_a_study_shows_a_new_task(trained):
    study = xb.open_study(trained.path, trusted_modules=[__name__])
    table = study.predictions
    assert table["label"].tolist() == [f"{target:g}" for target in table["target"]]
    assert table["predicted"].tolist() == [f"{value:.1f}" for value in table["predicted_age"]]
    assert study.scores["metric"].tolist() == ["mae"]
    with pytest.raises(ConfigError, match=r"there is no target 'male'; there are predicted, age"):
        study.explain(["Saliency"], target="male")


def test_a_new_task_is_given_as_a_class(tmp_path):
    cohort = xb.load_cohort("synthetic", label="age", task=Age, n_subjects=12)
    ages = cohort.table["age"]
    assert repr(cohort) == f"Cohort(12 participants: age {ages.min():g} to {ages.max():g}; not prepared)"
    assert cohort.class_names == ["age"]
    study = xb.cross_validate(
        cohort.prepare("t1w_4mm"),
        n_folds=2,
        max_epochs=1,
        batch_size=4,
        model_settings={"channels": [2, 3, 4]},
        run_dir=tmp_path / "age",
    )
    assert study.predictions["target"].tolist() == [float(label) for label in study.predictions["label"]]
    summary = read_tsv(tmp_path / "age" / "fold_summary.tsv")
    assert list(summary)[3:5] == ["target_mean", "target_sd"]
    with pytest.raises(ConfigError, match=r"there is no task 'regresion'; there are classification"):
        xb.load_cohort("synthetic", task="regresion")  # codespell:ignore


@pytest.mark.parametrize("command", ["evaluate", "report", "validate"])
def test_commands_that_compare_classes_refuse_a_task_without(trained, command):
    settings = xb.compose("run", [*SETTINGS, f"run_dir={trained.path}"])
    with pytest.raises(ConfigError, match=r"test_task\.Age: .* classes") as caught:
        getattr(import_module(f"xai_brain.stages.{command}"), command)(settings)
    assert len(str(caught.value).splitlines()) == 1
    assert not trained.report.exists()


@pytest.mark.parametrize(
    "setting", ["planted=lesion", "baselines=[pca_logistic]", "data.brain_size_column=brain_volume_ml"]
)
def test_settings_that_need_classes_are_refused_before_any_work(setting):
    with pytest.raises(ConfigError, match=r"needs classes; leave it out, or use task=classification"):
        xb.compose("run", [*SETTINGS, setting])


@pytest.mark.parametrize(("name", "label"), [("kan2020", "Kan2020Perturbation"), ("t_map", "TMap")])
def test_methods_that_explain_classes_are_refused_before_training(trained, name, label):
    settings = [f"attribution=[{name}]", f"run_dir={trained.path.parent / 'other'}"]
    with pytest.raises(ConfigError, match=rf"attribution\.{label}: explains the evidence for a class"):
        train(xb.compose("train", [*SETTINGS, *settings]))
    assert not (trained.path.parent / "other").exists()


def test_new_participants_are_predicted_with_a_new_task(trained, tmp_path):
    from xai_brain.stages.predict import predict
    from xai_brain.study.training.predict_settings import predict_settings

    new = ["data=synthetic", "data.class_names=null", "data.cohort.n_subjects=6", "data.cohort.seed=7"]
    settings = [f"networks={trained.path}", *new, f"run_dir={tmp_path / 'new'}"]
    with pytest.raises(ConfigError, match=rf"runs code of {__name__}; if you trust it, add trusted_modules"):
        predict_settings(settings)
    done = predict(predict_settings([*settings, f"trusted_modules=[{__name__}]"]))
    predictions = read_tsv(done.predictions)
    assert "networks_agree" not in predictions
    assert (predictions["n_networks"] == 2).all()
    assert "test/mae" in read_json(done.metrics)


# -- trust ---------------------------------------------------------------------------------------
def test_tasks_of_packages_that_are_not_trusted_do_not_run(tmp_path, monkeypatch):
    (tmp_path / "evil_task.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"task\._target_=evil_task\.Task: its package is not trusted"):
        xb.compose("run", ["experiment=demo", "task._target_=evil_task.Task"])
    with pytest.raises(ValueError, match=r"task\._target_=evil_task\.Task: its package is not trusted"):
        build_task({"_target_": "evil_task.Task"})


@pytest.mark.parametrize("target", ["torch.load", "xai_brain.task.protocol.Targets", "torch.nn.ReLU"])
def test_only_classes_of_tasks_are_made(target):
    with pytest.raises(ValueError, match=r"is not a class of tasks"):
        build_task({"_target_": target})
    with pytest.raises(ConfigError, match=r"task\._target_="):
        xb.compose("run", ["experiment=demo", f"task._target_={target}"])


def test_settings_of_a_task_that_do_not_exist_are_refused():
    with pytest.raises(ConfigError, match=r"task\._target_=.*Classification: .*'margin'"):
        xb.compose("run", ["experiment=demo", "+task.margin=2"])
    with pytest.raises(ConfigError, match=r"explain\.output=odds: one of logit, logit_difference, prob"):
        xb.compose("run", ["experiment=demo", "explain.output=odds"])


# -- classification ------------------------------------------------------------------------------
SEX = Classification(("female", "male"))


def test_settings_of_a_task_give_the_same_task():
    assert SEX.settings() == {"_target_": "xai_brain.task.classification.Classification"}
    assert build_task(SEX.settings(), SEX.names) == SEX
    assert build_task(Age(n_bins=4).settings()) == Age(n_bins=4)
    assert task_of_table(None, ["participant_id", "prob_female", "prob_male"]) == SEX


def test_labels_become_indices_and_back():
    rule = LabelRule("sex", ["female", "male"])
    found = SEX.read_targets(pd.Series(["M", "F", np.nan, "x"], dtype=object), rule, "x.tsv")
    assert found.labels.tolist()[:2] == ["male", "female"]
    assert found.values.tolist()[:2] == [1, 0]
    assert [bool(reason) for reason in found.reasons] == [False, False, True, True]
    assert SEX.labels_of(np.array([1, 0, -1])) == ["male", "female", None]


def test_chance_is_stated_once_and_depends_on_the_classes():
    three = Classification(("a", "b", "c"))
    assert three.chance_levels()["balanced_accuracy"] == pytest.approx(1 / 3)
    assert three.chance_levels()["auroc"] == 0.5
    assert "accuracy" not in three.chance_levels()
    assert three.chance_levels([0, 0, 0, 1])["accuracy"] == 0.75
    assert three.chance_levels([0, 0, 1, 2])["brier"] == pytest.approx(1 - (1 / 4 + 1 / 16 + 1 / 16))
    assert SEX.chance_levels([0, 1])["brier"] == pytest.approx(0.25)
    assert SEX.chance_levels([0, 0, 0, 1])["brier"] == pytest.approx(0.75 * 0.25)  # of the constant 0.25


def test_the_chance_level_of_the_brier_score_is_that_of_the_shares():
    targets = np.array([0, 0, 0, 1, 2])
    constant = np.tile([0.6, 0.2, 0.2], (5, 1))
    expected = brier_score(targets, constant)
    assert Classification(("a", "b", "c")).chance_levels(targets)["brier"] == pytest.approx(expected)


def test_explained_outputs_have_known_values():
    logits = torch.tensor([[1.0, 3.0, 5.0]])
    three = Classification(("a", "b", "c"))
    difference = three.explained_output(logits, "logit_difference")
    torch.testing.assert_close(difference, torch.tensor([[-3.0, 0.0, 3.0]]))
    assert three.explained_output(logits, "probability").sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="one of number"):
        ClassScore(torch.nn.Identity(), "logit", Age(("age",)))
    numbers_of = ClassScore(torch.nn.Identity(), "number", Age(("age",)))
    assert numbers_of(torch.tensor([[63.0]])).item() == 63


def test_the_outputs_that_methods_explain_by_default_follow_from_the_task():
    assert [SEX.default_output(name) for name in ("logit", "probability")] == ["logit", "probability"]
    assert Age(("age",)).default_output("probability") == "number"


def test_groups_are_compared_in_pairs_of_classes():
    assert Classification(("a", "b", "c")).contrasts() == [("a", "b"), ("a", "c"), ("b", "c")]
    assert Age(("age",)).contrasts() == []


def test_the_best_epoch_has_the_lowest_loss_or_the_highest_score():
    assert [SEX.monitor_mode(name) for name in ("val/loss", "val/auroc")] == ["min", "max"]
    assert Age().monitor_mode("val/mae") == "min"


def test_networks_agree_where_they_choose_the_class_of_their_mean():
    values = np.array([[[0.9, 0.1]], [[0.8, 0.2]], [[0.4, 0.6]]])  # (n_networks, n, n_classes)
    np.testing.assert_allclose(SEX.ensemble_columns(values)["networks_agree"], [2 / 3])


def test_folds_need_every_class_on_the_training_side():
    train, test = pd.Series([0, 0]), pd.Series([0, 1])
    with pytest.raises(DataError, match="no participant of class 1"):
        SEX.check_folds({0: (train, test)})
    with pytest.raises(DataError, match="no AUROC exists"):
        SEX.check_folds({0: (pd.Series([0, 1]), pd.Series([0]))})


def test_validation_parts_of_numbers_are_stratified_too():
    rng = np.random.default_rng(0)
    ids = [f"sub-{i:02d}" for i in range(40)]
    table = pd.DataFrame({"participant_id": ids, "target": rng.normal(60, 10, 40)})
    folds = make_folds(table, 4, task=Age())
    parts = split_fold(table, folds, 0, 0.2, task=Age())
    assert sorted(map(len, parts.values())) == [6, 10, 24]
    assert parts["validation"]["target"].gt(table["target"].median()).sum() == 3


def test_results_are_read_without_torch():
    code = (
        "import sys; from xai_brain.task.build import task_of_table; import xai_brain.reporting.contents; "
        "task_of_table(None, ['prob_a', 'prob_b']).chance_levels(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""NaN and infinite losses, predictions and maps stop the command; no mean leaves them out."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from torch import nn

from xai_brain.baselines.classifiers import BaselineError
from xai_brain.baselines.kinds import brain_size_predictions
from xai_brain.cli import main
from xai_brain.metrics.mask_validation import COLUMNS, validation_table
from xai_brain.models.fitting import fit_fold, naming_network, predict_outputs
from xai_brain.models.training_callbacks import StopAtNonFinite, TrainingError
from xai_brain.reporting.sections.baseline import section as baseline_section
from xai_brain.runs.directory import RunDirectory, read_json
from xai_brain.study.evaluation.tables import summarise
from xai_brain.study.training import cross_validation as training
from xai_brain.task.classification import Classification

LR = {"lr": 1e30, "monitor": "val/auroc", "precision": "16-mixed", "max_epochs": 7}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"train/loss": np.nan}, "train/loss is NaN in epoch 4 of 7"),
        ({"train/loss": np.inf, "val/loss": np.nan}, "train/loss is infinite in epoch 4 of 7"),
        ({"train/loss": 0.5, "val/loss": np.nan}, "val/loss is NaN in epoch 4 of 7"),
        ({"train/loss": 0.5, "val/loss": 0.5, "val/auroc": np.nan}, "val/auroc is NaN in epoch 4"),
    ],
)
def test_losses_and_the_monitored_figure_must_be_finite(metrics, message):
    trainer = SimpleNamespace(
        current_epoch=3, callback_metrics={k: torch.tensor(v) for k, v in metrics.items()}
    )
    with (
        pytest.raises(TrainingError, match=message) as caught,
        naming_network("train seed 0 fold 2/5"),
    ):
        StopAtNonFinite(LR).on_train_epoch_end(trainer, None)
    text = str(caught.value)
    assert text.startswith("train seed 0 fold 2/5: ")
    assert "lower trainer.lr (now 1e+30), trainer.precision=32-true (now 16-mixed)" in text
    finite = {"train/loss": torch.tensor(0.5), "val/loss": torch.tensor(0.6), "val/auroc": torch.tensor(0.5)}
    StopAtNonFinite(LR).on_train_epoch_end(SimpleNamespace(current_epoch=3, callback_metrics=finite), None)


def test_outputs_must_be_finite():
    class Overflow(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum((1, 2, 3, 4)), 1 / (x.amax((1, 2, 3, 4)) - 1)], 1)

    volumes = torch.zeros(3, 1, 4, 5, 6)
    volumes[1] = 1
    loader = [{"volume": volumes, "target": torch.zeros(3)}]
    with pytest.raises(TrainingError, match="the outputs for 1 of 3 images are NaN or infinite"):
        predict_outputs(Overflow(), loader)


def test_a_training_that_diverges_in_one_fold_ends_with_an_error(tmp_path, monkeypatch, capsys):
    def diverging(*arguments, seed, **options):
        data, network, trainer = arguments
        return fit_fold(
            data, network | {"lr": 1e30 if seed % 1000 == 1 else 1e-3}, trainer, seed=seed, **options
        )

    monkeypatch.setattr(training, "fit_fold", diverging)
    run = RunDirectory(tmp_path / "run")
    assert main(["train", *SMALL, "trainer.lr=1e30", f"run_dir={run.path}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xai-brain: train seed 0 fold 2/2: train/loss is NaN in epoch 1 of 2; ")
    assert "trainer.lr (now 1e+30)" in line
    assert run.checkpoint(0, 0).exists()
    assert not run.checkpoint(1, 0).exists()
    assert not run.predictions.exists()
    assert not run.metrics.exists() or not any(key.startswith("test/") for key in read_json(run.metrics))


@pytest.mark.slow
def test_a_sweep_records_the_job_as_failed(tmp_path, capsys):
    sweep = [*SMALL, "trainer.max_epochs=1", "trainer.lr=1e-3,1e30", f"run_dir={tmp_path / 'sweep'}"]
    assert main(["train", "-m", *sweep]) == 1
    records = [read_json(tmp_path / "sweep" / job / "job.json") for job in "01"]
    assert [record["state"] for record in records] == ["complete", "failed"]
    assert records[1]["error"].startswith("train seed 0 fold 1/2: train/loss is NaN in epoch 1 of 1")
    assert "job 1 failed: train seed 0 fold 1/2" in capsys.readouterr().err


def test_masks_have_no_auroc_where_a_fold_tests_one_class():
    condition = {"method": "M", "mask": "joint", "area_percent": 5.0, "kept": "mask", "control": "map",
                 "retrained": False, "draw": 0}  # fmt: skip
    rows = pd.DataFrame(
        {"participant_id": [f"sub-{i}" for i in range(8)], "session_id": "", "seed": 0,
         "fold": [0] * 4 + [1] * 4, "target": [0, 1, 0, 1, 0, 1, 0, 1],
         "prob_a": np.linspace(0.9, 0.1, 8), "prob_b": np.linspace(0.1, 0.9, 8), **condition}
    )  # fmt: skip

    def auroc(table):
        found = validation_table(table, n_bootstrap=2)
        return found.loc[found["metric"] == "auroc", "value"].item()

    assert COLUMNS[0] == "method"
    assert auroc(rows) == 0.75
    assert np.isnan(auroc(rows.assign(target=[0, 1, 0, 1, 1, 1, 1, 1])))


def test_a_baseline_without_numbers_in_a_fold_is_refused():
    people = pd.DataFrame(
        {"participant_id": [f"sub-{i}" for i in range(12)], "target": [0, 1] * 6, "label": ["a", "b"] * 6,
         "session_id": "", "icv": [1000.0 + i for i in range(12)]}
    )  # fmt: skip
    folds = pd.DataFrame({"participant_id": people["participant_id"], "fold": [0] * 4 + [1] * 4 + [2] * 4})
    predict = partial(brain_size_predictions, folds=folds, column="icv", task=Classification(("a", "b")))
    assert len(predict(people)) == 12
    with pytest.raises(BaselineError, match="icv: no number for any test participant of fold 2"):
        predict(people.assign(icv=people["icv"].where(folds["fold"] != 1)))


def test_a_subject_with_an_empty_map_of_one_seed_is_not_averaged_over_the_others():
    rows = [
        {"participant_id": f"sub-{i}", "session_id": "", "seed": seed, "method": "GradCAM", "metric": "rra",
         "value": 0.1 * i + 0.2 * seed, "chance": 0.05}
        for i in range(4) for seed in (0, 1) if (i, seed) != (3, 1)
    ]  # fmt: skip
    (found,) = summarise([], rows, 10, 0).to_dict("records")
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(np.mean([0.1, 0.2, 0.3]))


@pytest.mark.parametrize("value", [0.7, np.nan])
def test_the_report_compares_by_the_pooled_auroc_where_there_is_no_mean_over_folds(value):
    metrics = {"auroc": value, "auroc_pooled": 0.6, "balanced_accuracy": 0.6, "accuracy": 0.6, "brier": 0.2}
    table = pd.DataFrame(
        {"name": name, "metric": metric, "value": figure, "ci_low": 0.5, "ci_high": 0.7, "n_subjects": 20,
         "difference": np.nan}
        for name in ("network", "brain_size") for metric, figure in metrics.items()
    )  # fmt: skip
    contents = SimpleNamespace(evaluation={"baselines": table}.get, task=Classification(("a", "b")))
    section = baseline_section(contents, SimpleNamespace(add=lambda name, **figures: name))
    expected = ("AUROC, pooled", 0.6) if np.isnan(value) else ("AUROC, mean over folds", 0.7)
    assert (section["titles"][0], section["best"]["estimate"].value) == expected
    assert section["brain_size"].value == expected[1]


class Broken:
    """NaN in the map of the second volume."""

    def __init__(self, model):
        self.model = model

    def attribute(self, inputs, target):
        maps = inputs.detach().clone()
        maps[1, 0, 3, 4, 5] = torch.nan
        return maps


def test_a_map_with_nan_is_not_saved(copied, capsys):
    method = "+attribution.Broken={_target_: test_non_finite.Broken, _partial_: true}"
    trust = "trusted_modules=[test_non_finite]"
    assert main(["explain", f"run_dir={copied.path}", method, trust]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "attribution.Broken: the maps of sub-" in line
    assert "contain NaN or infinite values (network of seed 0, fold 1); remove the method with ~attr" in line
    assert not list(copied.path.rglob("*desc-Broken*"))

"""People who were in no fold: predicted and explained by all networks of a run together."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL

from xai_brain import BrainClassifier, RunDirectory, compose
from xai_brain.attribution import ClassScore, GradCAM
from xai_brain.cli import main
from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.io.problems import DataError
from xai_brain.runs.directory import read_json, read_tsv, sidecar
from xai_brain.stages.evaluate import evaluate
from xai_brain.stages.explain import explain
from xai_brain.stages.predict import predict
from xai_brain.stages.report import report
from xai_brain.stages.train import train
from xai_brain.study.training.predict_settings import predict_settings


@pytest.fixture
def new_people(small_run, tmp_path) -> list[str]:
    """Settings that name the embedded cohort with another seed, eight people."""
    return [
        f"networks={small_run.path}",
        "data=synthetic",
        "data.cohort.n_subjects=8",
        "data.cohort.seed=77",
        f"run_dir={tmp_path / 'new'}",
    ]


def test_probabilities_are_the_mean_of_the_networks(small_run, new_people):
    run = predict(predict_settings(new_people))
    table = read_tsv(run.predictions)
    assert len(table) == 8
    assert set(table["n_networks"]) == {2}
    volumes = prepared_volumes(new_people)
    each = []
    for fold in (0, 1):
        network = BrainClassifier.load_from_checkpoint(
            small_run.checkpoint(fold, 0), map_location="cpu"
        ).eval()
        with torch.no_grad():
            each.append(network(volumes).softmax(1).numpy())
    mean = np.mean(each, 0)
    np.testing.assert_allclose(table[["prob_female", "prob_male"]], mean, atol=1e-5)
    agree = np.mean([p.argmax(1) == mean.argmax(1) for p in each], 0)
    np.testing.assert_allclose(table["networks_agree"], agree)
    assert {"test/auroc", "test/auroc_ci_low"} <= set(read_json(run.metrics))


def prepared_volumes(settings: list[str]) -> torch.Tensor:
    from xai_brain.study.participants import prepared_cohort

    cfg = predict_settings(settings)
    cohort = prepared_cohort(cfg, RunDirectory(cfg.run_dir))
    return torch.from_numpy(np.stack([np.load(path) for path in cohort["volume_path"]]))[:, None]


@pytest.mark.slow
def test_a_map_is_the_mean_of_the_maps_of_the_networks(small_run, new_people):
    cfg = predict_settings(new_people)
    run = predict(cfg)
    explain(stage_settings("explain", [f"run_dir={run.path}"]))
    row = read_tsv(run.predictions).iloc[3]
    path = run.attribution(row["participant_id"], row["session_id"], "GradCAM", 0)
    about = read_json(sidecar(path))
    assert about["NumberOfNetworks"] == 2
    assert [network["Fold"] for network in about["Networks"]] == [0, 1]
    volume, target = prepared_volumes(new_people)[3:4], torch.tensor([about["Target"]])
    maps = []
    for fold in (0, 1):
        network = BrainClassifier.load_from_checkpoint(
            small_run.checkpoint(fold, 0), map_location="cpu"
        ).eval()
        maps.append(GradCAM(ClassScore(network, "logit")).attribute(volume, target)[0, 0].numpy())
    saved = np.asarray(nib.load(path).dataobj)
    np.testing.assert_allclose(saved, np.mean(maps, 0), atol=1e-5 * np.abs(saved).max())
    assert np.abs(maps[0] - maps[1]).max() > 0.01 * np.abs(saved).max()
    evaluate(stage_settings("evaluate", [f"run_dir={run.path}"]))
    page = report(stage_settings("report", [f"run_dir={run.path}"])).report.read_text()
    assert "Prediction of new participants" in page
    assert "Participants are explained out of fold" not in page


def test_people_without_labels_are_predicted_and_explained(new_people, capsys):
    settings = [*new_people, "data.label=null", "attribution=[grad_cam]"]
    assert main(["predict", *settings]) == 0
    run = RunDirectory(settings[4].split("=")[1])
    assert set(read_tsv(run.predictions)["target"]) == {-1}
    assert not any(name.startswith("test/") for name in read_json(run.metrics))
    for stage in ("explain", "evaluate", "report"):
        assert main([stage, f"run_dir={run.path}"]) == 0, capsys.readouterr().err
    assert run.group_map("GradCAM", "class-unknown", "mean").exists()
    page = run.report.read_text()
    assert "true classes are not known" in page
    assert main(["explain", f"run_dir={run.path}", "explain.target=true", "overwrite=true"]) == 1
    assert "without a label" in capsys.readouterr().err


def test_metrics_of_one_network_do_not_apply_to_mean_maps(new_people, capsys):
    run = predict(predict_settings([*new_people, "data.label=null", "attribution=[saliency]"]))
    explain(stage_settings("explain", [f"run_dir={run.path}"]))
    card = "evaluation.card.metrics=[parameter_randomization,deletion]"
    evaluate(stage_settings("evaluate", [f"run_dir={run.path}", card]))
    assert "no metric applies to this run (maps of new participants are means" in capsys.readouterr().out
    assert not run.evaluation("report_card").exists()


def test_people_of_one_class_have_no_auroc(bids_tree, small_run, tmp_path):
    table = pd.read_csv(bids_tree / "participants.tsv", sep="\t").query("sex == 'F'")
    table["participant_id"] = table["participant_id"]
    table.to_csv(bids_tree / "participants.tsv", sep="\t", index=False)
    for path in set(bids_tree.glob("sub-*")) - {bids_tree / name for name in table["participant_id"]}:
        shutil.rmtree(path)
    settings = [
        f"networks={small_run.path}",
        "data=bids",
        f"data.root={bids_tree}",
        f"run_dir={tmp_path / 'new'}",
    ]
    run = predict(predict_settings(settings))
    assert len(read_tsv(run.predictions)) == len(table) == 3
    assert not any(name.startswith("test/") for name in read_json(run.metrics))


def test_people_of_the_training_cohort_are_refused(small_run, tmp_path):
    settings = [
        f"networks={small_run.path}",
        "data=synthetic",
        "data.cohort.n_subjects=24",
        "data.cohort.seed=2020",
    ]
    with pytest.raises(DataError, match=r"in the cohort that the networks .* were trained on"):
        predict(predict_settings([*settings, f"run_dir={tmp_path / 'new'}"]))


def test_what_belongs_to_training_cannot_be_changed(new_people, small_run, tmp_path):
    with pytest.raises(ConfigError, match="belongs to training"):
        predict_settings([*new_people, "preprocessing=t1w_2mm"])
    with pytest.raises(ConfigError, match=r"one of networks and model\.weights is needed"):
        predict_settings(new_people[1:])
    with pytest.raises(ConfigError, match="holds a trained run"):
        predict(predict_settings([*new_people[:-1], f"run_dir={small_run.path}"]))
    with pytest.raises(ConfigError, match="does not exist"):
        predict_settings([f"networks={tmp_path / 'nowhere'}", *new_people[1:]])
    run = predict(predict_settings(new_people))
    with pytest.raises(ConfigError, match="has no networks of its own"):
        predict_settings([f"networks={run.path}", *new_people[1:-1], f"run_dir={tmp_path / 'third'}"])


def test_other_networks_do_not_explain_under_the_same_name(small_run, new_people, tmp_path):
    run = predict(predict_settings(new_people))
    other = train(
        compose("train", [*SMALL, f"run_dir={tmp_path / 'other'}", "seeds=[5]", "trainer.max_epochs=1"])
    )
    with pytest.raises(ConfigError, match="are not those that made"):
        explain(stage_settings("explain", [f"run_dir={run.path}", f"networks={other.path}"]))

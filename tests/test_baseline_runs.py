"""The stage of baselines: what it leaves, that it goes on where it was, what it refuses."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from test_baselines import cohort_of_volumes

from xai_brain import RunDirectory, compose
from xai_brain.config.checks import read_config
from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.data.slabs import SlabDataModule, brain_slabs
from xai_brain.models.calibrated import build_network, missing_package
from xai_brain.models.networks.sfcn import SFCN
from xai_brain.models.networks.slices2d import SlabNet, calibrated_votes, vote
from xai_brain.runs.directory import read_json, read_tsv, update_metrics
from xai_brain.stages.baselines import baselines
from xai_brain.stages.train import train
from xai_brain.statistics.classification import auroc
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.training.fit_baselines import fit_estimator


def test_slabs_lie_side_by_side_in_the_brain(tmp_path):
    masks = np.zeros((4, 12, 5))
    masks[:, 2:10] = 1  # eight slices: two slabs of three in their middle
    masks[0, 1, 0] = 1  # a twentieth of a slice
    assert brain_slabs(masks, 3) == [3, 6]
    assert brain_slabs(masks, 8) == [2]
    with pytest.raises(ValueError, match="n_slices=9: only 8 coronal slices hold enough brain"):
        brain_slabs(masks, 9)
    cohort = cohort_of_volumes(tmp_path, n=6)
    parts = {"train": cohort[:4], "validation": cohort[4:5], "test": cohort[5:]}
    module = SlabDataModule(parts, 2, batch_size=3)
    slab = module.test_dataloader().dataset[1]
    start = module.starts[1]
    expected = np.load(cohort["volume_path"].iloc[5])[:, start : start + 2].transpose(1, 0, 2)
    np.testing.assert_array_equal(slab["volume"], expected)
    assert slab["volume"].shape == (2, 7, 9)
    assert (slab["participant_id"], slab["target"]) == ("sub-05", 1)
    for path in cohort["volume_mask_path"][4:]:  # whom the network does not learn from has no say
        np.save(path, np.zeros((7, 8, 9), bool))
    assert SlabDataModule(parts, 2).starts == module.starts


def test_the_majority_of_slabs_decides():
    # two slabs barely for class 0, one surely for class 1; then a tie that the mean probability decides
    logits = torch.tensor([[0.1, 0], [0.1, 0], [0, 9.0]])
    p = vote(logits, 3).exp()
    assert p.argmax(1).tolist() == [0]
    mean = logits.double().softmax(1).mean(0)
    torch.testing.assert_close(p[0], (torch.tensor([2.0, 1.0]) + mean) / 4)
    assert vote(torch.tensor([[0.1, 0], [0, 9.0]]), 2).argmax(1).tolist() == [1]
    many = torch.randn(30 * 5, 2, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(30).repeat_interleave(5) % 2
    calibrated = calibrated_votes(many, targets, many, 5)
    assert torch.equal(calibrated.argmax(1), vote(many, 5).argmax(1))
    # votes that say nothing of the class are made less sure
    assert calibrated.softmax(1).max(1)[0].mean() < vote(many, 5).softmax(1).max(1)[0].mean()


def test_networks_of_baselines():
    with pytest.raises(ValueError, match="at least 32 voxels per axis"):
        SFCN((58, 31, 58))
    network = SFCN((33, 34, 40), n_classes=3).eval()
    assert network(torch.zeros(2, 1, 33, 34, 40)).shape == (2, 3)
    assert sum(p.numel() for p in SFCN().parameters()) == 2_950_466
    assert SlabNet((5, 17, 22), n_classes=3)(torch.zeros(2, 5, 17, 22)).shape == (2, 3)
    with pytest.raises(ValueError, match="slices of 7 x 20 voxels are too small; at least 8"):
        SlabNet((3, 7, 20))


@pytest.mark.parametrize("choice", ["resnet18", "densenet121"])
def test_networks_of_monai(choice):
    pytest.importorskip("monai", reason="MONAI is not installed (make install)")
    settings = dict(compose("train", ["data=synthetic", f"model={choice}"]).model)
    network = build_network(settings.pop("_target_"), settings, [33, 40, 36], 3).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 1, 33, 40, 36)).shape == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sfcn", "resnet18", "densenet121"])
def test_networks_on_whole_volumes_are_trained_and_compared(name, small_run, tmp_path, capsys):
    if name != "sfcn":
        pytest.importorskip("monai", reason="MONAI is not installed (make install)")
    shutil.copytree(small_run.path, tmp_path / "run")
    settings = [f"run_dir={tmp_path}/run", f"baselines=[{name}]", f"+baselines.{name}.trainer.max_epochs=1"]
    run = baselines(stage_settings("baselines", settings))
    message = capsys.readouterr().out
    assert f"{name} seed 0 fold 1/2: epoch 1/1, train/loss" in message
    table = read_tsv(run.baseline(name))
    assert sorted(table["participant_id"]) == sorted(read_tsv(run.folds)["participant_id"])
    np.testing.assert_allclose(table.filter(regex="^prob_").sum(axis=1), 1, atol=1e-6)
    assert {"network", name, "chosen_network"} == set(read_tsv(run.evaluation("baselines"))["name"])
    assert np.isfinite(read_json(run.metrics)[f"baseline/{name}/auroc"])


def test_what_is_missing_is_named():
    assert missing_package("torch.nn.Linear") is None
    assert missing_package("surely_not_there.Net") == "surely_not_there"


@pytest.fixture(scope="module")
def with_baselines(small_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines") / "run"
    shutil.copytree(small_run.path, folder)
    people = read_tsv(RunDirectory(folder).participants)
    rng = np.random.default_rng(0)
    ids = people["participant_id"].str.removeprefix("sub-")
    table = pd.DataFrame({"Subject": ids, "sex": people["label"],
                          "noise": rng.normal(size=len(people)),
                          "volume": 10 + people["target"] + rng.normal(0, 0.1, len(people))})  # fmt: skip
    table.to_csv(folder.parent / "table.csv", index=False)
    return baselines(stage_settings("baselines", [*CHOSEN, f"run_dir={folder}",
                                                  f"morphometry={folder.parent}/table.csv"]))  # fmt: skip


CHOSEN = [
    "baselines=[pca_logistic,slabs3,morphometry_logistic]",
    "baselines.pca_logistic.choices.pca__n_components=[2,4]",
    "baselines.pca_logistic.choices.logisticregression__C=[1,10]",
    "+baselines.slabs3.trainer.max_epochs=1",
    "data.brain_size_column=age",
]


def test_baselines_use_the_folds_of_the_run(with_baselines):
    run = with_baselines
    folds = read_tsv(run.folds).set_index("participant_id")["fold"]
    for name in ("pca_logistic", "slabs3", "morphometry_logistic"):
        table = read_tsv(run.baseline(name))
        assert sorted(table["participant_id"]) == sorted(folds.index)
        assert (table["fold"].to_numpy() == folds.loc[table["participant_id"]]).all()
        np.testing.assert_allclose(table.filter(regex="^prob_").sum(axis=1), 1, atol=1e-6)
    chosen = read_tsv(run.baseline("pca_logistic", "choices"))
    assert chosen["fold"].tolist() == [0, 0, 1, 1]
    assert set(chosen.loc[chosen["setting"] == "pca__n_components", "value"]) <= {2, 4}
    of_table = read_tsv(run.baseline("morphometry_logistic"))
    p = of_table.filter(regex="^prob_").to_numpy()
    assert auroc(of_table["target"].to_numpy(), p) == 1  # its volumes differ by ten standard deviations
    record = read_json(run.baseline("morphometry_logistic").with_name("table.json"))
    assert record["columns"] == ["noise", "volume"]
    found = read_tsv(run.evaluation("baselines"))
    assert found["name"].unique().tolist() == [
        "network",
        "brain_size",
        "pca_logistic",
        "slabs3",
        "morphometry_logistic",
        "chosen_network",
    ]
    choices = read_tsv(run.evaluation("chosen_network"))
    assert set(choices["name"]) == {"network", "slabs3"}  # what is no network has no validation part
    chosen = choices[choices["chosen"]].set_index("fold")
    assert (choices.groupby("fold")["log_loss"].min() == chosen["log_loss"]).all()
    for fold in (0, 1):  # nobody who validates is tested
        assert not set(read_tsv(run.validation(fold, 0))["participant_id"]) & set(folds.index[folds == fold])
    metrics = read_json(run.metrics)
    row = found.set_index(["name", "metric"])
    assert metrics["baseline/morphometry_logistic/auroc"] == 1
    assert metrics["test/auroc"] == pytest.approx(row.loc[("network", "auroc"), "value"])


@pytest.mark.parametrize("name", ["pca_logistic", "rbf_svm"])
def test_test_subjects_play_no_part_in_a_fit(name, with_baselines, tmp_path):
    run = with_baselines
    choices = {"pca_logistic": "pca__n_components=[2,5]", "rbf_svm": "svc__C=[0.1,10]"}[name]
    chosen = [f"baselines=[{name}]", f"baselines.{name}.choices.{choices}"]
    cfg = compose("baselines", [*SMALL, *chosen, f"run_dir={run.path}"])
    cohort = same_cohort(prepared_cohort(read_config(cfg), run), run).reset_index(drop=True)
    folds, target = read_tsv(run.folds), cohort["target"].to_numpy()
    features = np.random.default_rng(0).normal(size=(len(cohort), 20)) + target[:, None]
    tested = cohort["participant_id"].isin(folds.loc[folds["fold"] == 0, "participant_id"]).to_numpy()
    rest = tested & (tested.cumsum() > 1)  # all of the test part but the first
    other = cohort.assign(target=np.where(rest, 1 - target, target))
    changed = np.where(rest[:, None], 1e3 * np.random.default_rng(1).random(features.shape), features)
    found = {}
    for key, people, values in (("as they are", cohort, features), ("changed", other, changed)):
        found[key] = RunDirectory(tmp_path / key)
        fit_estimator(read_config(cfg), found[key], people, folds, name, values)
    first, second = (
        read_tsv(each.baseline(name, "fold-0")).filter(regex="^prob_") for each in found.values()
    )
    assert first.iloc[0].tolist() == second.iloc[0].tolist()
    in_fold = [each.baseline(name, "fold-0").with_suffix(".json").read_bytes() for each in found.values()]
    assert in_fold[0] == in_fold[1]
    # in the other fold they are among those that it learns from
    first, second = (
        read_tsv(each.baseline(name, "fold-1")).filter(regex="^prob_") for each in found.values()
    )
    assert not np.allclose(first, second, atol=1e-3)


def test_figures_of_equal_brain_size_outlive_the_same_predictions(with_baselines):
    run = with_baselines
    update_metrics(run, {"test/auroc_size_matched": 0.7})
    before = read_json(run.metrics)
    lost = run.checkpoint(0, 0)
    lost.unlink()
    train(stage_settings("train", [f"run_dir={run.path}"]))
    assert lost.exists()
    after = read_json(run.metrics)
    figures = [key for key in before if key.startswith(("test/", "baseline/"))]
    assert {key: after.get(key) for key in figures} == {key: before[key] for key in figures}


def test_a_second_start_does_only_what_is_missing(with_baselines, capsys):
    run = with_baselines
    expected = run.baseline("pca_logistic").read_bytes()
    kept = run.baseline("pca_logistic", "fold-0")
    time = kept.stat().st_mtime_ns
    run.baseline("pca_logistic").unlink()
    run.baseline("pca_logistic", "fold-1").unlink()
    baselines(stage_settings("baselines", [f"run_dir={run.path}"]))
    assert run.baseline("pca_logistic").read_bytes() == expected
    assert kept.stat().st_mtime_ns == time
    message = capsys.readouterr()
    assert "pca_logistic fold 2/2" in message.out + message.err
    assert "slabs3" not in message.out + message.err


def test_other_settings_or_another_table_are_refused(with_baselines, tmp_path):
    run = with_baselines
    changed = ["baselines.pca_logistic.block_voxels=3", f"run_dir={run.path}", "baselines=[pca_logistic]"]
    with pytest.raises(ConfigError, match=r"baselines\.pca_logistic\.block_voxels: 2 before, 3 now"):
        baselines(stage_settings("baselines", changed))
    (tmp_path / "other.csv").write_text("Subject,v\n1,2\n")
    before = run.config.read_text()
    with pytest.raises(ConfigError, match="is not the table that morphometry_logistic was fitted on"):
        baselines(stage_settings("baselines", [f"run_dir={run.path}", f"morphometry={tmp_path}/other.csv"]))
    assert run.config.read_text() == before  # a refused command leaves the run as it was


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("baselines=[morphometry_svm]", "no value for morphometry: the table .* morphometry_svm needs"),
        ("+baselines.mine={features:pixels}", r"baselines\.mine\.features=pixels: one of voxels"),
        ("+baselines.mine={features:voxels,block_voxels:2}", r"no value for baselines\.mine\.steps"),
        ("+baselines.network={features:voxels}", r"baselines\.network: this name is taken"),
    ],
)
def test_baselines_that_cannot_be_are_refused_before_training(override, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train(compose("train", [*SMALL, f"run_dir={tmp_path}/run", override]))

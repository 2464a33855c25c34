"""Folds through the stages: every kind reaches predictions, maps and report; leaks stop before training."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL, add_subject
from omegaconf import OmegaConf

from xai_brain import RunDirectory, compose, open_study
from xai_brain.config.checks import read_config
from xai_brain.config.saved import saved_settings, settings_to_save, stage_settings
from xai_brain.data.augmentation import Augmentation
from xai_brain.data.datamodule import BrainDataModule
from xai_brain.io.problems import DataError
from xai_brain.models.fitting import fit_fold
from xai_brain.runs.directory import read_json, read_tsv
from xai_brain.stages.evaluate import evaluate
from xai_brain.stages.explain import explain
from xai_brain.stages.report import report
from xai_brain.stages.train import train
from xai_brain.statistics.classification import classification_metrics
from xai_brain.study.training.folds import split_prepared_fold
from xai_brain.viewer.catalogue import RunCatalogue


@pytest.fixture
def cohort(bids_tree):
    """Sixteen subjects of two sexes from two sites, in families of two."""
    for i in range(6, 16):
        add_subject(bids_tree, i, "MF"[i % 2])
    table = pd.read_csv(bids_tree / "participants.tsv", sep="\t", dtype=str)
    table["site"] = [("Guys", "HH")[i // 8] for i in range(16)]
    table["family_id"] = [f"f{i // 2}" for i in range(16)]
    table["icv_ml"] = np.arange(1400, 1560, 10)
    table.to_csv(bids_tree / "participants.tsv", sep="\t", index=False)
    return bids_tree


def settings(cohort, run_dir, *more):
    given = [*SMALL[3:6], "data=bids", f"data.root={cohort}", "preprocessing=t1w_4mm", "trainer.max_epochs=1"]
    given += ["folds.validation_fraction=0.3", "evaluation.n_bootstrap=20", "attribution=[grad_cam]"]
    return compose("run", [*given, "trainer.tensorboard=false", f"run_dir={run_dir}", *more])


ACCEPTED = "folds.allow_shared=[family_id]"


def test_leaks_stop_a_run_before_training(cohort, tmp_path):
    with pytest.raises(DataError, match=r"family_id of sub-.*folds\.group_column=family_id"):
        train(settings(cohort, tmp_path / "run", "folds.n_folds=2"))
    (victim,), (other,) = ((cohort / name / "anat").glob("*.nii.gz") for name in ("sub-00", "sub-15"))
    content = victim.read_bytes()
    victim.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match="identical image files of sub-00, sub-15"):
        train(settings(cohort, tmp_path / "run", "folds=leave_one_site_out"))
    assert not (tmp_path / "run" / "checkpoints").exists()
    victim.write_bytes(content)
    done = train(settings(cohort, tmp_path / "run", "folds=grouped", "folds.n_folds=2"))
    folds = read_tsv(done.folds).merge(read_tsv(done.participants))
    assert folds.groupby("family_id")["fold"].nunique().max() == 1


def test_confounds_travel_with_the_run_and_differences_are_told(cohort, tmp_path, capsys):
    table = pd.read_csv(cohort / "participants.tsv", sep="\t", dtype=str)
    table["age"] = [str(20 + i + 40 * (sex == "M")) for i, sex in enumerate(table["sex"])]
    table.to_csv(cohort / "participants.tsv", sep="\t", index=False)
    more = ["folds=leave_one_site_out", "folds.group_column=family_id", "data.brain_size_column=icv_ml"]
    done = train(settings(cohort, tmp_path / "run", *more))
    people = read_tsv(done.participants)
    assert people["age"].tolist() == [20 + i + 40 * (i % 2 == 0) for i in range(16)]
    assert people["icv_ml"].tolist() == list(range(1400, 1560, 10))
    assert people["site"].tolist() == ["Guys"] * 8 + ["HH"] * 8
    assert people["sex"].tolist() == ["male", "female"] * 8
    joined = read_tsv(done.predictions).merge(people, on=["participant_id", "session_id"])
    assert len(joined) == 16
    assert (joined["site"] == joined["fold"].map({0: "Guys", 1: "HH"})).all()
    message = [line for line in capsys.readouterr().out.splitlines() if "differs between the classes" in line]
    assert len(message) == 1
    assert message[0].startswith("age differs")
    metrics = read_json(done.metrics)
    assert metrics["confound/age"] > 5
    assert metrics["confound/icv_ml"] < 0.5
    assert metrics["confound/site"] == 0
    summary = read_tsv(done.fold_summary)
    assert summary["site"].tolist() == ["Guys 8", "HH 8"]
    assert summary["icv_ml_mean"].tolist() == [1435, 1515]


@pytest.mark.slow
def test_seeds_may_validate_with_others():
    people = pd.DataFrame(
        {"participant_id": [f"sub-{i:02d}" for i in range(40)], "target": np.arange(40) % 2}
    )
    folds = people[["participant_id"]].assign(fold=np.arange(40) // 10)
    found = {}
    for by_seed in ("false", "true"):
        cfg = compose("train", ["data=synthetic", f"folds.validation_by_seed={by_seed}"])
        found[by_seed] = [split_prepared_fold(read_config(cfg), people, folds, 0, seed) for seed in (0, 1, 2)]
    ids = {
        key: [frozenset(part["validation"]["participant_id"]) for part in parts]
        for key, parts in found.items()
    }
    assert ids["false"] == 3 * ids["true"][:1]
    assert len(set(ids["true"])) == 3
    for parts in found["true"]:
        assert parts["test"]["participant_id"].tolist() == people["participant_id"][:10].tolist()
        assert not set(people["participant_id"][:10]) & {
            *parts["train"]["participant_id"],
            *parts["validation"]["participant_id"],
        }


def test_a_hold_out_run_explains_whom_it_tests(cohort, tmp_path):
    cfg = settings(cohort, tmp_path / "run", "folds=hold_out", "folds.test_fraction=0.25", ACCEPTED)
    done = train(cfg)
    tested = read_tsv(done.folds).query("fold == 0")["participant_id"]
    assert read_tsv(done.predictions)["participant_id"].tolist() == tested.tolist()
    assert len(tested) == 4
    explain(cfg)
    assert len(list(done.path.rglob("*_attribution.nii.gz"))) == 4


@pytest.mark.slow
def test_repeats_test_everybody_anew_and_explain_the_first(cohort, tmp_path):
    more = ["folds=repeated", "folds.n_folds=2", "folds.n_repeats=2", ACCEPTED]
    cfg = settings(cohort, tmp_path / "run", *more, "data.brain_size_column=icv_ml")
    done = train(cfg)
    predictions = read_tsv(done.predictions)
    assert sorted(predictions["fold"].unique()) == [0, 1, 2, 3]
    assert (predictions["fold"] // 2 == predictions["repeat"]).all()
    assert predictions.groupby("repeat")["participant_id"].nunique().tolist() == [16, 16]
    # figures are means over the repeats, each as if it were alone
    alone = [classification_metrics(part, n_bootstrap=1) for _, part in predictions.groupby("repeat")]
    for name in ("test/accuracy", "test/auroc_pooled", "test/auroc"):
        assert read_json(done.metrics)[name] == pytest.approx(np.mean([figures[name] for figures in alone]))
    explain(cfg)
    evaluate(cfg)
    report(cfg)
    maps = sorted(done.path.rglob("*_attribution.json"))
    assert len(maps) == 16
    fold_of = read_tsv(done.folds).query("repeat == 0").set_index("participant_id")["fold"]
    assert all(read_json(path)["Fold"] == fold_of[read_json(path)["ParticipantId"]] for path in maps)
    sizes = read_tsv(done.evaluation("brain_size_predictions"))
    assert sizes.groupby("repeat")["participant_id"].nunique().tolist() == [16, 16]
    entries = [entry for entry in RunCatalogue(done).entries if not entry.group]
    assert [entry.fold for entry in entries] == [fold_of[entry.name] + 1 for entry in entries]
    assert "repeated 2 times" in done.report.read_text()
    # the folds of one run serve another
    other = settings(cohort, tmp_path / "other", f"folds.path={done.folds}", ACCEPTED)
    pd.testing.assert_frame_equal(read_tsv(train(other).folds), read_tsv(done.folds))


def test_settings_that_came_later_have_their_defaults(small_run, tmp_path):
    shutil.copytree(small_run.path, tmp_path / "old")
    old = RunDirectory(tmp_path / "old")
    cfg = OmegaConf.load(old.config)
    cfg.folds = {key: cfg.folds[key] for key in ("n_folds", "validation_fraction", "random_state")}
    cfg.augmentation = {"intensity_sd": 0.0}
    OmegaConf.save(cfg, old.config)
    (gone, *_) = sorted((old.path / "attributions").rglob("*desc-GradCAM_attribution.nii.gz"))
    content = gone.read_bytes()
    gone.unlink()
    explain(stage_settings("explain", [f"run_dir={old.path}"]))
    assert gone.read_bytes() == content
    assert train(compose("run", [*SMALL, f"run_dir={old.path}"])).path == old.path
    ours, before = (settings_to_save(saved_settings(run.config)) for run in (old, small_run))
    assert ours == before


def volumes_on_disk(folder, n=12):
    rows = []
    for i in range(n):
        volume = np.random.default_rng(i).standard_normal((12, 14, 16)).astype(np.float32)
        np.save(folder / f"{i}.npy", volume)
        rows.append((f"sub-{i}", i % 2, str(folder / f"{i}.npy")))
    return pd.DataFrame(rows, columns=["participant_id", "target", "volume_path"])


def test_training_batches_alone_are_augmented_and_one_seed_gives_one_network(tmp_path):
    table = volumes_on_disk(tmp_path)
    parts = {"train": table.iloc[:8], "validation": table.iloc[8:], "test": table.iloc[8:]}
    seen = []

    class Recording(Augmentation):
        def __call__(self, volumes):
            seen.append(volumes)
            return super().__call__(volumes)

    def weights(augmentation, num_workers=0):
        model = {"network": {"_target_": "xai_brain.models.networks.kan2020.Kan2020", "channels": [2, 2, 2]}}
        model |= {"output_names": ["a", "b"], "input_shape": [24, 24, 24], "lr": 1e-2}
        model["network"] = {"_target_": "conftest.ToyNet"}
        trainer = dict(compose("train", ["data=synthetic", "trainer.tensorboard=false"]).trainer)
        trainer |= {"max_epochs": 2, "accelerator": "cpu"}
        data = BrainDataModule(parts, 4, augmentation=augmentation, num_workers=num_workers)
        classifier, *_ = fit_fold(data, model, trainer, seed=5, work_dir=tmp_path / "work")
        return torch.cat([value.flatten() for value in classifier.network.parameters()])

    strength = {"max_shift_mm": 2.0, "noise_sd": 0.1}
    first, again = (weights(Recording(**strength, seed=1)) for _ in range(2))
    assert len(seen) == 2 * 2 * 2  # trainings, epochs, batches: none of the validation part
    assert torch.equal(first, again)
    assert not torch.equal(first, weights(Augmentation(**strength, seed=2)))
    plain = weights(None)
    assert not torch.equal(first, plain)
    assert torch.equal(plain, weights(Augmentation()))  # all at 0 is as good as none
    assert torch.equal(plain, weights(None, num_workers=2))  # of how fast, not of what


@pytest.mark.parametrize("how", ["mean", "zscore"])
def test_inputs_are_standardized_by_the_training_volumes(tmp_path, how):
    table = volumes_on_disk(tmp_path)
    for path in table["volume_path"][:5]:  # one corner is brain in 5 of 8, another in none
        volume = np.load(path)
        volume[0, 0, 0] = volume[1, 1, 1]
        np.save(path, volume)
    for path in table["volume_path"]:
        volume = np.load(path)
        volume[-1, -1, -1] = 0
        np.save(path, volume)
    parts = {"train": table.iloc[:8], "validation": table.iloc[8:], "test": table.iloc[8:]}
    model = {"network": {"_target_": "conftest.ToyNet"}, "output_names": ["a", "b"], "lr": 1e-2}
    model |= {"input_shape": list(np.load(table["volume_path"][0]).shape), "standardize": how}
    trainer = dict(compose("train", ["data=synthetic", "trainer.tensorboard=false"]).trainer)
    trainer |= {"max_epochs": 1, "accelerator": "cpu"}
    classifier, *_ = fit_fold(BrainDataModule(parts, 4), model, trainer, seed=5, work_dir=tmp_path / "work")
    train = np.stack([np.load(path) for path in table["volume_path"][:8]]).astype(float)
    test = np.stack([np.load(path) for path in table["volume_path"][8:]])
    standardized = test - train.mean(0)
    if how == "zscore":
        with np.errstate(divide="ignore"):
            standardized *= np.where((train != 0).sum(0) > 4, 1 / train.std(0), 0)
        assert (standardized[:, -1, -1, -1] == 0).all()
        assert np.isfinite(standardized).all()
    expected = torch.from_numpy(standardized.astype(np.float32))[:, None]
    with torch.no_grad():
        by_hand = classifier.network(expected) / classifier.temperature
        torch.testing.assert_close(classifier(torch.from_numpy(test)[:, None]), by_hand, atol=1e-4, rtol=1e-4)


def test_all_rows_of_a_person_are_drawn_together_in_the_bootstrap_of_repeats():
    people = pd.DataFrame({"participant_id": [f"sub-{i:02d}" for i in range(40)], "target": [0, 1] * 20})
    rng = np.random.default_rng(0)
    score = np.clip(0.5 + 0.2 * (people["target"] - 0.5) + 0.2 * rng.standard_normal(40), 0, 1)
    once = people.assign(seed=0, fold=[0, 0, 1, 1] * 10, prob_a=1 - score, prob_b=score)
    repeats = pd.concat([once.assign(repeat=r, fold=once["fold"] + 2 * r) for r in range(5)])
    alone, repeated = classification_metrics(once), classification_metrics(repeats)
    assert repeated == pytest.approx(alone)  # five times the same says no more than once


@pytest.mark.slow
def test_identifiers_and_labels_with_leading_zeros_stay_text_in_a_run(bids_tree, tmp_path):
    """Participants 007, 010, ... and classes 01 and 02, from the table to the maps."""
    ids = ["007", "010", "011", "012", "020", "021", "100", "101"]
    for i in (6, 7):
        add_subject(bids_tree, i, "MF"[i % 2])
    for i, name in enumerate(ids):
        (image,) = (bids_tree / f"sub-{i:02d}" / "anat").iterdir()
        image.rename(image.with_name(image.name.replace(f"sub-{i:02d}", f"sub-{name}")))
        (bids_tree / f"sub-{i:02d}").rename(bids_tree / f"sub-{name}")
    table = pd.read_csv(bids_tree / "participants.tsv", sep="\t", dtype=str)
    table = table.assign(participant_id=ids, group=["01", "02"] * 4, family_id=[f"{i:03d}" for i in range(8)])
    table.to_csv(bids_tree / "participants.tsv", sep="\t", index=False)
    given = ["data.label=group", "folds.n_folds=2", "explain.target=02", "explain.output=logit_difference"]
    cfg = settings(bids_tree, tmp_path / "run", *given, "trainer.fast_dev_run=true")
    train(cfg)
    explain(cfg)
    study = open_study(tmp_path / "run")
    assert sorted(study.predictions["participant_id"]) == [f"sub-{name}" for name in ids]
    assert set(study.predictions["label"]) == set(study.class_names) == {"01", "02"}
    assert study.participants.set_index("participant_id").loc["sub-007", "family_id"] == "000"
    assert "accuracy" in set(study.scores["metric"])
    own, table = study.maps, study.maps.table.set_index("participant_id")
    assert table.loc["sub-010", ["label", "explained"]].tolist() == ["02", "02"]
    assert own.img("sub-007", "GradCAM").shape == own.mean_img("GradCAM", label="01").shape

"""Classes with unequal numbers: balanced training, figures of each class, and a run with three classes."""

from __future__ import annotations

import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from report_runs import text_of
from sklearn.metrics import roc_auc_score
from torch.nn.functional import cross_entropy

from xai_brain import run
from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.config.setting import ConfigError
from xai_brain.data.balanced_sampler import BalancedSampler
from xai_brain.data.datamodule import BrainDataModule
from xai_brain.data.layouts.synthetic import make_synthetic_cohort
from xai_brain.data.planted.synthetic_subject import SyntheticSettings, _group, make_synthetic_subject
from xai_brain.data.slabs import SlabDataModule
from xai_brain.io.nifti import get_grid
from xai_brain.models.fitting import fit_fold
from xai_brain.models.module import BrainClassifier
from xai_brain.runs.directory import read_json, read_tsv
from xai_brain.statistics.classification import classification_metrics
from xai_brain.study.training.fold_training import check_balance
from xai_brain.task.classification import Classification

TARGETS = [0] * 12 + [1] * 5 + [2] * 3


def counts_of(order):
    return np.bincount(np.array(TARGETS)[order], minlength=3).tolist()


def test_an_epoch_contains_equally_many_images_of_each_class():
    sampler = BalancedSampler(TARGETS, seed=3)
    first, again = list(sampler), list(sampler)
    assert first == again
    assert len(first) == len(sampler) == 21  # 20 images, three equal parts
    assert counts_of(first) == [7, 7, 7]
    assert len({index for index in first if index < 12}) == 7  # without replacement
    assert sorted(np.bincount(first, minlength=20)[17:]) == [2, 2, 3]  # each rare image equally often
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert counts_of(list(sampler)) == [7, 7, 7]


def test_processes_share_a_balanced_epoch():
    whole = list(BalancedSampler(TARGETS, seed=3))
    parts = [list(BalancedSampler(TARGETS, 3, rank, 2)) for rank in (0, 1)]
    assert [len(part) for part in parts] == [11, 11]
    joined = [index for pair in zip(*parts, strict=True) for index in pair]
    assert joined == [*whole, whole[0]]


@pytest.fixture
def parts(tmp_path):
    """18 training volumes of three classes, a third of them of the two rare ones, with brain masks."""
    rows = []
    for i in range(24):
        volume = np.random.default_rng(i).standard_normal((12, 14, 16)).astype(np.float32)
        np.save(tmp_path / f"{i}.npy", volume)
        np.save(tmp_path / f"{i}_mask.npy", np.ones(volume.shape, bool))
        target = 0 if i % 6 < 4 else i % 6 - 3
        rows.append((f"sub-{i}", target, str(tmp_path / f"{i}.npy"), str(tmp_path / f"{i}_mask.npy")))
    table = pd.DataFrame(rows, columns=["participant_id", "target", "volume_path", "volume_mask_path"])
    return {"train": table[:18], "validation": table[18:], "test": table[18:]}


def test_sampling_applies_to_the_training_part_of_volumes_and_slabs(parts):
    module = BrainDataModule(parts, 4, seed=1, sampling="balanced")
    targets = torch.cat([batch["target"] for batch in module.train_dataloader()])
    assert targets.bincount().tolist() == [6, 6, 6]
    tested = torch.cat([batch["target"] for batch in module.val_dataloader()])
    assert tested.bincount().tolist() == [4, 1, 1]
    slabs = SlabDataModule(parts, 7, 5, "balanced")
    assert slabs.n_slabs == 2
    of_slabs = torch.cat([batch["target"] for batch in slabs.train_dataloader()])
    assert sorted(of_slabs.bincount().tolist()) in ([12, 12, 12], [11, 12, 12])  # a batch of one is dropped


def fitted(parts, tmp_path, name=None):
    model = {"network": {"_target_": "xai_brain.models.networks.shallow.ShallowNet", "channels": 2}}
    model |= {"output_names": ["a", "b", "c"], "input_shape": [12, 14, 16], "scheduler": "constant"}
    settings = dict(compose("train", ["data=synthetic", "trainer.tensorboard=false"]).trainer)
    settings |= {"max_epochs": 1, "accelerator": "cpu", "calibrate": False, "batch_size": 4}
    settings |= {name: "balanced"} if name else {}
    module = BrainDataModule(parts, 4, seed=1, sampling=settings["sampling"])
    return fit_fold(module, model, settings, seed=5, work_dir=tmp_path / "work")


@pytest.mark.parametrize("name", ["class_weights", "sampling"])
def test_the_epoch_is_chosen_by_the_weighted_loss_of_the_validation_part(parts, tmp_path, name):
    """The weights are those of the training images, 12, 3 and 3 of 18; the network does not keep them."""
    classifier, checkpoint, history = fitted(parts, tmp_path, name)
    weights = torch.tensor([18 / 36, 18 / 9, 18 / 9])
    torch.testing.assert_close(classifier.class_weights, weights)
    assert classifier.weighted_training is (name == "class_weights")
    assert "class_weights" not in torch.load(checkpoint, weights_only=True)["state_dict"]
    test = parts["validation"]
    volumes = torch.stack([torch.from_numpy(np.load(path))[None] for path in test["volume_path"]])
    with torch.no_grad():
        loss = cross_entropy(classifier(volumes), torch.tensor(test["target"].to_numpy()), weights)
    (found,) = history.loc[history["metric"] == "val/loss", "value"]
    assert found == pytest.approx(float(loss), rel=1e-5)


def test_classes_are_not_balanced_by_default(parts, tmp_path):
    classifier, _, _ = fitted(parts, tmp_path)
    assert classifier.class_weights is None
    order = [batch["participant_id"] for batch in BrainDataModule(parts, 4).train_dataloader()]
    assert sorted(name for batch in order for name in batch) == sorted(parts["train"]["participant_id"])


def test_the_training_loss_is_the_weighted_cross_entropy():
    model = {"network": {"_target_": "conftest.ToyNet"}, "output_names": ["a", "b"]}
    classifier = BrainClassifier(**model, input_shape=[12, 14, 16])
    outputs, targets = torch.randn(5, 2), torch.tensor([0, 0, 0, 1, 0])
    weights = torch.tensor([0.625, 2.5])
    each = cross_entropy(outputs, targets, reduction="none")
    expected = (each * weights[targets]).sum() / weights[targets].sum()
    torch.testing.assert_close(classifier._loss(outputs, targets, weights), expected)
    torch.testing.assert_close(classifier._loss(outputs, targets, None), each.mean())


def test_balancing_twice_or_without_classes_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="use one of them") as caught:
        compose("train", ["data=synthetic", "trainer.class_weights=balanced", "trainer.sampling=balanced"])
    assert "\n" not in str(caught.value)
    for name in ("class_weights", "sampling"):
        config = read_config(compose("train", ["experiment=dose", f"trainer.{name}=balanced"]))
        with pytest.raises(ConfigError, match=rf"trainer\.{name}=balanced: this task has no classes"):
            check_balance(config)
    with pytest.raises(ConfigError, match="one of balanced is needed"):
        compose("train", ["data=synthetic", "trainer.sampling=twice"])


NAMES = ["CN", "MCI", "AD"]


def predictions(n=90, seed=0):
    """Three classes, 60, 21 and 9 of 90, in three folds."""
    rng = np.random.default_rng(seed)
    target = np.repeat([0, 1, 2], [60, 21, 9])
    logits = rng.standard_normal((n, 3)) + 1.2 * np.eye(3)[target]
    values = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    table = pd.DataFrame(values, columns=[f"prob_{name}" for name in NAMES])
    ids = [f"sub-{i:03d}" for i in range(n)]
    return table.assign(participant_id=ids, seed=0, fold=np.arange(n) % 3, target=target)


def test_each_of_three_classes_has_an_area_against_the_rest():
    table = predictions()
    found = classification_metrics(table, n_bootstrap=200)
    for k, name in enumerate(NAMES):
        areas = [
            roc_auc_score(part["target"] == k, part[f"prob_{name}"]) for _, part in table.groupby("fold")
        ]
        assert found[f"test/auroc/{name}"] == pytest.approx(np.mean(areas))
        pooled = roc_auc_score(table["target"] == k, table[f"prob_{name}"])
        assert found[f"test/auroc_pooled/{name}"] == pytest.approx(pooled)
        members = table[table["target"] == k]
        right = members[["prob_CN", "prob_MCI", "prob_AD"]].to_numpy().argmax(1) == k
        assert found[f"test/sensitivity/{name}"] == pytest.approx(right.mean())
        assert found[f"test/auroc/{name}_ci_low"] < found[f"test/auroc/{name}"]
    means = {"auroc": "auroc", "auroc_pooled": "auroc_pooled", "sensitivity": "balanced_accuracy"}
    for score, mean in means.items():
        each = [found[f"test/{score}/{name}"] for name in NAMES]
        assert found[f"test/{mean}"] == pytest.approx(np.mean(each))
    low, high = ({name: found[f"test/auroc/{name}_ci_{end}"] for name in NAMES} for end in ("low", "high"))
    assert high["AD"] - low["AD"] > high["CN"] - low["CN"]  # 9 participants against 60


def test_two_classes_have_one_area_and_chance_depends_on_the_number_of_classes():
    table = predictions().drop(columns="prob_AD").query("target < 2")
    assert not [name for name in classification_metrics(table, n_bootstrap=5) if name.count("/") > 1]
    assert Classification(("CN", "MCI")).chance_levels()["balanced_accuracy"] == 0.5
    levels = Classification(("CN", "MCI", "AD")).chance_levels()
    assert levels["balanced_accuracy"] == levels["sensitivity/AD"] == pytest.approx(1 / 3)
    assert levels["auroc/AD"] == 0.5


SHARES = {"class_shares": [0.5, 0.3, 0.2], "further_centers_mm": [[36, -50, 40]]}
PLACES = {"effect_1": np.array([-34, -20, -14]), "effect_2": np.array([36, -50, 40])}


def test_classes_of_the_embedded_cohort_have_the_shares_and_one_place_each():
    bare = ("deformation_mm", "size_variation", "contrast_variation", "bias_field", "noise")
    settings = SyntheticSettings(**SHARES, **dict.fromkeys(bare, 0.0))
    groups = [_group(index, settings) for index in range(100)]
    assert [groups.count(k) for k in range(3)] == pytest.approx([50, 30, 20], abs=1)
    made = [make_synthetic_subject(groups.index(k), settings) for k in range(3)]
    images = {row["group"]: t1w for t1w, _, row in made}
    shape = images["no_effect"].shape
    world = nib.affines.apply_affine(get_grid("t1w_4mm").affine, np.moveaxis(np.indices(shape), 0, -1))
    for name, center_mm in PLACES.items():
        differs = images[name] != images["no_effect"]
        assert differs.sum() > 20
        assert np.linalg.norm(world[differs] - center_mm, axis=1).max() <= settings.effect_radius_mm


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_shares": [0.5, 0.3]}, "with the sum 1"),
        ({"further_centers_mm": []}, "3 classes need 2 locations and no dose, not 1 in"),
        ({"dose": True, "further_centers_mm": []}, "no dose"),
    ],
)
def test_shares_and_places_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        make_synthetic_cohort(tmp_path / "cohort", SyntheticSettings(**{**SHARES, **changes}))


@pytest.mark.slow
def test_a_run_with_three_unequal_classes_finds_both_places_and_reports_them(tmp_path, undrawn):
    """The complete run, with an effect that is strong enough for 48 participants."""
    settings = [
        "data.cohort.n_subjects=48",
        "data.cohort.effect_radius_mm=20",
        "data.cohort.effect_intensity_change=1.0",
        "folds.n_folds=2",
        "folds.validation_fraction=0.3",
        "trainer.max_epochs=6",
        "trainer.tensorboard=false",
        "attribution=[saliency]",
        "explain.output=logit_difference",
        "evaluation.n_bootstrap=50",
    ]
    done = run(compose("run", ["experiment=three_classes", *settings, f"run_dir={tmp_path / 'run'}"]))
    numbers = read_tsv(done.participants)["label"].value_counts()
    assert numbers["no_effect"] > numbers["effect_1"] > numbers["effect_2"]
    table = read_tsv(done.predictions)
    assert list(table.columns[-3:]) == ["prob_no_effect", "prob_effect_1", "prob_effect_2"]
    metrics = read_json(done.metrics)
    assert metrics["test/balanced_accuracy"] > 0.8
    assert metrics["test/auroc/effect_2_ci_low"] > 0.5
    for name, center_mm in PLACES.items():  # the maps of a class find its own place
        img = nib.load(done.group_map("Saliency", f"class-{name}", "mean"))
        values = np.abs(img.get_fdata())
        peak_mm = nib.affines.apply_affine(img.affine, np.unravel_index(values.argmax(), values.shape))
        assert np.linalg.norm(peak_mm - center_mm) < 20
    assert metrics["localization/Saliency/rra_ci_low"] > 2 * metrics["localization/chance"]

    text = text_of(done.report.read_text())
    assert "to classify group (no_effect, effect_1 and effect_2)" in text
    assert "The loss was weighted such that all classes contribute equally" in text
    assert "There are 3 classes: the chance level of the balanced accuracy" in text
    assert "is 1/3 = 0.333" in text
    assert re.search(r"Balanced accuracy \d\.\d{3} \d\.\d{3} to \d\.\d{3} 0\.333", text)
    for name in numbers.index:
        value = metrics[f"test/auroc/{name}"]
        assert re.search(rf"{name} {numbers[name]} {value:.3f} ", text)
    assert "the probabilities refer to equally frequent classes" in text
    assert "First panel: ROC of each class against the rest, all folds pooled" in text

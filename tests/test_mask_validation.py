"""Masks of training subjects: their size and smoothness, what a network says through them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SHAPE
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score
from torch import nn

from xai_brain.metrics.mask_validation import (
    CONDITION,
    figures_of_joint_masks,
    masked_probabilities,
    validation_table,
)
from xai_brain.metrics.masks import (
    mask_smoothness,
    random_mask,
    rank_voxels,
    region_places,
    top_k_mask,
    voxels_of,
)
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.gallery import Gallery
from xai_brain.reporting.sections.masks import section as masks_section
from xai_brain.runs.directory import RunDirectory, write_tsv
from xai_brain.statistics.classification import auroc_of_draws, classification_metrics
from xai_brain.study.explanation.fold_masks import explained_subjects

GRID = (40, 46, 36)
HEAD = (
    sum(((x - (n - 1) / 2) / (0.45 * n)) ** 2 for x, n in zip(np.indices(GRID), GRID, strict=True)) < 1
)  # an ellipsoid


def surface(mask, brain):
    """Share of pairs of neighbours in the brain of which one is in the mask."""
    differ = pairs = 0
    for axis in range(3):
        a, b = (np.take(mask, range(s, n), axis) for s, n in ((0, GRID[axis] - 1), (1, GRID[axis])))
        both = np.take(brain, range(GRID[axis] - 1), axis) & np.take(brain, range(1, GRID[axis]), axis)
        differ, pairs = differ + (a != b)[both].sum(), pairs + both.sum()
    return differ / pairs


# -- masks -----------------------------------------------------------------------------------------
def test_the_highest_absolute_values_come_first():
    values = np.zeros((2, 3, 4))
    brain = np.zeros(values.shape, bool)
    brain[1] = True
    values[1, 0] = [1.0, -9.0, 4.0, 2.0]
    values[0] = 100  # outside of the brain
    place = rank_voxels(values, brain)
    assert place[1, 0].tolist() == [4, 1, 2, 3]
    assert not place[0].any()
    assert sorted(place[brain]) == list(range(1, 13))
    assert np.argwhere(top_k_mask(place, 2)).tolist() == [[1, 0, 1], [1, 0, 2]]
    assert voxels_of(25, brain) == 3
    assert voxels_of(0.001, brain) == 1


@pytest.mark.parametrize("sigma", [(1.5, 2.5, 1.0), (2.0, 2.0, 2.0)])
def test_random_masks_have_the_size_and_the_smoothness_of_the_mask(sigma):
    field = gaussian_filter(np.random.default_rng(3).standard_normal(GRID), sigma)
    n_voxels = voxels_of(10, HEAD)
    # a monotone change of the values, which no ranking sees, must not matter
    mask = top_k_mask(rank_voxels(np.exp(9 * field / field.std()), HEAD), n_voxels)
    found = mask_smoothness(mask, HEAD)
    np.testing.assert_allclose(found, sigma, rtol=0.2)
    randoms = [random_mask(HEAD, n_voxels, found, [0, draw]) for draw in range(6)]
    assert all(random.sum() == n_voxels for random in randoms)
    assert not any((random & ~HEAD).any() for random in randoms)
    assert np.mean([surface(random, HEAD) for random in randoms]) == pytest.approx(
        surface(mask, HEAD), rel=0.1
    )
    overlap = np.mean([(random & mask).sum() for random in randoms]) / n_voxels
    assert overlap == pytest.approx(0.1, abs=0.05)
    assert (random_mask(HEAD, n_voxels, found, [0, 5]) == randoms[5]).all()


def test_scattered_and_solid_masks_are_at_the_ends_of_smoothness():
    noise = np.random.default_rng(4).standard_normal(GRID)
    scattered = top_k_mask(rank_voxels(noise, HEAD), voxels_of(20, HEAD))
    assert (
        max(mask_smoothness(scattered, HEAD)) < 0.45
    )  # correlation of neighbours below exp(-1 / 0.81) = 0.29
    solid = np.zeros(GRID, bool)
    solid[10:30, 12:34, 9:27] = True
    assert min(mask_smoothness(solid & HEAD, HEAD)) > 3


def test_regions_come_whole_and_compact():
    brain = np.ones((8, 9, 10), bool)
    labels = np.zeros(brain.shape, int)
    labels[:3], labels[4:6], labels[7, :5] = 7, 300, 2
    values = np.where(labels == 300, -2.0, np.where(labels == 2, 1.0, 0.5))
    values[labels == 0] = 50
    order = region_places(values, labels, brain)
    assert (top_k_mask(order, 2 * 90) == (labels == 300)).all()
    assert (top_k_mask(order, 2 * 90 + 50) == np.isin(labels, (300, 2))).all()
    assert not order[labels == 0].any()
    assert order.max() == (labels > 0).sum()
    part = top_k_mask(order, 20)
    assert (labels[part] == 300).all()
    assert (np.ptp(np.argwhere(part), axis=0) <= [1, 5, 5]).all()  # around its centre, not spread over it


# -- what a network says through them --------------------------------------------------------------
VOXEL = (5, 7, 9)


class OneVoxel(nn.Module):
    """Reads one voxel and nothing else."""

    def forward(self, x):
        evidence = x[:, 0, *VOXEL]
        return torch.stack([-evidence, evidence], 1)


def rows_of(probabilities, targets, **about):
    """Predictions of one condition: (n_subjects, 2) probabilities in two folds."""
    n = len(targets)
    known = dict.fromkeys(CONDITION) | {"method": "M", "mask": "joint", "area_percent": 10.0, "kept": "mask"}
    known |= {"control": "map", "retrained": False, "draw": 0, "seed": 0, "session_id": ""} | about
    columns = {f"prob_{k}": p for k, p in enumerate(np.transpose(probabilities))}
    ids = {"participant_id": [f"sub-{i:02d}" for i in range(n)], "fold": np.arange(n) // 2 % 2}
    return pd.DataFrame({**ids, "target": targets, **columns}).assign(**known)


def test_the_answers_of_a_network_that_reads_one_voxel():
    targets = np.arange(20) % 2
    inputs = torch.randn(20, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    inputs[:, 0, *VOXEL] = torch.from_numpy(2.0 * targets - 1).float()
    brain = np.zeros(SHAPE, bool)
    brain[1:11, 1:13, 2:15] = True
    values = np.random.default_rng(1).random(SHAPE)
    values[VOXEL] = -5  # evidence against counts like evidence for
    mask = top_k_mask(rank_voxels(values, brain), voxels_of(10, brain))
    randoms = [random_mask(brain, int(mask.sum()), (1, 1, 1), draw) for draw in range(30)]
    tables = []
    for kept in ("mask", "complement"):
        left = [m if kept == "mask" else ~m for m in (mask, *randoms)]
        told = masked_probabilities(OneVoxel(), inputs, torch.zeros_like(inputs), left, batch_size=7)
        tables.append(rows_of(told[0], targets, kept=kept))
        tables += [
            rows_of(p, targets, kept=kept, control="random", draw=draw) for draw, p in enumerate(told[1:])
        ]
    table = validation_table(pd.concat(tables, ignore_index=True), n_bootstrap=200)
    values = table.set_index(["control", "kept", "metric"]).sort_index()
    for metric in ("accuracy", "balanced_accuracy", "auroc"):
        assert values.loc[("map", "mask", metric), "value"] == 1
        assert values.loc[("map", "complement", metric), "value"] == 0.5
        held = np.mean([random[VOXEL] for random in randoms])
        assert 0 < held < 0.5
        assert values.loc[("random", "mask", metric), "value"] == pytest.approx(0.5 + held / 2)
        assert values.loc[("random", "complement", metric), "value"] == pytest.approx(1 - held / 2)
        above = values.loc[("map", "mask", metric), "above_random"]
        assert above == pytest.approx(0.5 - held / 2)
        assert values.loc[("map", "complement", metric), "above_random"] == pytest.approx(-above)
    assert (table["chance"] == 0.5).all()
    assert (table["n_subjects"] == 20).all()
    assert values.loc["random", "above_random"].isna().all()
    figures = dict(figures_of_joint_masks(table))
    assert figures["masks/M/keep_10/auroc"] == 1
    assert figures["masks/M/remove_10/auroc"] == 0.5
    assert figures["masks/M/random/keep_10/auroc"] == pytest.approx(0.5 + held / 2)
    assert figures["masks/M/keep_10/accuracy_above_random"] == pytest.approx(0.5 - held / 2)


def test_outside_of_the_brain_nothing_is_left():
    inputs, fill = torch.ones(1, 1, *SHAPE), torch.full((1, 1, *SHAPE), -0.25)
    seen = []

    class Sees(nn.Module):
        def forward(self, x):
            seen.append(x.detach().clone())
            return torch.stack([x.sum((1, 2, 3, 4)), -x.sum((1, 2, 3, 4))], 1)

        def __deepcopy__(self, memo):  # no fast copy
            raise TypeError

    mask = np.zeros(SHAPE, bool)
    mask[3:5, 4:8, 2:3] = True
    masked_probabilities(Sees(), inputs, fill, [mask])
    assert (seen[-1][0, 0].numpy() == np.where(mask, 1.0, -0.25)).all()


def random_predictions(n_classes, rng, n=60):
    targets = rng.integers(0, n_classes, n)
    tables = []
    for seed in (0, 3):
        scores = rng.random((n, n_classes)) + 0.6 * np.eye(n_classes)[targets]
        tables.append(rows_of((scores / scores.sum(1, keepdims=True)).round(2), targets, seed=seed))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_figures_are_those_of_predictions_without_masks(n_classes):
    told = random_predictions(n_classes, np.random.default_rng(n_classes))
    expected = classification_metrics(told, n_bootstrap=400)
    for row in validation_table(told, n_bootstrap=400).itertuples():
        name = f"test/{row.metric}"
        assert row.value == pytest.approx(expected[name], abs=1e-12)
        assert row.ci_low == pytest.approx(expected[f"{name}_ci_low"], abs=1e-12)  # the same draws
        assert row.ci_high == pytest.approx(expected[f"{name}_ci_high"], abs=1e-12)


def test_subjects_that_are_drawn_twice_count_twice_in_the_auroc():
    rng = np.random.default_rng(2)
    targets, score = np.arange(30) % 2, rng.random(30).round(1)
    counts = rng.integers(1, 4, (1, 30))
    found = auroc_of_draws(targets, np.stack([1 - score, score], 1), counts)
    expected = roc_auc_score(np.repeat(targets, counts[0]), np.repeat(score, counts[0]))
    np.testing.assert_allclose(found, [expected])


def test_intervals_know_that_random_masks_differ():
    targets = np.arange(20) % 2
    right, blind = np.stack([1 - targets, targets], 1), np.full((20, 2), [0.6, 0.4])
    told = [rows_of(p, targets, control="random", draw=draw) for draw, p in enumerate([right, blind])]
    table = validation_table(pd.concat(told, ignore_index=True), n_bootstrap=100).set_index("metric")
    # no subject makes a difference: either mask twice, or one of each
    assert table.loc["auroc", ["value", "ci_low", "ci_high"]].tolist() == [0.75, 0.5, 1]


def test_differences_from_random_masks_are_paired():
    told = random_predictions(2, np.random.default_rng(5))
    both = pd.concat([told, told.assign(control="random")], ignore_index=True)
    table = validation_table(both, n_bootstrap=50).query("control == 'map'")
    columns = ["above_random", "above_random_ci_low", "above_random_ci_high"]
    assert (table[columns] == 0).all(axis=None)  # although each of them alone is uncertain
    assert (table["ci_high"] - table["ci_low"] > 0.02).all()
    others = pd.concat([told, told.assign(control="random", retrained=True)], ignore_index=True)
    assert validation_table(others, n_bootstrap=5)["above_random"].isna().all()


def test_explained_subjects_are_people_of_every_class():
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{i // 2}" for i in range(60)],  # two images each
            "target": [0 if i < 40 else 1 for i in range(60)],
        }
    )
    chosen = explained_subjects(table, 12, 0)
    assert chosen["participant_id"].is_unique
    assert chosen["target"].value_counts().to_dict() == {0: 12, 1: 10}
    assert chosen.equals(explained_subjects(table, 12, 0))
    assert not chosen.equals(explained_subjects(table, 12, 1))


@pytest.mark.parametrize(("joint", "enough", "needed"), [(0.95, True, True), (0.55, False, False)])
def test_words_of_the_report_follow_from_the_figures(tmp_path, joint, enough, needed):
    rng, targets = np.random.default_rng(0), np.arange(80) % 2

    def probabilities_of(right, **about):  # so many of the subjects are classified rightly
        chosen = np.where(rng.permutation(80) < round(right * 80), targets, 1 - targets)
        return rows_of(np.stack([1 - chosen, chosen], 1) * 0.8 + 0.1, targets, **about)

    rows = [probabilities_of(0.9, method="none", mask="none", area_percent=100.0, control="none")]
    for area in (5.0, 10.0):
        for kept, right in (("mask", joint), ("complement", 1 - joint)):
            rows += [
                probabilities_of(right, area_percent=area, kept=kept),
                probabilities_of(right, area_percent=area, kept=kept, mask="0"),
            ]
            rows.append(probabilities_of(0.5, area_percent=area, kept=kept, control="random"))
    run = RunDirectory(tmp_path)
    write_tsv(validation_table(pd.concat(rows, ignore_index=True), 100), run.evaluation("mask_validation"))
    found = masks_section(ReportContents(run), Gallery(tmp_path / "figures"))
    assert found["whole"]["accuracy"]["value"] == pytest.approx(0.9)
    assert found["trained"]["area"] == 10
    assert found["again"] is None
    (row,) = found["trained"]["rows"]
    assert row["alone"]["value"] == pytest.approx(joint)
    assert row["without"]["value"] == pytest.approx(1 - joint)
    assert (row["enough"], row["needed"]) == (enough, needed)
    assert (tmp_path / "figures" / "masks.png").stat().st_size > 10_000

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from xai_brain.baselines.kinds import brain_size_predictions
from xai_brain.metrics.comparison.agreement import agreement, spearman
from xai_brain.metrics.localization import localization
from xai_brain.statistics.bootstrap import bootstrap_mean, draw_counts
from xai_brain.statistics.classification import (
    PredictionError,
    auroc,
    auroc_of_draws,
    balanced_accuracy,
    classification_metrics,
    defined_figures,
)
from xai_brain.task.classification import Classification

SHAPE = (12, 14, 16)


@pytest.fixture
def truth():
    truth = np.zeros(SHAPE, bool)
    truth[3:6, 4:8, 5:10] = True
    return truth


BRAIN = np.ones(SHAPE, bool)
BRAIN[0] = BRAIN[-1] = False


def test_localization_of_a_perfect_and_of_an_opposite_map(truth):
    chance = truth.sum() / BRAIN.sum()
    assert localization(truth.astype(float), truth, BRAIN) == {
        "rma": 1,
        "rra": 1,
        "pointing": 1,
        "chance": chance,
    }
    opposite = localization((~truth).astype(float), truth, BRAIN)
    assert opposite == {"rma": 0, "rra": 0, "pointing": 0, "chance": chance}


def test_localization_by_hand(truth):
    attribution = np.zeros(SHAPE)
    attribution[3, 4, 5] = -3  # true: the sign does not matter
    attribution[10, 4, 5] = 1
    attribution[0, 0, 0] = 100  # outside the brain: does not count
    found = localization(attribution, truth, BRAIN)
    assert found["rma"] == pytest.approx(0.75)
    assert found["pointing"] == 1


def test_random_maps_reach_chance_on_average(truth):
    rng = np.random.default_rng(0)
    found = pd.DataFrame(localization(rng.random(SHAPE), truth, BRAIN, i) for i in range(400))
    chance = truth.sum() / BRAIN.sum()
    for metric in ("rma", "rra", "pointing"):
        error = found[metric].std() / 20
        assert abs(found[metric].mean() - chance) < 4 * error


def test_equal_values_favour_no_place(truth):
    # a constant map knows nothing; in array order its "highest" voxels would all lie in one corner
    found = [localization(np.ones(SHAPE), truth, BRAIN, i)["rra"] for i in range(200)]
    assert np.mean(found) == pytest.approx(truth.sum() / BRAIN.sum(), rel=0.15)


def test_an_empty_map_scores_0(truth):
    assert localization(np.zeros(SHAPE), truth, BRAIN)["rra"] == 0


def values_of(a, b, n_voxels, percents=(10.0,)):
    return {row["metric"]: row for row in agreement(a, b, n_voxels, percents)}


def test_agreement_of_a_map_with_itself():
    a = np.random.default_rng(0).random(1000)
    found = values_of(a, -a, 4000)
    assert {key: row["value"] for key, row in found.items()} == pytest.approx(
        {"dice": 1, "iou": 1, "voxel_agreement": 1, "spearman": 1, "cosine": -1}  # of -a: the sign counts
    )


def test_cosine_is_that_of_the_signed_maps_and_its_chance_that_of_shuffled_voxels():
    rng = np.random.default_rng(0)
    a, b = 1e-30 * (rng.random(300) - 0.2), rng.random(300)  # squares of a are no numbers
    found = values_of(a.astype(np.float32), b, 900)["cosine"]
    scaled = a.astype(np.float32).astype(float) * 1e30
    assert found["value"] == pytest.approx(scaled @ b / np.linalg.norm(scaled) / np.linalg.norm(b))
    shuffled = [scaled @ rng.permutation(b) for _ in range(3000)]
    expected = np.mean(shuffled) / np.linalg.norm(scaled) / np.linalg.norm(b)
    assert found["chance"] == pytest.approx(expected, abs=0.005)


def test_maps_without_a_common_voxel_have_dice_0_and_high_voxel_agreement():
    a, b = np.zeros(1000), np.zeros(1000)
    a[:100] = 1 + np.arange(100)
    b[100:200] = 1 + np.arange(100)
    found = values_of(a, b, 4000)
    assert found["dice"]["value"] == 0
    assert found["iou"]["value"] == 0
    # the paper's figure: 2 #(x == y) / 2N = (4000 - 200) / 4000
    assert found["voxel_agreement"]["value"] == pytest.approx(0.95)


def test_agreement_of_random_maps_is_at_its_stated_chance():
    rng = np.random.default_rng(0)
    rows = [
        row for _ in range(200) for row in agreement(rng.random(1000), rng.random(1000), 4000, [5.0, 20.0])
    ]
    table = pd.DataFrame(rows)
    for _, group in table.groupby(["metric", "top_percent"], dropna=False):
        error = group["value"].std() / np.sqrt(len(group))
        # the expectation of a ratio (IoU) is only near the ratio of expectations
        assert abs(group["value"].mean() - group["chance"].mean()) < 4 * error + 0.002


def test_an_empty_map_is_not_compared():
    assert not list(agreement(np.zeros(100), np.ones(100), 200, [10.0]))


def test_spearman_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 300).astype(float), rng.integers(0, 5, 300).astype(float)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_auroc_and_balanced_accuracy_are_sklearns():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 200)
    p = np.clip(0.3 * targets + rng.normal(0.4, 0.2, 200), 0, 1).round(2)  # with ties
    both = np.stack([1 - p, p], 1)
    assert auroc(targets, both) == pytest.approx(roc_auc_score(targets, p))
    assert balanced_accuracy(targets, both) == pytest.approx(balanced_accuracy_score(targets, both.argmax(1)))
    three = rng.dirichlet([1, 1, 1], 200)
    classes = rng.integers(0, 3, 200)
    assert auroc(classes, three) == pytest.approx(roc_auc_score(classes, three, multi_class="ovr"))
    assert np.isnan(auroc(np.ones(4, int), both[:4]))


def predictions(n=120, seeds=(0, 1), separation=1.0):
    rng = np.random.default_rng(1)
    rows = []
    for seed in seeds:
        for i in range(n):
            target, fold = i % 2, (i // 2) % 5
            # folds differ in scale: pooled ranks suffer, the mean over folds does not
            score = 1 / (1 + np.exp(-(separation * (2 * target - 1) + rng.normal() + (fold - 2))))
            rows.append((f"sub-{i:03d}", seed, fold, target, 1 - score, score))
    return pd.DataFrame(rows, columns=["participant_id", "seed", "fold", "target", "prob_a", "prob_b"])


def test_metrics_are_means_over_folds_and_seeds_with_an_interval_around_them():
    table = predictions()
    found = classification_metrics(table, "test", n_bootstrap=200)
    by_fold = [roc_auc_score(t["target"], t["prob_b"]) for _, t in table.groupby(["seed", "fold"])]
    assert found["test/auroc"] == pytest.approx(np.mean(by_fold))
    pooled = [roc_auc_score(t["target"], t["prob_b"]) for _, t in table.groupby("seed")]
    assert found["test/auroc_pooled"] == pytest.approx(np.mean(pooled))
    assert found["test/auroc_pooled"] < found["test/auroc"]
    for name in ("auroc", "auroc_pooled", "accuracy", "balanced_accuracy"):
        assert found[f"test/{name}_ci_low"] < found[f"test/{name}"] < found[f"test/{name}_ci_high"]


def test_no_mean_over_an_incomplete_set_of_folds():
    table = predictions()
    broken = table.copy()
    broken.loc[(broken["fold"] == 2) & (broken["seed"] == 1), ["prob_a", "prob_b"]] = np.nan
    with pytest.raises(PredictionError, match=r"24 of 120 .* NaN .*participant_id sub-004, seed 1, fold 3"):
        classification_metrics(broken, n_bootstrap=2)
    one_class = table.assign(target=table["target"].where(table["fold"] != 3, 1))
    found = classification_metrics(one_class, n_bootstrap=2)
    assert np.isnan(found["test/auroc"])
    assert np.isfinite(found["test/auroc_pooled"])
    assert "test/auroc" not in defined_figures(found)


def test_images_of_one_participant_are_drawn_together():
    table = predictions(60, seeds=(0,)).assign(session_id="ses-1")
    twice = pd.concat([table, table.assign(session_id="ses-2")])
    once, both = (
        classification_metrics(table, n_bootstrap=300),
        classification_metrics(twice, n_bootstrap=300),
    )
    width = [found["test/auroc_ci_high"] - found["test/auroc_ci_low"] for found in (once, both)]
    assert width[1] == pytest.approx(width[0], rel=0.1)  # a copy of everybody is no new information


def test_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for i in range(300):
        _, low, high = bootstrap_mean(rng.normal(2, 1, 40), 300, i)
        covered += low < 2 < high
    assert 0.89 < covered / 300 < 0.98


def test_draws_keep_the_size_of_every_stratum_and_can_be_made_in_parts():
    strata = [np.array([0, 3, 4]), np.array([1, 2])]
    counts = draw_counts(strata, 500, np.random.default_rng(3))
    assert counts.shape == (500, 5)
    for stratum in strata:
        assert (counts[:, stratum].sum(1) == len(stratum)).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=0.15)
    rng = np.random.default_rng(3)
    parts = [draw_counts(strata, n, rng) for n in (200, 300)]
    np.testing.assert_array_equal(np.concatenate(parts), counts)


def test_auroc_of_draws_is_that_of_repeated_rows_and_nan_without_a_class():
    rng = np.random.default_rng(4)
    targets, score = np.arange(24) % 2, rng.random(24).round(1)  # with ties
    counts = rng.integers(0, 3, (20, 24))
    counts[0, targets == 1] = 0
    found = auroc_of_draws(targets, np.stack([1 - score, score], 1), counts)
    assert np.isnan(found[0])
    for area, times in zip(found[1:], counts[1:], strict=True):
        expected = roc_auc_score(np.repeat(targets, times), np.repeat(score, times))
        assert area == pytest.approx(expected, abs=1e-12)


def test_bootstrap_leaves_out_nan():
    assert bootstrap_mean(np.array([1.0, np.nan, 3.0]))[0] == 2
    assert np.isnan(bootstrap_mean(np.array([np.nan]))[0])


SEX = Classification(("female", "male"))


def test_brain_size_baseline_is_out_of_fold():
    rng = np.random.default_rng(0)
    n = 200
    target = np.arange(n) % 2
    participants = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:03d}" for i in range(n)],
            "target": target,
            "icv": rng.normal(1400 + 150 * target, 100),
            "noise": rng.normal(size=n),
        }
    )
    folds = pd.DataFrame({"participant_id": participants["participant_id"], "fold": np.arange(n) // 2 % 5})
    informative = brain_size_predictions(participants, folds, "icv", SEX)
    assert classification_metrics(informative, n_bootstrap=20)["test/auroc"] == pytest.approx(0.855, abs=0.06)
    nothing = brain_size_predictions(participants, folds, "noise", SEX)
    assert classification_metrics(nothing, n_bootstrap=20)["test/auroc"] == pytest.approx(0.5, abs=0.12)
    # labels of the fold that is predicted play no part
    shuffled = participants.copy()
    shuffled.loc[folds["fold"] == 0, "target"] = 1 - shuffled.loc[folds["fold"] == 0, "target"]
    again = brain_size_predictions(shuffled, folds, "icv", SEX)
    np.testing.assert_allclose(
        again.query("fold == 0")["prob_male"], informative.query("fold == 0")["prob_male"]
    )


@pytest.mark.real_data
def test_brain_size_of_ixi_tells_the_sexes_apart_as_published(real_data):
    table = pd.read_csv(real_data / "ixi" / "participants.tsv", sep="\t")
    assert auroc(
        (table["sex"] == "M").to_numpy().astype(int), np.stack([-table["icv_ml"], table["icv_ml"]], 1)
    ) == (pytest.approx(0.856, abs=0.002))

"""Paired comparisons and matching, against literature, bootstrap and arithmetic."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, ttest_1samp
from scipy.stats import t as student
from sklearn.metrics import brier_score_loss, roc_auc_score

from xai_brain.statistics.classification import brier_score, classification_metrics
from xai_brain.statistics.classifier_comparison import auroc_influence, corrected_t_test, delong_test
from xai_brain.statistics.matching import matched_auroc, matched_pairs, size_matched_pairs
from xai_brain.study.training.compare_baselines import comparison_table


def table(targets, scores, folds=0, seed=0):
    n = len(targets)
    return pd.DataFrame(
        {"participant_id": [f"sub-{i:03d}" for i in range(n)], "seed": seed, "fold": folds,
         "target": targets, "prob_a": 1 - np.asarray(scores), "prob_b": scores}
    )  # fmt: skip


def two_classifiers(n=120, seed=0):
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    shared = rng.normal(size=n) + targets
    return [table(targets, norm.cdf(shared + rng.normal(size=n))) for _ in range(2)]


def test_delong_by_the_definition_of_its_components():
    first, second = two_classifiers(40)
    placements = []
    for one in (first, second):
        x, y = one.loc[one["target"] == 1, "prob_b"], one.loc[one["target"] == 0, "prob_b"]
        wins = (x.to_numpy()[:, None] > y.to_numpy()) + 0.5 * (x.to_numpy()[:, None] == y.to_numpy())
        placements.append((wins.mean(1), wins.mean(0)))
    areas = [v10.mean() for v10, _ in placements]
    s10 = np.cov([v10 for v10, _ in placements])
    s01 = np.cov([v01 for _, v01 in placements])
    covariance = s10 / 20 + s01 / 20
    z = (areas[0] - areas[1]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = delong_test(first, second)
    assert found.difference == pytest.approx(areas[0] - areas[1])
    assert found.p == pytest.approx(2 * norm.sf(abs(z)))
    area, contributions = auroc_influence(first)
    assert area == pytest.approx(roc_auc_score(first["target"], first["prob_b"]))
    assert (contributions**2).sum() == pytest.approx(covariance[0, 0])


def test_delong_with_ties_by_hand():
    # positives 3, 2; negatives 2, 1: 3 beats both, 2 ties with 2 and beats 1; AUROC 3.5 / 4
    area, contributions = auroc_influence(table([1, 1, 0, 0], [0.3, 0.2, 0.2, 0.1]))
    assert area == 0.875
    # placements 1 and 0.75 of the positives, 0.75 and 1 of the negatives, each over sqrt(2 * 1)
    np.testing.assert_allclose(contributions, np.array([0.125, -0.125, -0.125, 0.125]) / np.sqrt(2))


def test_standard_error_over_folds_and_seeds_is_that_of_the_bootstrap():
    rng = np.random.default_rng(3)
    targets, folds = np.arange(160) % 2, np.arange(160) // 2 % 4
    scores = rng.normal(size=160) + targets
    seeds = [table(targets, norm.cdf(scores + rng.normal(size=160) + folds), folds, s) for s in (0, 1)]
    both = pd.concat(seeds)
    area, contributions = auroc_influence(both)
    figures = classification_metrics(both, n_bootstrap=500)
    assert area == pytest.approx(figures["test/auroc"])
    width = (figures["test/auroc_ci_high"] - figures["test/auroc_ci_low"]) / (2 * 1.96)
    assert np.sqrt((contributions**2).sum()) == pytest.approx(width, rel=0.12)


def test_delong_keeps_its_level_and_finds_a_difference():
    p = np.array([delong_test(*two_classifiers(80, seed)).p for seed in range(150)])
    assert 0.01 <= (p < 0.05).mean() <= 0.1
    better, worse = two_classifiers(200)
    worse = table(worse["target"], np.random.default_rng(5).random(200))
    assert delong_test(better, worse).p < 1e-3
    assert delong_test(better, better).p == 1


def test_only_subjects_of_both_are_compared():
    first, second = two_classifiers(60)
    some = second.iloc[:40]
    assert delong_test(first, some) == delong_test(first.iloc[:40], some)


def test_corrected_t_is_the_t_test_with_more_variance():
    rng = np.random.default_rng(0)
    targets, folds = np.arange(200) % 2, np.arange(200) // 2 % 5
    right = [rng.random(200) < rate for rate in (0.9, 0.7)]
    first, second = (table(targets, np.where(r, targets, 1 - targets).astype(float), folds) for r in right)
    found = corrected_t_test(first, second, 200)
    by_fold = (
        pd.DataFrame({"fold": folds, "d": right[0].astype(float) - right[1]}).groupby("fold")["d"].mean()
    )
    assert found.difference == pytest.approx(by_fold.mean())
    plain = ttest_1samp(by_fold, 0).statistic
    # 1/5 becomes 1/5 + 40/160
    t = plain * np.sqrt((1 / 5) / (1 / 5 + 40 / 160))
    assert found.p == pytest.approx(2 * student.sf(abs(t), 4))
    assert found.ci_low < found.difference < found.ci_high
    assert np.isnan(corrected_t_test(first.assign(fold=0), second.assign(fold=0), 400).p)
    without_a_fold = second[second["fold"] != 3]
    assert np.isnan(corrected_t_test(first, without_a_fold, 200).difference)


def test_a_difference_that_does_not_vary_has_no_interval():
    targets, folds = np.tile([0, 1], 10), np.repeat([0, 1], 10)
    first, half = (
        table(targets, np.where(right, targets, 1 - targets).astype(float), folds)
        for right in (np.ones(20, bool), np.arange(20) % 10 < 6)
    )
    found = corrected_t_test(first, half, 40)
    assert found.difference == pytest.approx(0.4)
    assert np.isnan([found.ci_low, found.ci_high, found.p]).all()
    same = corrected_t_test(first, first, 40)
    assert (same.difference, same.ci_low, same.ci_high, same.p) == (0, 0, 0, 1)


def test_delong_needs_both_classes_in_every_fold():
    first, second = two_classifiers(80)
    folds = np.arange(80) // 2 % 4
    first, second = first.assign(fold=folds), second.assign(fold=folds)
    assert np.isfinite(delong_test(first, second).p)
    one_class = ~((folds == 1) & (first["target"] == 0).to_numpy())
    assert np.isnan(delong_test(first[one_class], second[one_class]).difference)


def test_brier_is_sklearns():
    rng = np.random.default_rng(0)
    targets, p = rng.integers(0, 2, 50), rng.random(50)
    assert brier_score(targets, np.stack([1 - p, p], 1)) == pytest.approx(brier_score_loss(targets, p))
    three, classes = rng.dirichlet([1, 1, 1], 50), np.arange(50) % 3
    assert brier_score(classes, three) == pytest.approx(brier_score_loss(classes, three, labels=[0, 1, 2]))
    assert brier_score(targets, np.full((50, 2), 0.5)) == 0.25


def test_as_many_pairs_as_can_be_then_the_closest():
    # closest first would pair 1000 with 1001 and leave two alone
    np.testing.assert_array_equal(matched_pairs([1000, 1020], [1001, 981]), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(matched_pairs([1000, 1500], [1505, 1004, 1019]), [[0, 1], [1, 0]])
    # 2 % of the mean of the pair: 1000 and 1020 differ by 1.98 %, 1000 and 1021 by 2.08 %
    assert len(matched_pairs([1000], [1020])) == 1
    assert len(matched_pairs([1000], [1021])) == 0
    assert len(matched_pairs([1000, np.nan], [np.nan, 1200])) == 0
    assert matched_pairs([], [1000]).shape == (0, 2)


def test_pairs_are_of_one_fold_and_of_two_classes():
    ids = [f"sub-{i}" for i in range(6)]
    sizes = pd.Series([1000, 1001, 1000, 1500, 1502, 1001], ids)
    targets = pd.Series([0, 1, 0, 0, 1, 1], ids)
    folds = pd.DataFrame({"participant_id": ids, "fold": [0, 0, 1, 1, 1, -1]})
    pairs = size_matched_pairs(folds, sizes, targets)
    assert pairs.to_dict("list") == {
        "pair": [0, 0, 1, 1],
        "fold": [0, 0, 1, 1],
        "participant_id": ["sub-0", "sub-1", "sub-3", "sub-4"],
    }


def cohort(n=400, seed=0):
    """Class by brain size; a network that sees size only and one that sees the class beside it."""
    rng = np.random.default_rng(seed)
    targets, folds = np.arange(n) % 2, np.arange(n) // 2 % 4
    size = rng.normal(1450 + 130 * targets, 100)
    ids = [f"sub-{i:03d}" for i in range(n)]
    of_size = table(targets, norm.cdf((size - 1500) / 100), folds)
    of_class = table(targets, norm.cdf((size - 1500) / 100 + 2 * targets + rng.normal(size=n)), folds)
    people = pd.DataFrame({"participant_id": ids, "fold": folds})
    return people, pd.Series(size, ids), pd.Series(targets, ids), of_size, of_class


def test_what_knows_size_only_is_at_chance_in_matched_pairs():
    folds, sizes, targets, of_size, of_class = cohort()
    pairs = size_matched_pairs(folds, sizes, targets)
    difference = sizes.loc[pairs["participant_id"]].to_numpy().reshape(-1, 2)
    assert (np.abs(np.diff(difference, axis=1)[:, 0]) / difference.mean(1) <= 0.02).all()
    assert roc_auc_score(of_size["target"], of_size["prob_b"]) > 0.78
    value, low, high, n_pairs = matched_auroc(of_size, pairs)
    assert n_pairs == len(pairs) / 2 > 80
    assert value == pytest.approx(0.5, abs=0.06)  # up to 2 % of size remain
    value, low, high, _ = matched_auroc(of_class, pairs)
    assert 0.8 < low < value < high


def test_the_interval_of_matched_pairs_contains_its_estimate_and_has_its_level():
    """Three pairs in each of four folds, as in small cohorts."""
    covered, n = 0, 300
    for seed in range(n):
        rng = np.random.default_rng(seed)
        targets, folds = np.arange(24) % 2, np.repeat(np.arange(4), 6)
        pairs = pd.DataFrame(
            {"pair": np.arange(24) // 2, "fold": folds, "participant_id": [f"sub-{i:03d}" for i in range(24)]}
        )
        common = np.repeat(rng.normal(size=12), 2)  # what the two of a pair share
        scores = norm.cdf(common + 0.05 * targets)
        value, low, high, n_pairs = matched_auroc(table(targets, scores, folds), pairs)
        assert n_pairs == 12
        assert low <= value <= high or np.isnan([low, high]).all()  # NaN where all pairs contribute the same
        scores = norm.cdf(common + rng.normal(size=24))
        _, low, high, _ = matched_auroc(table(targets, scores, folds), pairs)
        covered += low <= 0.5 <= high
    assert 0.9 < covered / n <= 1


def test_matched_auroc_weighs_folds_by_their_pairs():
    pairs = pd.DataFrame(
        {
            "pair": [0, 0, 1, 1, 2, 2],
            "fold": [0, 0, 0, 0, 1, 1],
            "participant_id": [f"sub-00{i}" for i in range(6)],
        }
    )
    # fold 0: 0.9, 0.8 over 0.1, 0.2: AUROC 1; fold 1: 0.3 below 0.7: 0
    found = table([0, 1, 0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8, 0.7, 0.3], [0, 0, 0, 0, 1, 1])
    value, _, _, n_pairs = matched_auroc(found, pairs)
    assert (value, n_pairs) == (pytest.approx(2 / 3), 3)
    assert matched_auroc(found.iloc[1:], pairs)[3] == 2  # a pair of whom one was not predicted
    assert matched_auroc(found.iloc[:1], pairs)[3] == 0


def one_pair_in_each_fold(n_pairs, n_right):
    """Predictions and pairs; the network ranks the first pairs correctly."""
    targets, folds = np.arange(2 * n_pairs) % 2, np.arange(2 * n_pairs) // 2
    right = folds < n_right
    scores = np.where(targets == right, 0.9, 0.1)
    ids = [f"sub-{i:03d}" for i in range(2 * n_pairs)]
    return table(targets, scores, folds), pd.DataFrame({"pair": folds, "fold": folds, "participant_id": ids})


def test_the_values_of_folds_with_one_pair_give_the_interval():
    value, low, high, n_pairs = matched_auroc(*one_pair_in_each_fold(12, 9))
    assert (value, n_pairs) == (0.75, 12)
    error = np.std([1.0] * 9 + [0.0] * 3, ddof=1) / np.sqrt(12)
    assert low == pytest.approx(0.75 - student.ppf(0.975, 11) * error)
    assert high == pytest.approx(min(0.75 + student.ppf(0.975, 11) * error, 1))


@pytest.mark.parametrize(("n_pairs", "n_right"), [(5, 4), (9, 6), (12, 12)])
def test_few_pairs_and_pairs_that_do_not_vary_have_no_interval(n_pairs, n_right):
    value, low, high, n = matched_auroc(*one_pair_in_each_fold(n_pairs, n_right))
    assert (value, n) == (pytest.approx(n_right / n_pairs), n_pairs)
    assert np.isnan([low, high]).all()


def test_the_table_tells_the_network_from_a_baseline():
    folds, sizes, targets, of_size, of_class = cohort(200)
    pairs = size_matched_pairs(folds, sizes, targets)
    found = comparison_table({"network": of_class, "size": of_size}, pairs, 200, 100)
    cell = found.set_index(["name", "metric"])
    assert cell.loc[("size", "auroc"), "difference"] == pytest.approx(
        cell.loc[("network", "auroc"), "value"] - cell.loc[("size", "auroc"), "value"]
    )
    assert cell.loc[("size", "auroc"), "test"] == "DeLong"
    assert cell.loc[("size", "accuracy"), "test"] == "corrected t"
    assert cell.loc["network", "p"].isna().all()
    assert cell.loc[("size", "auroc"), "p"] < 1e-3
    assert cell.loc[("size", "auroc_size_matched"), "n_subjects"] == len(pairs)

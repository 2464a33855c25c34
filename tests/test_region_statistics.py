"""Comparisons of classes by region: p values, confounds, blocks, and ranks of regions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xai_brain.statistics.group_design import make_design
from xai_brain.statistics.region_regression import bootstrap_differences, permutation_test
from xai_brain.statistics.regions import compare_classes, top_regions


def tidy(values: np.ndarray, classes: list[str], **columns: object) -> pd.DataFrame:
    """Rows of subjects x regions as the evaluate stage writes them; both measures are the values."""
    return pd.DataFrame(
        [
            {"participant_id": f"sub-{i:03d}", "class": classes[i], "method": "M", "index": 10 * (k + 1),
             "region": f"region {k}", "mean": value, "mass_share": value, **columns}
            for (i, k), value in np.ndenumerate(values)
        ]
    )  # fmt: skip


def design_of(second, **confounds):
    """Design of two classes; `second` says who belongs to the second class."""
    table = pd.DataFrame({"participant_id": [f"s{i}" for i in range(len(second))], **confounds})
    return make_design(table.assign(label=np.where(second, "b", "a")), ("a", "b"), list(confounds))


def test_p_is_that_of_all_permutations():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((9, 3)) + np.outer(np.arange(9) < 4, [0, 1.5, -2])
    first = np.arange(9) < 4
    exact = [
        stats.permutation_test(
            (values[first, k], values[~first, k]),
            lambda a, b, axis: np.abs(a.mean(axis) - b.mean(axis)),
            vectorized=True,
            alternative="greater",
            n_resamples=np.inf,
        ).pvalue
        for k in range(3)
    ]
    np.testing.assert_allclose(permutation_test(values, design_of(~first), 40_000).p, exact, atol=0.01)


def test_p_agrees_with_a_t_test_of_many_subjects():
    rng = np.random.default_rng(1)
    values = rng.standard_normal((120, 6)) + np.outer(np.arange(120) < 60, np.linspace(0, 0.5, 6))
    first = np.arange(120) < 60
    expected = stats.ttest_ind(values[~first], values[first])
    found = permutation_test(values, design_of(~first), 20_000)
    np.testing.assert_allclose(found.t, expected.statistic)
    np.testing.assert_allclose(found.p, expected.pvalue, atol=0.015)


def test_p_is_uniform_under_the_null_within_blocks_too():
    rng = np.random.default_rng(2)
    first, folds = np.arange(40) % 2 == 0, np.arange(40) // 8
    scale = 10.0 ** np.arange(5)[folds]  # every fold's model has a scale and an offset of its own
    values = (rng.standard_normal((40, 400)) + 3) * scale[:, None]
    p = permutation_test(values, design_of(~first, fold=folds), 1000, blocks=folds).p
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.02 < (p <= 0.05).mean() < 0.09


def test_blocks_keep_a_difference_of_folds_out():
    first = np.array([True, True, True, False, True, False, False, False])
    folds = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    values = np.where(folds == 0, 1.0, 5.0)[:, None]  # differs between folds only
    adjusted = permutation_test(values, design_of(~first, fold=folds), 2000, blocks=folds)
    assert adjusted.p[0] == 1
    assert adjusted.difference[0] == 0
    # with free labels it would look like an effect: 4 of one class, 3 of them in fold 0
    exact = stats.hypergeom(8, 4, 4).pmf([0, 1, 3, 4]).sum()
    assert permutation_test(values, design_of(~first), 20_000).p[0] == pytest.approx(exact, abs=0.015)


def test_t_is_that_of_ordinary_least_squares():
    rng = np.random.default_rng(6)
    second, folds = rng.random(50) < 0.4, np.arange(50) % 3
    age = rng.normal(50, 10, 50) + 5 * second
    values = rng.standard_normal((50, 4)) + 0.05 * age[:, None] + np.outer(second, [0, 0.5, 1, -2])
    found = permutation_test(values, design_of(second, age=age, fold=folds), 99, blocks=folds)
    columns = np.column_stack([second, np.ones(50), age, folds == 1, folds == 2])
    beta, size, *_ = np.linalg.lstsq(columns, values, rcond=None)
    error = np.sqrt(size / 45 * np.linalg.inv(columns.T @ columns)[0, 0])
    np.testing.assert_allclose(found.difference, beta[0])
    np.testing.assert_allclose(found.t, beta[0] / error)
    assert found.p.min() == 0.01  # 1 / (n_perm + 1) of the largest effect
    draws = bootstrap_differences(
        values, design_of(second, age=age, fold=folds), second + 2 * folds, 4000, np.random.default_rng(0)
    )
    np.testing.assert_allclose(draws.mean(0), beta[0], atol=0.05)
    np.testing.assert_allclose(draws.std(0), error, rtol=0.2)


def test_p_is_uniform_under_the_null_with_a_confound():
    """Class and region both follow age, and nothing else."""
    rng = np.random.default_rng(7)
    age = rng.normal(0, 1, 60)
    second = age + rng.normal(0, 1, 60) > 0
    values = 2 * age[:, None] + rng.exponential(1, (60, 400))
    p = permutation_test(values, design_of(second, age=age), 1000).p
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.02 < (p <= 0.05).mean() < 0.09
    assert p.min() >= 1 / 1001


def test_a_confound_that_explains_the_difference_removes_it():
    rng = np.random.default_rng(11)
    size = np.r_[rng.normal(1300, 50, 40), rng.normal(1500, 50, 40)]
    values = (size / 100 + rng.normal(0, 0.2, 80))[:, None]
    table = tidy(values, ["female"] * 40 + ["male"] * 40, fold=0)
    participants = table[["participant_id"]].assign(icv=size)
    messages = []
    options = {"n_perm": 999, "n_bootstrap": 500, "measures": ["mean"], "participants": participants}
    [raw] = compare_classes(table, ["female", "male"], confounds=[], **options).to_dict("records")
    assert raw["difference"] == pytest.approx(values[40:].mean() - values[:40].mean())
    assert raw["difference"] == pytest.approx(raw["mean_b"] - raw["mean_a"])
    assert raw["p"] == 0.001
    [row] = compare_classes(
        table, ["female", "male"], confounds=["icv", "fold"], report=messages.append, **options
    ).to_dict("records")
    assert row["ci_low"] < 0 < row["ci_high"]
    assert abs(row["difference"]) < 0.2
    assert row["p"] > 0.05
    assert (row["mean_a"], row["mean_b"]) == (raw["mean_a"], raw["mean_b"])  # not adjusted
    assert row["confounds"] == "icv"
    dropped = ["male minus female: confound fold dropped: the same for all"]
    assert messages == dropped
    messages.clear()
    both = pd.concat([table, table.assign(method="N")])
    compare_classes(both, ["female", "male"], confounds=["icv", "fold"], report=messages.append, **options)
    assert messages == dropped  # once, not for each method


def test_participants_without_a_confound_are_excluded_and_counted():
    values = np.random.default_rng(9).standard_normal((12, 2))
    table = tidy(values, list("ab") * 6, fold=0)
    ages = np.where(np.arange(12) < 2, np.nan, 30.0 + np.arange(12))
    participants = table.drop_duplicates("participant_id")[["participant_id"]].assign(age=ages)
    messages = []
    found = compare_classes(
        table, ["a", "b"], participants=participants, confounds=["age"], n_perm=20, report=messages.append
    )
    assert set(found["n_a"]) == set(found["n_b"]) == {5}
    assert messages == ["b minus a: 2 participants excluded: 2 with no age"]
    nothing = compare_classes(table.replace({"class": {"b": "a"}}), ["a", "b"], report=messages.append)
    assert nothing.empty
    assert "M, b minus a: regions are not compared: 12 a, 0 b: at least 2" in messages[-1]


def test_planted_difference_is_found_in_its_region_alone():
    rng = np.random.default_rng(3)
    values = 2 + rng.standard_normal((80, 12))
    values[:40, 4] += 1.5
    table = tidy(values, ["men"] * 40 + ["women"] * 40, fold=0)
    result = compare_classes(table, ["men", "women"], measures=["mean"]).set_index("region")
    assert result.index[result["q"] <= 0.05].tolist() == ["region 4"]
    row = result.loc["region 4"]
    a, b = values[:40, 4], values[40:, 4]
    assert (row["class_a"], row["class_b"], row["n_a"], row["n_b"]) == ("men", "women", 40, 40)
    assert row["difference"] == pytest.approx(b.mean() - a.mean())  # later minus earlier class
    assert row["ratio"] == pytest.approx(b.mean() / a.mean())
    half = 1.96 * np.sqrt(a.var() / 40 + b.var() / 40)  # of the normal approximation
    assert row["ci_low"] == pytest.approx(row["difference"] - half, abs=0.06)
    assert row["ci_high"] == pytest.approx(row["difference"] + half, abs=0.06)
    assert row["ratio_ci_low"] < row["ratio"] < row["ratio_ci_high"]
    np.testing.assert_allclose(result["q"], stats.false_discovery_control(result["p"]))


def test_ratio_is_left_out_where_it_says_nothing():
    rng = np.random.default_rng(4)
    noise = 0.3 * rng.standard_normal((40, 3))
    values = noise + np.where(np.arange(40)[:, None] < 20, [1, 0, -2], [-1, 3, -4])
    result = compare_classes(tidy(values, ["a"] * 20 + ["b"] * 20), ["a", "b"], n_perm=50, measures=["mean"])
    assert result["ratio"].isna().tolist() == [True, True, False]  # other sign; near 0; both negative
    assert result["ratio"].iloc[2] == pytest.approx(2, abs=0.2)


def test_seeds_and_sessions_are_averaged_and_empty_maps_left_out():
    values = np.arange(12.0).reshape(6, 2)
    once = tidy(values, list("aaabbb"), seed=0)
    again = tidy(values + 2, list("aaabbb"), seed=1)
    table = pd.concat([once, again])
    table.loc[table["participant_id"] == "sub-000", ["mean", "mass_share"]] = np.nan  # both seeds empty
    table.loc[(table["participant_id"] == "sub-005") & (table["seed"] == 1), ["mean", "mass_share"]] = np.nan
    result = compare_classes(table, ["a", "b"], n_perm=20, measures=["mean"])
    assert result["n_a"].tolist() == [2, 2]
    assert result["n_b"].tolist() == [2, 2]  # one map of sub-005 is empty
    assert result["mean_a"].tolist() == [4, 5]  # subjects 1 and 2: 2 and 4, one more for the mean of seeds
    assert result["mean_b"].iloc[0] == pytest.approx((7 + 9) / 2)


def test_three_classes_are_compared_in_pairs():
    table = tidy(np.random.default_rng(5).standard_normal((12, 2)), list("abc") * 4)
    result = compare_classes(table, ["c", "a", "b"], n_perm=20)
    pairs = list(dict.fromkeys(zip(result["class_a"], result["class_b"], strict=True)))
    assert pairs == [("c", "a"), ("c", "b"), ("a", "b")]
    assert len(result) == 3 * 2 * 2  # pairs, measures, regions


def test_top_regions_are_ranked_by_size_whatever_the_sign():
    values = np.tile([0.5, -3.0, 1.0], (6, 1)) + np.linspace(-0.1, 0.1, 6)[:, None]
    top = top_regions(tidy(values, list("aaabbb")), ["a", "b"], k=2)
    first = top[top["class"] == "a"]
    assert first["region"].tolist() == ["region 1", "region 2"]
    assert first["mean"].tolist() == pytest.approx([-3.06, 0.94])
    assert ((first["ci_low"] <= first["mean"]) & (first["mean"] <= first["ci_high"])).all()
    assert first["n"].tolist() == [3, 3]


def test_difference_is_within_folds_whose_classes_are_of_different_number():
    """Two sites: 18 men and 2 women far above 2 men and 18 women; in each the men are lower by 1."""
    rng = np.random.default_rng(0)
    site = np.repeat([0, 1], 20)
    man = np.r_[np.ones(18), np.zeros(2), np.ones(2), np.zeros(18)].astype(bool)
    values = 10.0 * (site == 0) - man + rng.normal(0, 0.1, 40)
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:02d}" for i in range(40)],
            "class": np.where(man, "male", "female"),
            "method": "A", "index": 1, "region": "one", "fold": site, "mean": values,
        }
    )  # fmt: skip
    [row] = compare_classes(
        table, ["female", "male"], measures=["mean"], n_perm=999, n_bootstrap=500
    ).to_dict("records")
    assert row["mean_b"] > row["mean_a"] + 6  # by the sites alone
    assert row["difference"] == pytest.approx(-1, abs=0.1)
    assert -1.2 < row["ci_low"] < row["difference"] < row["ci_high"] < -0.8
    assert row["p"] < 0.01

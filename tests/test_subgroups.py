"""Performance by subgroup: figures, intervals, small subgroups, settings, and the section of the report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from report_runs import text_of
from sklearn.metrics import roc_auc_score

from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.reporting.html_report import write_report
from xai_brain.runs.directory import read_tsv, write_tsv
from xai_brain.stages.evaluate import evaluate
from xai_brain.statistics.confounds.subgroups import subgroup_table, subgroups_of


def series(values, name="site"):
    ids = [f"sub-{i:03d}" for i in range(len(values))]
    return pd.Series(values, pd.Index(ids, name="participant_id"), name=name)


def predictions(signal, seed=0):
    """Two classes in turn; `signal` (n,) shifts the logit of each participant towards its class."""
    rng = np.random.default_rng(seed)
    n = len(signal)
    target = np.arange(n) % 2
    probability = 1 / (1 + np.exp(-rng.standard_normal(n) - signal * (2 * target - 1)))
    table = pd.DataFrame({"participant_id": [f"sub-{i:03d}" for i in range(n)], "target": target})
    return table.assign(seed=0, fold=np.arange(n) // 2 % 3, prob_a=1 - probability, prob_b=probability)


def table_of(predictions, groups, **changes):
    given = {"class_names": ["a", "b"], "n_bootstrap": 200, **changes}
    return subgroup_table(predictions, {groups.name: subgroups_of(groups)}, **given)


def test_subgroups_are_values_or_thirds_of_a_number():
    ages = series(np.arange(20, 80), "age")
    found = subgroups_of(ages)
    assert list(found.cat.categories) == ["up to 39.7", "above 39.7, up to 59.3", "above 59.3"]
    assert found.value_counts().tolist() == [20, 20, 20]
    assert (ages[found == "up to 39.7"] <= 39.7).all()
    sites = subgroups_of(series([2, 10, 1, 2] * 5))
    assert list(sites.cat.categories) == ["1", "2", "10"]
    assert list(subgroups_of(series([*range(20)])).cat.categories)[:3] == ["0", "1", "2"]  # codes of sites
    missing = subgroups_of(series(["m", None, "f"], "sex"))
    assert missing.isna().tolist() == [False, True, False]
    assert subgroups_of(series(["m"] * 4, "sex")) is None
    assert subgroups_of(series([f"x{i}" for i in range(31)], "name")) is None


def test_figures_and_counts_of_subgroups_are_those_of_their_rows():
    table = predictions(np.full(90, 1.0))
    site = series(np.repeat(["A", "B", "C"], [40, 30, 20]))
    found = table_of(table, site)
    rows = found[found["metric"] == "auroc_pooled"].set_index("subgroup")
    for name in "ABC":
        inside = (site == name).to_numpy()
        value, rest = (
            roc_auc_score(table["target"][rows_], table["prob_b"][rows_]) for rows_ in (inside, ~inside)
        )
        assert rows.at[name, "value"] == pytest.approx(value)
        assert rows.at[name, "difference"] == pytest.approx(value - rest)
        assert rows.at[name, "n_participants"] == inside.sum()
        assert rows.at[name, "n_a"] == rows.at[name, "n_b"] == inside.sum() / 2
        assert rows.at[name, "ci_low"] <= value <= rows.at[name, "ci_high"]
        assert rows.at[name, "difference_ci_low"] <= value - rest <= rows.at[name, "difference_ci_high"]


def test_a_subgroup_in_which_the_network_fails_is_found_and_others_are_not():
    signal = np.where(np.arange(240) < 60, 0.0, 2.0)
    site = series(np.repeat(["A", "B", "C"], [60, 90, 90]))
    found = table_of(predictions(signal), site)
    rows = found[found["metric"] == "auroc_pooled"].set_index("subgroup")
    assert rows.at["A", "difference_ci_high"] < -0.1
    assert rows.at["A", "ci_low"] < 0.5 < rows.at["A", "ci_high"]
    assert rows.at["B", "difference_ci_low"] > 0  # because A is part of its rest
    pair = table_of(predictions(np.full(240, 1.0)), site)
    assert ((pair["difference_ci_low"] < 0) & (pair["difference_ci_high"] > 0)).all()


def test_intervals_of_differences_hold_the_stated_level():
    """In 100 cohorts without a difference about 95 intervals include 0."""
    site = series(np.repeat(["A", "B"], [40, 60]))
    included = []
    for seed in range(100):
        table = table_of(predictions(np.full(100, 1.0), seed), site, n_bootstrap=150)
        first = table.iloc[0]
        included.append(first["difference_ci_low"] <= 0 <= first["difference_ci_high"])
    assert 88 <= sum(included) <= 100


def test_small_subgroups_and_subgroups_of_one_class_have_counts_only():
    table = predictions(np.full(60, 1.0))
    values = np.repeat(["large", "small", "one class"], [30, 9, 21])
    values[(values == "one class") & (table["target"] == 1)] = "large"
    found = subgroup_table(
        table, {"g": subgroups_of(series(values, "g"))}, class_names=["a", "b"], n_bootstrap=20
    )
    rows = found[found["metric"] == "auroc_pooled"].set_index("subgroup")
    assert rows.at["small", "n_participants"] == 9
    assert rows.at["one class", "n_b"] == 0
    assert rows.loc[["small", "one class"], ["value", "ci_low", "difference"]].isna().all(axis=None)
    assert np.isfinite(rows.at["large", "difference"])  # the others together are large enough


def test_numbers_images_of_one_participant_and_seeds():
    rng = np.random.default_rng(0)
    target = rng.uniform(20, 80, 40)
    one = pd.DataFrame({"participant_id": [f"sub-{i:03d}" for i in range(40)], "target": target, "fold": 0})
    tables = [one.assign(seed=s, predicted_age=target + rng.normal(0, 5, 40)) for s in (0, 1)]
    twice = pd.concat([table.assign(session_id=v) for v in ("ses-1", "ses-2") for table in tables])
    groups = {"sex": subgroups_of(series(["f", "m"] * 20, "sex"))}
    plain, sessions = (
        subgroup_table(each, groups, "predicted_age", n_bootstrap=30) for each in (pd.concat(tables), twice)
    )
    women = plain[(plain["subgroup"] == "f") & (plain["metric"] == "mae_pooled")].iloc[0]
    errors = [np.abs(table["predicted_age"] - target)[::2].mean() for table in tables]
    assert women["value"] == pytest.approx(np.mean(errors))
    pd.testing.assert_frame_equal(plain, sessions)  # each image twice says no more


def test_evaluate_writes_subgroups_that_the_report_shows(copied, undrawn):
    assert read_tsv(copied.evaluation("subgroups"))["column"].unique().tolist() == [
        "age"
    ]  # sex is the target
    participants = read_tsv(copied.participants)
    scanner = np.where(np.arange(len(participants)) % 4 < 2, "X", "Y")
    write_tsv(participants.assign(scanner=scanner), copied.participants)
    settings = [f"run_dir={copied.path}", "evaluation.subgroups=[scanner]"]
    evaluate(stage_settings("evaluate", settings))
    table = read_tsv(copied.evaluation("subgroups"))
    assert table["column"].unique().tolist() == ["scanner"]
    assert table["n_participants"].tolist() == [12] * 4
    auroc = table[table["metric"] == "auroc_pooled"]
    assert auroc["difference"].sum() == pytest.approx(0, abs=1e-9)  # of two subgroups
    text = text_of(write_report(copied).read_text())
    assert "Performance by subgroup scanner n n female n male AUROC, pooled" in text
    assert f"X 12 {auroc['n_female'].iloc[0]} {auroc['n_male'].iloc[0]} {auroc['value'].iloc[0]:.3f}" in text


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("[sex]", r"evaluation\.subgroups=sex: is the target"),
        ("[scanner]", "scanner: not in participants.tsv"),
    ],
)
def test_columns_that_are_no_subgroups_are_refused_in_one_line(copied, columns, message):
    with pytest.raises(ConfigError, match=message) as caught:
        evaluate(stage_settings("evaluate", [f"run_dir={copied.path}", f"evaluation.subgroups={columns}"]))
    assert "\n" not in str(caught.value)

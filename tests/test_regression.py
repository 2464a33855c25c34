"""Continuous targets: metrics with known answers, tables that are read strictly, folds and losses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from xai_brain.config.schema import ConfigError
from xai_brain.data.folds.splits import make_folds
from xai_brain.io.problems import DataError
from xai_brain.models.module import BrainClassifier
from xai_brain.statistics.continuous.comparison import paired_error_test
from xai_brain.statistics.continuous.metrics import errors_of_draws, regression_metrics
from xai_brain.task.build import build_task, task_of_table
from xai_brain.task.labels import LabelRule
from xai_brain.task.regression import Regression
from xai_brain.task.soft_bins import bin_centres, soft_labels

AGE = Regression(("age",))


def predictions_of(n=60, n_folds=3, noise=5.0, seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    target = rng.uniform(20, 80, n)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i:03d}" for i in range(n)],
            "seed": 0,
            "fold": np.arange(n) % n_folds,
            "target": target,
            "predicted_age": 20 + 0.6 * target + rng.normal(0, noise, n),
        }
    )


# -- scores --------------------------------------------------------------------------------------
def test_scores_equal_those_of_scikit_learn_and_scipy():
    table = predictions_of()
    scores = AGE.scores(table, n_bootstrap=20)
    functions = {
        "mae": mean_absolute_error,
        "rmse": root_mean_squared_error,
        "r2": r2_score,
        "pearson_r": lambda y, p: stats.pearsonr(y, p).statistic,
        "residual_r": lambda y, p: stats.pearsonr(p - y, y).statistic,
    }
    for name, function in functions.items():
        by_fold = [function(part["target"], part["predicted_age"]) for _, part in table.groupby("fold")]
        assert scores[f"test/{name}"] == pytest.approx(np.mean(by_fold)), name
        pooled = function(table["target"], table["predicted_age"])
        assert scores[f"test/{name}_pooled"] == pytest.approx(pooled), name
    assert set(AGE.score_titles) == {name.split("/")[1] for name in scores if "_ci_" not in name}
    assert AGE.score_titles["mae"] == "MAE, mean over folds"
    assert AGE.score_titles["mae_pooled"] == "MAE, pooled"


def test_scores_of_a_draw_are_those_of_the_repeated_rows():
    table, rng = predictions_of(20, 1), np.random.default_rng(1)
    target, predicted = (table[name].to_numpy() for name in ("target", "predicted_age"))
    counts = rng.multinomial(20, np.full(20, 0.05), 4)
    found = errors_of_draws(target, predicted, counts)
    for draw, row in enumerate(counts):
        y, p = np.repeat(target, row), np.repeat(predicted, row)
        assert found["r2"][draw] == pytest.approx(r2_score(y, p))
        assert found["pearson_r"][draw] == pytest.approx(stats.pearsonr(y, p).statistic)
        assert found["rmse"][draw] == pytest.approx(root_mean_squared_error(y, p))


def test_intervals_contain_the_estimate_and_shrink_with_the_number_of_participants():
    widths = []
    for n in (60, 600):
        scores = AGE.scores(predictions_of(n), n_bootstrap=200)
        assert scores["test/mae_ci_low"] < scores["test/mae"] < scores["test/mae_ci_high"]
        widths.append(scores["test/mae_ci_high"] - scores["test/mae_ci_low"])
    assert widths[1] < 0.5 * widths[0]


def test_undefined_scores_are_not_a_number_and_broken_predictions_are_refused():
    table = predictions_of(12)
    constant = regression_metrics(table.assign(predicted_age=50.0), "predicted_age", n_bootstrap=5)
    assert np.isnan(constant["test/pearson_r"])
    assert constant["test/r2"] <= 0
    table.loc[3, "predicted_age"] = np.nan
    with pytest.raises(ValueError, match=r"1 of 12 predictions of predicted_age are NaN"):
        AGE.scores(table)


def test_the_paired_test_of_one_fold_is_that_of_scipy():
    table = predictions_of(40, 1)
    other = table.assign(predicted_age=table["predicted_age"] + np.random.default_rng(3).normal(0, 4, 40))
    found = paired_error_test(table, other, "predicted_age")
    errors = [(t["predicted_age"] - t["target"]).abs() for t in (table, other)]
    expected = stats.ttest_rel(*errors)
    assert found.difference == pytest.approx((errors[0] - errors[1]).mean())
    assert found.p == pytest.approx(expected.pvalue)
    limits = expected.confidence_interval()
    assert (found.ci_low, found.ci_high) == pytest.approx((limits.low, limits.high))


def test_chance_is_that_of_the_mean():
    targets = np.array([1.0, 2, 3, 10])
    levels = AGE.chance_levels(targets)
    assert levels["mae"] == pytest.approx(mean_absolute_error(targets, np.full(4, 4.0)))
    assert levels["rmse_pooled"] == pytest.approx(root_mean_squared_error(targets, np.full(4, 4.0)))
    assert AGE.chance_levels()["r2"] == 0


# -- tables of participants ----------------------------------------------------------------------
def read(values):
    return AGE.read_targets(pd.Series(values, dtype=object), LabelRule("age"), "participants.tsv")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("63,5", "age is '63,5', with a comma; write 63.5 with a decimal point"),
        ("89+", "age is '89+', a range of numbers; one number is needed"),
        ("20-29", "age is '20-29', a range of numbers; one number is needed"),
        ("45 y", "age is '45 y', a number with a unit; write the number only"),
        ("068Y", "age is '068Y', a number with a unit; write the number only"),
        ("1,234.5 ml", "age is '1,234.5 ml', a number with a unit; write the number only"),
        ("old", "age is 'old', no number"),
        ("inf", "age is 'inf', no number"),
        ("1e999", "age is '1e999', no number"),
    ],
)
def test_cells_that_are_no_numbers_are_named_in_one_line(text, reason):
    found = read(["40.5", text])
    assert found.reasons.tolist() == ["", reason]
    assert found.values[0] == 40.5
    assert np.isnan(found.values[1])


def test_numbers_are_read_as_they_are_written():
    found = read(["40", "-1.5", "1e3", ".5", "007"])
    assert found.values.tolist() == [40, -1.5, 1000, 0.5, 7]
    assert found.names == ["age"]
    assert (found.reasons == "").all()


def cohort_of(targets) -> pd.DataFrame:
    ids = [f"sub-{i:03d}" for i in range(len(targets))]
    return pd.DataFrame({"participant_id": ids, "target": np.asarray(targets, float)})


def test_targets_that_cannot_be_learned_are_refused():
    with pytest.raises(DataError, match=r"x\.tsv: age is 50 for all participants; there is nothing to learn"):
        AGE.check_cohort(cohort_of([50.0] * 20), ["age"], "age", "x.tsv")
    few = cohort_of(np.arange(30) % 4)
    with pytest.raises(DataError, match=r"age has 4 different values only; .*task\.min_distinct=4"):
        AGE.check_cohort(few, ["age"], "age", "x.tsv")
    Regression(("age",), min_distinct=4).check_cohort(few, ["age"], "age", "x.tsv")


def test_outliers_are_reported_and_kept(monkeypatch):
    lines = []
    monkeypatch.setattr("xai_brain.task.regression.log_once", lines.append)
    AGE.check_cohort(cohort_of([*range(40, 70), 430]), ["age"], "age", "x.tsv")
    assert len(lines) == 1
    assert "age of sub-030 430: more than 5 robust standard deviations" in lines[0]


# -- settings and folds --------------------------------------------------------------------------
def test_a_regression_is_stored_and_read_again():
    task = Regression(("age",), loss_function="huber")
    assert build_task(task.settings(), ["age"]) == task
    assert task_of_table(AGE.settings(), ["participant_id", "predicted_age"]) == AGE
    with pytest.raises(
        ValueError, match=r"task\.loss_function=mae: one of mse, l1, huber, soft_bins is needed"
    ):
        build_task({**task.settings(), "loss_function": "mae"})
    with pytest.raises(ConfigError, match=r"explain\.target=male: one of predicted, age is needed"):
        AGE.read_target("male")


def test_folds_are_stratified_by_quantiles_of_the_target():
    table = cohort_of(np.random.default_rng(0).gamma(2, 10, 100))
    folds = make_folds(table, 5, task=AGE)
    counts = pd.crosstab(AGE.strata(table["target"]), folds["fold"])
    assert counts.shape == (5, 5)
    assert (counts == 4).all(axis=None)
    means = table["target"].groupby(folds["fold"]).mean()
    assert means.max() - means.min() < 0.25 * table["target"].std()


@pytest.mark.parametrize(("name", "expected"), [("mse", 0.625), ("l1", 0.75), ("huber", 0.3125)])
def test_losses_have_known_values(name, expected):
    outputs, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([2.0, 1.5], dtype=torch.float64)
    found = Regression(("age",), loss_function=name).loss(outputs, targets)
    assert found.item() == pytest.approx(expected)


def test_soft_labels_are_distributions_around_the_target():
    targets = torch.tensor([-2.5, -0.37, 0.0, 1.2, 3.5], dtype=torch.float64)
    labels, centres = soft_labels(targets, 40), bin_centres(40).double()
    torch.testing.assert_close(labels.sum(1), torch.ones(5, dtype=torch.float64))
    means = labels @ centres
    torch.testing.assert_close(means[:4], targets[:4], atol=1e-5, rtol=0)  # the last one is cut at the limit
    width = centres[1] - centres[0]
    spread = (labels * (centres - means[:, None]) ** 2).sum(1).sqrt()[1:4] / width
    torch.testing.assert_close(spread, torch.full_like(spread, (1 + 1 / 12) ** 0.5), atol=1e-3, rtol=0)


def test_the_loss_of_soft_bins_is_the_divergence_from_the_soft_labels():
    targets = torch.tensor([0.4, -1.0])
    labels = soft_labels(targets, 8)
    task = Regression(("age",), loss_function="soft_bins", n_bins=8)
    assert task.loss(labels.log(), targets).item() == pytest.approx(0, abs=1e-6)
    entropy = -(labels * labels.log()).sum(1)
    uniform = task.loss(torch.zeros(2, 8), targets)  # KL(q | 1/8) = log 8 - H(q)
    assert uniform.item() == pytest.approx(np.log(8) - entropy.mean().item(), abs=1e-6)
    with pytest.raises(
        ConfigError, match=r"a target is 4\.0 standard deviations from the mean.*mse, l1 or huber"
    ):
        task.loss(torch.zeros(2, 8), torch.tensor([0.0, -4.0]))


def test_a_network_with_soft_bins_predicts_the_expected_value_in_the_unit_of_the_target():
    task = Regression(("age",), loss_function="soft_bins", n_bins=8)
    network = {"_target_": "xai_brain.models.networks.shallow.ShallowNet", "channels": 2}
    model = BrainClassifier(network, ["age"], [8, 12, 10], task=task.settings()).eval()
    model.target_mean.fill_(50)
    model.target_sd.fill_(10)
    assert model.network.linear.out_features == 8
    torch.nn.init.zeros_(model.network.linear.weight)
    wanted = soft_labels(torch.tensor([1.5]), 8)
    model.network.linear.bias.data = wanted[0].log()
    found = model(torch.zeros(3, 1, 8, 12, 10))
    assert found.shape == (3, 1)
    expected = 50 + 10 * (wanted[0] @ bin_centres(8)).item()
    assert found[0].item() == pytest.approx(expected, abs=1e-4)
    assert expected == pytest.approx(65, abs=0.2)


def test_the_loss_compares_standardised_targets():
    network = {"_target_": "xai_brain.models.networks.shallow.ShallowNet", "channels": 2}
    model = BrainClassifier(network, ["age"], [8, 12, 10], task=AGE.settings())
    model.target_mean.fill_(50)
    model.target_sd.fill_(10)
    raw, targets = torch.tensor([[1.0], [-1.0]]), torch.tensor([50.0, 70.0])
    assert model.in_units(raw).tolist() == [[60], [40]]
    assert model._loss(raw, targets).item() == pytest.approx((1 + 9) / 2)
    torch.nn.init.zeros_(model.network.linear.bias)
    assert model(torch.zeros(1, 1, 8, 12, 10)).item() == pytest.approx(50)  # of an output of zero

"""Calibration and bias of predictions of a continuous target."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xai_brain.statistics.continuous.correction import CORRECTIONS, CorrectionError, corrected_predictions
from xai_brain.statistics.continuous.metrics import regression_metrics


def biased_folds(n=6000, n_folds=3, n_validation=1000) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test and validation parts of networks that are drawn towards the mean, each in another way."""
    rng = np.random.default_rng(0)
    parts = []
    for fold in range(n_folds):
        for part, size in (("test", n // n_folds), ("validation", n_validation)):
            target = rng.normal(55, 15, size)
            value = 20 + 4 * fold + (0.5 + 0.1 * fold) * target + rng.normal(0, 6, size)
            ids = [f"sub-{fold}{part}{i}" for i in range(size)]
            about = {"participant_id": ids, "seed": 0, "fold": fold, "part": part}
            parts.append(pd.DataFrame({**about, "target": target, "predicted_age": value}))
    table = pd.concat(parts, ignore_index=True)
    return table[table["part"] == "test"], table[table["part"] == "validation"]


def test_corrected_residuals_of_held_out_folds_are_independent_of_the_target():
    test, validation = biased_folds()
    before = regression_metrics(test, "predicted_age", n_bootstrap=2)
    assert before["test/residual_r"] < -0.5
    table = corrected_predictions(test, validation, "predicted_age", "network_bias_corrected")
    for _, part in table.groupby("fold"):
        residual = part["predicted_age"] - part["target"]
        assert abs(stats.pearsonr(residual, part["target"]).statistic) < 0.05
    after = regression_metrics(table, "predicted_age", n_bootstrap=2)
    assert abs(after["test/residual_r"]) < 0.03
    assert abs(after["test/residual_r_pooled"]) < 0.03
    residual = table["predicted_age"] - table["target"]
    expected = stats.pearsonr(residual, table["target"]).statistic
    assert after["test/residual_r_pooled"] == pytest.approx(expected)
    assert after["test/mae"] > before["test/mae"] * 0.5  # errors are larger by the inverse of the slope


def test_calibrated_predictions_have_the_smallest_squared_error_of_all_lines():
    test, validation = biased_folds()
    table = corrected_predictions(test, validation, "predicted_age", "network_calibrated")
    for fold, part in table.groupby("fold"):
        given = test[test["fold"] == fold]
        best = np.polyval(np.polyfit(given["predicted_age"], given["target"], 1), given["predicted_age"])
        error = np.square(part["predicted_age"] - part["target"]).mean()
        assert error == pytest.approx(np.square(best - given["target"]).mean(), rel=0.02)


@pytest.mark.parametrize("name", CORRECTIONS)
def test_corrections_do_not_depend_on_the_targets_of_test_participants(name):
    test, validation = biased_folds(n=300, n_validation=40)
    found = corrected_predictions(test, validation, "predicted_age", name)
    shuffled = test.assign(target=test["target"].sample(frac=1, random_state=0).to_numpy())
    again = corrected_predictions(shuffled, validation, "predicted_age", name)
    np.testing.assert_array_equal(found["predicted_age"], again["predicted_age"])
    changed = validation.assign(target=validation["target"] + 1)
    other = corrected_predictions(test, changed, "predicted_age", name)
    assert not np.allclose(found["predicted_age"], other["predicted_age"])


def test_a_correction_that_is_fitted_on_test_participants_is_refused():
    test, validation = biased_folds(n=300, n_validation=40)
    with pytest.raises(CorrectionError, match="is in the validation part and in the test part"):
        corrected_predictions(test, test, "predicted_age", "network_bias_corrected")
    with pytest.raises(CorrectionError, match="fold 2: there are no predictions of the validation part"):
        corrected_predictions(
            test, validation[validation["fold"] != 1], "predicted_age", "network_calibrated"
        )


def test_predictions_that_do_not_increase_with_the_target_are_not_corrected():
    test, validation = biased_folds(n=300, n_validation=40)
    falling = validation.assign(predicted_age=100 - validation["target"])
    assert corrected_predictions(test, falling, "predicted_age", "network_bias_corrected") is None
    constant = validation.assign(predicted_age=50.0)
    assert corrected_predictions(test, constant, "predicted_age", "network_calibrated") is None

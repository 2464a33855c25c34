"""Scores of the regional benchmark: residuals, thresholds, scores by hand, means over regions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from symmetric_grid import AFFINE, SHAPE

from xai_brain.metrics.regional.scores import RegionalTruth, dilated, mirrored, suprathreshold
from xai_brain.metrics.regional.summary import ALL_REGIONS, LEARNT_REGIONS, summarise
from xai_brain.statistics.continuous.residuals import residuals_of_others


# -- residuals ---------------------------------------------------------------------------------
def test_residuals_are_fitted_to_training_participants_only():
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(60, 1))
    measures = pd.DataFrame(shared + rng.normal(size=(60, 3)) + [5, 0, 100], columns=list("abc"))
    is_training = np.arange(60) < 45
    found = residuals_of_others(measures, is_training)
    for name in "abc":
        others = measures.drop(columns=name)[is_training].to_numpy()
        for other in others.T:
            assert np.corrcoef(found.loc[is_training, name], other)[0, 1] == pytest.approx(0, abs=1e-10)
    design = np.column_stack([np.ones(45), measures.loc[is_training, ["b", "c"]]])
    weights = np.linalg.lstsq(design, measures.loc[is_training, "a"], rcond=None)[0]
    expected = measures["a"] - np.column_stack([np.ones(60), measures[["b", "c"]]]) @ weights
    np.testing.assert_allclose(found["a"], expected, atol=1e-10)

    altered = measures.copy()
    altered.loc[50:] += rng.normal(size=(10, 3)) * 10
    again = residuals_of_others(altered, is_training)
    np.testing.assert_array_equal(again[:50], found[:50])  # the fit does not depend on tested participants


def test_residuals_of_dependent_measures_are_refused():
    measures = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "b"])
    measures["c"] = 2 * measures["a"] - measures["b"]
    with pytest.raises(ValueError, match="a: is a linear combination"):
        residuals_of_others(measures, np.ones(20, bool))
    with pytest.raises(ValueError, match="need 5"):
        residuals_of_others(measures, np.arange(20) < 4)
    with pytest.raises(ValueError, match="b: is the same for all"):
        residuals_of_others(measures.assign(b=1.0), np.ones(20, bool))


# -- scores ------------------------------------------------------------------------------------
def without_smoothing(monkeypatch):
    monkeypatch.setattr("xai_brain.metrics.regional.scores.ndimage.gaussian_filter", lambda x, *_, **__: x)


def test_the_threshold_is_the_99th_percentile_of_the_brain(monkeypatch):
    without_smoothing(monkeypatch)
    brain = np.zeros(SHAPE, bool)
    brain[:10, :10, :10] = True  # 1000 voxels
    values = np.zeros(SHAPE)
    values[brain] = -np.arange(1000)
    values[15, 15, 15] = 1e6  # outside the brain
    kept = suprathreshold(values, brain)
    assert kept[brain][989] == 0
    assert kept[brain][990:].tolist() == list(range(990, 1000))
    assert kept[~brain].max() == 0


def test_smoothing_has_a_width_of_two_voxels():
    point = np.zeros((25, 25, 25))
    point[12, 12, 12] = -1
    kept = suprathreshold(point, np.ones(point.shape, bool))
    assert kept[12, 12, 13] / kept[12, 12, 12] == pytest.approx(0.5, abs=0.01)  # half at 1 voxel


def test_scores_by_hand(monkeypatch):
    without_smoothing(monkeypatch)
    brain = np.ones(SHAPE, bool)
    regions = np.zeros(SHAPE, int)
    regions[2:4, 5:7, 5:7], regions[12:14, 15, 15] = 1, 2  # right of the midline, left of it
    truth = RegionalTruth(regions, 1, AFFINE)
    values = np.zeros(SHAPE)
    values[2, 5, 5] = -5.0  # in the region
    values[5, 6, 6] = 2.0  # two voxels away from it
    values[17, 5, 5] = 1.0  # in the mirrored region
    values[13, 15, 15] = 2.0  # in region 2, whose mean of 1 is above 5 / 8
    assert truth.scores(values, brain) == pytest.approx(
        {"rma": 0.5, "top_region": 0.0, "false_positive": 0.3, "rma_mirrored": 0.1}
    )
    values[13, 15, 15] = 1.0  # mean 0.5
    assert truth.scores(values, brain)["top_region"] == 1.0
    n = brain.sum()
    chance = truth.chance(brain)
    assert chance["rma"] == chance["rma_mirrored"] == 8 / n
    assert chance["top_region"] == 1 / 2
    assert chance["false_positive"] == 1 - dilated(truth.region).sum() / n
    empty = truth.scores(np.zeros(SHAPE), brain)
    assert (empty["rma"], empty["top_region"]) == (0, 0)
    assert np.isnan([empty["false_positive"], empty["rma_mirrored"]]).all()


def test_a_region_is_dilated_by_two_steps():
    region = np.zeros(SHAPE, bool)
    region[9, 9, 9] = True
    grown = np.argwhere(dilated(region)) - 9
    assert np.abs(grown).sum(1).max() == 2
    assert len(grown) == 25  # voxels at a city-block distance of at most 2


def test_a_region_is_mirrored_at_the_plane_x_0():
    region = np.zeros(SHAPE, bool)
    region[2:4, 5, 5] = True
    assert np.argwhere(mirrored(region, AFFINE)).tolist() == [[16, 5, 5], [17, 5, 5]]
    shifted = AFFINE.copy()
    shifted[0, 3] = 60.0  # most mirrored voxels lie outside the grid
    assert not mirrored(region, shifted).any()
    both = region | mirrored(region, AFFINE)
    assert RegionalTruth(both.astype(int), 1, AFFINE).mirror is None
    assert RegionalTruth(region.astype(int), 1, AFFINE).mirror is not None


def test_both_means_over_regions_are_reported():
    networks = pd.DataFrame(
        {"region": ["a", "b"], "mean": [0.6, 0.1], "ci_low": [0.4, -0.2], "ci_high": [0.8, 0.4], "n": 4}
    )
    scores = pd.DataFrame(
        [
            {"participant_id": i, "region": region, "method": "M", "metric": "rma", "value": v, "chance": 0.1}
            for region, values in (("a", [0.2, 0.4, 0.6, 0.8]), ("b", [0.0, 0.0, 0.2, 0.2]))
            for i, v in enumerate(values)
        ]
    )
    table = summarise(scores, networks, n_bootstrap=200).set_index(["region", "metric"])
    assert table.loc[("a", "pearson_r"), ["method", "mean", "chance"]].tolist() == ["network", 0.6, 0]
    assert table.loc[("a", "rma"), "mean"] == pytest.approx(0.5)
    assert table.loc[(ALL_REGIONS, "rma"), "mean"] == pytest.approx(0.3)
    assert table.loc[(LEARNT_REGIONS, "rma"), "mean"] == pytest.approx(0.5)
    row = table.loc[(ALL_REGIONS, "rma")]
    assert 0.1 <= row["ci_low"] < row["mean"] < row["ci_high"] <= 0.5
    assert (row["n"], row["chance"]) == (4, pytest.approx(0.1))

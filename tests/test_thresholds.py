"""Corrected thresholds: maximum statistics, permuted labels, and complete runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from xai_brain.config.evaluation import ThresholdConfig
from xai_brain.config.setting import ConfigError
from xai_brain.data.permuted_labels import n_exchangeable, permute_labels
from xai_brain.study.thresholds.statistic import (
    above_threshold,
    corrected_p,
    corrected_threshold,
    map_statistics,
    normalised,
)

BRAIN = np.ones((10, 10, 10), bool)


# -- statistics of one map -------------------------------------------------------------------------
def test_a_map_is_divided_by_its_root_mean_square_in_the_brain():
    values = np.random.default_rng(0).normal(size=(6, 7, 8))
    brain = np.zeros_like(values, bool)
    brain[1:5, 1:5, 1:5] = True
    sizes = normalised(values, brain)
    assert np.sqrt((sizes[brain] ** 2).mean()) == pytest.approx(1)
    assert not sizes[~brain].any()
    np.testing.assert_allclose(normalised(-1e-30 * values, brain), sizes)  # no scale, no sign, no underflow
    assert not normalised(np.zeros_like(values), brain).any()


def test_extent_and_mass_of_two_cubes():
    values = np.zeros((10, 10, 10))
    values[0:2, 0:2, 0:2] = 3  # 8 voxels
    values[5:8, 5:8, 5:8] = -2  # 27 voxels
    rms = np.sqrt((8 * 9 + 27 * 4) / 1000)
    found = map_statistics(values, BRAIN, voxel_mm3=2, cluster_forming=1)
    assert found["max"] == pytest.approx(3 / rms)
    assert found["extent"] == 27 * 2
    assert found["mass"] == pytest.approx(max(8 * (3 / rms - 1), 27 * (2 / rms - 1)) * 2)


def test_cubes_that_touch_at_a_corner_are_one_cluster():
    values = np.zeros((10, 10, 10))
    values[0:2, 0:2, 0:2] = values[2:4, 2:4, 2:4] = 1
    assert map_statistics(values, BRAIN, 1, cluster_forming=1)["extent"] == 16


@pytest.mark.parametrize(
    ("statistic", "threshold", "n"), [("max", 5, 8), ("extent", 20, 27), ("extent", 27, 0), ("mass", 0, 35)]
)
def test_what_exceeds_a_threshold(statistic, threshold, n):
    values = np.zeros((10, 10, 10))
    values[0:2, 0:2, 0:2], values[5:8, 5:8, 5:8] = 3, -2
    above = above_threshold(values, BRAIN, 1, 1, statistic, threshold)
    assert above.sum() == n
    if statistic == "extent" and n:
        assert above[5:8, 5:8, 5:8].all()


# -- thresholds ------------------------------------------------------------------------------------
def test_a_threshold_counts_networks_and_not_maps():
    """39 networks: the weight of the largest is 1/40, and as much lies at infinity, so that 0.05 remains."""
    networks = [np.full(20, float(k)) for k in range(39)]
    assert corrected_threshold(networks, 0.05) == 37
    assert corrected_threshold(networks, 1 / 40) == 38
    networks[38] = np.repeat([0.0, 38.0], 10)  # half of its maps
    assert corrected_threshold(networks, 0.05) == 37
    assert corrected_threshold(networks, 0.0375) == 37


def test_p_of_a_map_is_the_weight_of_networks_that_reach_it():
    networks = [np.array([0.0, 1.0]), np.array([2.0, 3.0]), np.array([1.0, 1.0])]
    assert corrected_p(5, networks) == 1 / 4
    assert corrected_p(1, networks) == 1 / 4 + (0.5 + 1 + 1) / 4
    assert corrected_p(0, networks) == 1


def test_too_few_networks_are_refused():
    with pytest.raises(ValueError, match="38 permuted networks cannot control"):
        corrected_threshold([np.zeros(1)] * 38, 0.025)
    with pytest.raises(ConfigError, match=r"n_perm=18: fewer than 19 permutations cannot control .*=0.05"):
        ThresholdConfig(n_perm=18)
    assert ThresholdConfig(n_perm=19).alpha == 0.05


@pytest.mark.parametrize("between", [0.0, 1.0, 3.0])
def test_the_error_is_controlled_when_maps_of_one_network_resemble_each_other(between):
    """A new network under the null; maps of one network share an effect of it."""
    random = np.random.default_rng(1)

    def statistics():
        return between * random.normal() + random.normal(size=20)

    errors = []
    for _ in range(800):
        threshold = corrected_threshold([statistics() for _ in range(39)], 0.05)
        errors.append((statistics() > threshold).mean())
    standard_error = np.std(errors) / np.sqrt(len(errors))
    assert np.mean(errors) < 0.05 + 2 * standard_error
    assert np.mean(errors) > 0.015  # not a threshold that nothing exceeds


# -- permuted labels -------------------------------------------------------------------------------
@pytest.fixture
def table():
    n = 120
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{i // 2}" for i in range(2 * n)],  # two images each
            "target": [i // 2 % 2 for i in range(2 * n)],
            "label": ["ab"[i // 2 % 2] for i in range(2 * n)],
            "site": ["xyz"[i // 80] for i in range(2 * n)],
            "age": np.repeat(np.linspace(20, 80, n), 2),
            "family": [f"family-{i // 2 // 2}" if i < 80 else f"alone-{i // 2}" for i in range(2 * n)],
        }
    )


def test_participants_are_permuted_as_a_whole(table):
    permuted = permute_labels(table, 3)
    assert permuted["target"].sum() == table["target"].sum()
    assert (permuted.groupby("participant_id")["target"].nunique() == 1).all()
    assert (permuted["label"] == permuted["target"].map({0: "a", 1: "b"})).all()
    assert 0.3 < (permuted["target"] == table["target"]).mean() < 0.7
    assert permute_labels(table, 3).equals(permuted)
    assert not permute_labels(table, 4).equals(permuted)


def test_numbers_are_permuted_with_their_labels(table):
    numbers = table.assign(target=table["age"], label=table["age"].map("{:.1f}".format))
    permuted = permute_labels(numbers, 2)
    assert sorted(permuted["target"]) == sorted(numbers["target"])
    assert (permuted["target"] != numbers["target"]).mean() > 0.9
    assert (permuted["label"] == permuted["target"].map("{:.1f}".format)).all()


def test_labels_stay_within_blocks(table):
    permuted = permute_labels(table, 1, ["site", "age"])
    quarter = pd.qcut(table["age"], 4, labels=False)
    for block in (table["site"], quarter):
        assert permuted.groupby(block)["target"].sum().equals(table.groupby(block)["target"].sum())


def test_families_exchange_labels_among_themselves(table):
    permuted = permute_labels(table, 1, family="family")
    together = table["family"].str.startswith("family")
    before, after = (each[together].groupby("family")["target"].sum() for each in (table, permuted))
    assert before.equals(after)
    assert not permuted["target"].equals(table["target"])


def test_how_many_labels_can_be_exchanged(table):
    assert n_exchangeable(table) == 120
    table["block"] = table["label"]  # every block has one label
    assert n_exchangeable(table, ["block"]) == 0

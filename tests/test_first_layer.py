"""First-layer study: entropy, tests and false discovery rate by hand, confounds, the layer that is read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ToyNet
from scipy import stats
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.first_block import feature_maps
from xai_brain.models.networks.kan2020 import Kan2020
from xai_brain.models.networks.sfcn import SFCN
from xai_brain.statistics.first_layer import channel_features, compare_channels, given_confounds, map_entropy
from xai_brain.statistics.group_design import make_design


def test_entropy_of_a_constant_a_halved_and_a_uniform_map():
    assert map_entropy(np.full((3, 4, 5), 7.5)) == 0
    assert map_entropy(np.repeat([0.0, 1.0], 60)) == pytest.approx(1)
    assert map_entropy(np.repeat(np.arange(256.0), 20)) == pytest.approx(8)
    assert map_entropy(np.repeat(np.arange(256.0), 20) * 1e-7 - 3) == pytest.approx(8)  # of any scale


def test_features_are_of_each_channel():
    maps = np.stack([np.zeros((2, 4, 8)), np.arange(64.0).reshape(2, 4, 8)])
    found = channel_features(maps)
    np.testing.assert_allclose(found["mean"], [0, 31.5])
    np.testing.assert_allclose(found["entropy"], [0, 6])


def two_classes(n=30, shifts=(0.0, 0.0, 1.5), seed=0):
    rng = np.random.default_rng(seed)
    second = np.arange(n) % 3 == 0  # 10 of 30: Welch's test is not Student's then
    return rng.normal(size=(n, len(shifts))) * (1 + second[:, None]) + np.outer(second, shifts), second


def test_t_and_p_are_those_of_welch_in_scipy_and_d_is_cohens():
    values, second = two_classes()
    found = compare_channels(1e-25 * values, second, n_perm=3).channels
    expected = stats.ttest_ind(values[second], values[~second], equal_var=False)
    np.testing.assert_allclose(found["t"], expected.statistic, rtol=1e-6)
    np.testing.assert_allclose(found["p"], expected.pvalue, rtol=1e-6)
    a, b = values[~second, 2], values[second, 2]
    pooled = np.sqrt((19 * a.var(ddof=1) + 9 * b.var(ddof=1)) / 28)
    assert found["d"][2] == pytest.approx((b.mean() - a.mean()) / pooled)
    assert found["q_adjusted"].isna().all()


def test_q_follows_benjamini_and_hochberg_by_hand(monkeypatch):
    from xai_brain.statistics import first_layer

    p = np.array([[0.01, 0.02, 0.03, 0.04, 0.05, 0.5]])
    monkeypatch.setattr(first_layer, "_welch", lambda values, second: (np.zeros_like(p), p))
    values = np.random.default_rng(0).normal(size=(8, 6))
    test = compare_channels(values, np.arange(8) < 4, n_perm=0)
    # 6 p / rank is 0.06, 0.06, 0.06, 0.06, 0.06, 0.5, and no q is above that of a larger p
    np.testing.assert_allclose(test.channels["q"], [0.06] * 5 + [0.5])
    assert test.n_different == 0
    p[0, :2] = 0.001, 0.012  # 0.006, 0.036, and the rest as before
    again = compare_channels(values, np.arange(8) < 4, n_perm=0)
    np.testing.assert_allclose(again.channels["q"], [0.006, 0.036, 0.06, 0.06, 0.06, 0.5])
    assert again.n_different == 2


def test_a_channel_that_never_fires_is_not_tested_and_does_not_count():
    values, second = two_classes(shifts=(0.0, 4.0, 0.0))
    values[:, 0] = 0
    test = compare_channels(values, second, n_perm=20)
    assert np.isnan(test.channels[["t", "p", "q"]].to_numpy()[0]).all()
    # the false discovery rate is over two channels, not three
    p = np.sort(test.channels["p"].dropna())
    assert test.channels["q"].min() == pytest.approx(min(2 * p[0], p[1]))
    assert test.n_different == 1
    dead = compare_channels(np.zeros((30, 4)), second, n_perm=5)
    assert dead.n_different == 0
    assert dead.p_of_count == 1


def test_permuted_labels_seldom_give_a_channel_and_a_difference_gives_a_small_p():
    values, second = two_classes(shifts=(4.0,) * 6 + (0.0,) * 2)
    test = compare_channels(values, second, n_perm=200)
    assert test.n_different >= 6
    assert test.p_of_count < 0.02
    assert test.null_counts.mean() < 0.05 * 8
    nothing, second = two_classes(shifts=(0.0,) * 8, seed=3)
    assert compare_channels(nothing, second, n_perm=100).p_of_count > 0.05


def people(second, **columns):
    ids = [f"sub-{i:02d}" for i in range(len(second))]
    return pd.DataFrame({"participant_id": ids, "label": np.where(second, "male", "female"), **columns})


def test_without_much_to_adjust_for_the_adjusted_t_is_that_of_student():
    values, second = two_classes()
    design = make_design(people(second), ("female", "male"))
    t, p = given_confounds(values, design)
    expected = stats.ttest_ind(values[second], values[~second])
    np.testing.assert_allclose(t, expected.statistic, rtol=1e-8)
    np.testing.assert_allclose(p, expected.pvalue, rtol=1e-8)


def test_what_brain_size_explains_is_no_difference_given_brain_size():
    rng = np.random.default_rng(1)
    second = np.arange(60) % 2 == 0
    size = 1400 + 150 * second + rng.normal(0, 60, 60)
    values = np.stack([size + rng.normal(0, 20, 60), 2.0 * second + rng.normal(0, 1, 60), 3 * size], axis=1)
    design = make_design(people(second, icv_ml=size), ("female", "male"), ["icv_ml"])
    found = compare_channels(values, second, design, n_perm=3).channels
    assert (found["q"] < 0.001).all()
    assert found["q_adjusted"][0] > 0.05
    assert found["q_adjusted"][1] < 0.05
    assert found["t_adjusted"][2] == 0  # nothing is left of it


def test_the_layer_is_the_activation_of_the_first_block_and_the_model_stays_as_it_was():
    torch.manual_seed(0)
    volumes = torch.randn(2, 1, 24, 26, 28)
    net = ToyNet(inplace=True)
    found, layer = feature_maps(net, volumes)
    assert layer == "relu1"
    assert net.training
    assert net.relu1.inplace
    assert not net.relu1._forward_hooks
    net.eval()
    with torch.no_grad():
        expected = net.norm(net.conv1(volumes)).relu()
    torch.testing.assert_close(found, expected)

    kan = Kan2020((24, 26, 28), channels=(3, 4, 5)).eval()
    found, layer = feature_maps(kan, volumes)
    assert layer == "block1.relu"
    with torch.no_grad():
        torch.testing.assert_close(found, kan.block1(volumes).contiguous())
    assert feature_maps(SFCN((24, 26, 28), channels=(3, 4, 5)), volumes)[1] == "features.3"


def test_without_an_activation_before_the_next_convolution_it_is_the_convolution():
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Conv3d(2, 3, 3), nn.ReLU())
    found, layer = feature_maps(net, torch.randn(1, 1, 8, 9, 10))
    assert layer == "0"
    assert found.shape == (1, 2, 6, 7, 8)
    with pytest.raises(AttributionError, match=r"no torch\.nn\.Conv3d"):
        feature_maps(nn.Flatten(), torch.randn(1, 1, 4, 5, 6))

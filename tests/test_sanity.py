"""How alike maps are, and whether they depend on the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, Saliency
from conftest import SHAPE
from torch import nn
from toy_methods import BRAIN, TARGETS, Linear, OfWeights

from xai_brain.metrics.comparison.similarity import scaled, similarity, ssim_map, ssim_of_chance
from xai_brain.metrics.maps import MapError, maps_of
from xai_brain.metrics.sanity import full_randomization, parameter_randomization, randomized_models


def test_similarity_of_known_maps():
    rng = np.random.default_rng(0)
    a = rng.normal(size=SHAPE)
    assert similarity(a, -3 * a, BRAIN) == pytest.approx({"spearman": 1, "ssim": 1})
    unrelated = similarity(a, rng.normal(size=SHAPE), BRAIN)
    assert unrelated["spearman"] == pytest.approx(0, abs=0.08)
    assert unrelated["ssim"] == pytest.approx(ssim_of_chance(a, BRAIN), abs=0.03)
    assert np.isnan(list(similarity(0 * a, a, BRAIN).values())).all()
    assert similarity(a, 0 * a, BRAIN)["spearman"] == 0
    outside = np.where(BRAIN, a, 9)
    assert similarity(a, outside, BRAIN) == pytest.approx({"spearman": 1, "ssim": 1})


def test_ssim_of_flat_images_and_of_a_negative_by_hand():
    flat = np.full(SHAPE, 0.5)
    # variances are 0: what remains is (2 x 0.5 x 0.25 + 0.0001) / (0.25 + 0.0625 + 0.0001)
    np.testing.assert_allclose(ssim_map(flat, flat / 2), 0.2501 / 0.3126)
    checkers = np.indices(SHAPE).sum(0) % 2
    # means are 1/2 nearly everywhere, the covariance is minus the variance
    middle = ssim_map(checkers.astype(float), 1.0 - checkers)[6, 7, 8]
    assert middle == pytest.approx((-0.5 + 0.0009) / (0.5 + 0.0009), abs=1e-3)


def test_maps_are_scaled_to_their_own_percentile():
    a = np.zeros(SHAPE)
    a[BRAIN] = np.arange(1400) - 1399.0
    assert scaled(a, BRAIN).max() == 1
    assert (scaled(a, BRAIN) == 1).sum() == 7  # the highest 0.5 % of 1400
    one = np.zeros(SHAPE)
    one[5, 5, 5] = -4
    assert scaled(one, BRAIN)[5, 5, 5] == 1


def test_layers_are_randomised_from_the_output_to_the_input(toy_net, inputs):
    toy_net.norm.running_mean.fill_(3)
    before = {name: value.clone() for name, value in toy_net.state_dict().items()}
    changed = []
    names = []
    for name, model in randomized_models(toy_net, inputs[:1], random_state=7):
        names.append(name)
        state = model.state_dict()
        changed.append({key for key in state if not torch.equal(state[key], before[key])})
    assert names == ["linear", "conv2", "conv1"]
    assert changed[0] == {"linear.weight", "linear.bias"}
    assert changed[1] == changed[0] | {"conv2.weight", "conv2.bias"}
    assert changed[2] == changed[1] | {"conv1.weight", "conv1.bias", "norm.running_mean"}
    assert all(torch.equal(value, before[name]) for name, value in toy_net.state_dict().items())
    # as when they were made: uniform within 1 / sqrt(fan in)
    assert model.conv1.weight.abs().max() <= 1 / np.sqrt(27)
    again = [m for _, m in randomized_models(toy_net, inputs[:1], random_state=7)][-1]
    assert torch.equal(again.conv2.weight, model.conv2.weight)


def test_parameters_of_a_layer_without_a_reset_keep_their_values_in_another_order(inputs):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.arange(1.0, SHAPE[2] + 1))
            self.attention = nn.MultiheadAttention(SHAPE[2], 2, batch_first=True)

        def forward(self, x):
            x = (x * self.scale).mean((1, 2))
            return self.attention(x, x, x)[0].mean(1)[:, :2]

    model = Own()
    steps = [(name, m.scale.tolist()) for name, m in randomized_models(model, inputs)]
    assert [name for name, _ in steps] == ["attention", ""]  # its projection goes with it
    assert steps[0][1] == model.scale.tolist() != steps[1][1]
    assert sorted(steps[1][1]) == model.scale.tolist()
    with pytest.raises(ValueError, match="no parameters"):
        list(randomized_models(nn.Identity(), inputs))


def test_a_map_that_ignores_the_weights_keeps_similarity_1(toy_net, inputs):
    table = parameter_randomization(
        toy_net, lambda model: OfWeights(lambda _, x, t: x.detach()), inputs, TARGETS, BRAIN
    )
    assert len(table) == 3 * 3
    np.testing.assert_allclose(table[["spearman", "ssim"]], 1)
    noise = OfWeights(lambda _, x, t: torch.randn_like(x))  # drawn anew in each call: the same every time
    table = parameter_randomization(toy_net, lambda model: noise, inputs, TARGETS, BRAIN)
    np.testing.assert_allclose(table["spearman"], 1)


def test_the_gradient_of_a_linear_model_loses_all_similarity(inputs):
    table = full_randomization(parameter_randomization(Linear(), Saliency, inputs, TARGETS, BRAIN))
    assert table["subject"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(table["spearman"], 0, atol=4 / np.sqrt(BRAIN.sum()))
    np.testing.assert_allclose(table["ssim"], table["ssim_chance"], atol=0.05)


def test_a_map_that_vanishes_with_the_weights_is_not_similar(inputs):
    def of_trained(model, x, t):  # the gradient, where the model is the trained one
        return Saliency(model).attribute(x, t) * (model.linear.bias.detach()[0] == 5)

    model = Linear()
    model.linear.bias.data[0] = 5
    table = parameter_randomization(model, lambda m: OfWeights(of_trained, m), inputs, TARGETS, BRAIN)
    assert table["spearman"].tolist() == [0, 0, 0]


def test_maps_do_not_depend_on_the_batches_and_leave_the_generator_alone(toy_net, inputs):
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    together = maps_of(InputXGradient(toy_net), inputs, TARGETS)
    one_by_one = maps_of(InputXGradient(toy_net), inputs, TARGETS, batch_size=1)
    torch.testing.assert_close(together, one_by_one)
    assert torch.equal(torch.rand(1), expected)
    broken = OfWeights(lambda _, x, t: torch.where(t.view(-1, 1, 1, 1, 1) > 0, torch.nan, 1.0).expand_as(x))
    with pytest.raises(MapError, match="OfWeights: 2 of 3 maps hold NaN or infinite values"):
        maps_of(broken, inputs, TARGETS)

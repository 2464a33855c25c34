"""DeepLIFT and layer-wise relevance: sums, literals, rules of functions and reused modules."""

from __future__ import annotations

import pytest
import torch
from conftest import ToyNet
from known_networks import reference_of
from torch import nn

from xai_brain.attribution import LRP, ClassScore, DeepLift, GuidedBackprop, InputXGradient
from xai_brain.attribution.methods.lrp import folded
from xai_brain.attribution.model_state import AttributionError


class ReusedRelu(ToyNet):
    def forward(self, x):
        x = self.pool(self.relu1(self.norm(self.conv1(x))))
        return self.linear(self.relu1(self.conv2(x)).mean((2, 3, 4)))


class FunctionalRelu(ToyNet):
    def forward(self, x):
        x = self.pool(self.relu1(self.norm(self.conv1(x))))
        return self.linear(torch.relu(self.conv2(x)).mean((2, 3, 4)))


class FunctionalPool(ToyNet):
    def forward(self, x):
        x = nn.functional.max_pool3d(self.relu1(self.norm(self.conv1(x))), 2)
        return self.linear(self.relu2(self.conv2(x)).mean((2, 3, 4)))


def like(kind, toy_net):
    model = kind().eval()
    model.load_state_dict(toy_net.state_dict())
    return model


@pytest.mark.parametrize("kind", [ReusedRelu, FunctionalRelu, FunctionalPool])
@pytest.mark.parametrize("make", [GuidedBackprop, DeepLift, LRP])
def test_rules_reach_functions_and_reused_modules(make, kind, toy_net, inputs):
    maps = make(like(kind, toy_net)).attribute(inputs, 1)
    torch.testing.assert_close(maps, make(toy_net).attribute(inputs, 1))


@pytest.mark.parametrize("make", [LRP, DeepLift])
def test_probabilities_are_refused_by_methods_that_decompose_logits(make):
    with pytest.raises(AttributionError, match=r"explain\.output to logit or logit_difference"):
        make(ClassScore(ToyNet(), "probability"))


# -- DeepLIFT -----------------------------------------------------------------------------------------


def test_deep_lift_sums_to_the_difference(toy_net, inputs, training):
    reference = reference_of(training)
    for baseline, start in (
        ("training_mean", reference.class_means.mean(0, keepdim=True)),
        ("zero", torch.zeros_like(inputs[:1])),
    ):
        sums = DeepLift(toy_net, reference, baseline).attribute(inputs, 1).sum((1, 2, 3, 4))
        torch.testing.assert_close(sums, (toy_net(inputs) - toy_net(start))[:, 1], rtol=1e-3, atol=1e-5)


def test_deep_lift_literals():
    conv = nn.Conv3d(1, 1, 1)
    conv.weight.data.fill_(1)
    conv.bias.data.fill_(-1)
    linear = nn.Linear(6, 1, bias=False)
    linear.weight.data.fill_(2)
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear)
    x = torch.tensor([3.0, 0.5, 1.0, 2.0, -4.0, 11.0]).view(1, 1, 1, 2, 3)
    # from 0 each voxel's share is 2 relu(x - 1): no gradient is lost where the ReLU is closed at one end
    expected = torch.tensor([4.0, 0.0, 0.0, 2.0, 0.0, 20.0]).view_as(x)
    torch.testing.assert_close(DeepLift(model).attribute(x, 0), expected)


# -- relevance ----------------------------------------------------------------------------------------


class BiasFree(nn.Module):
    def __init__(self, pool, with_norm):
        super().__init__()
        torch.manual_seed(1)
        self.conv1 = nn.Conv3d(1, 4, 3, bias=False)
        self.norm = nn.BatchNorm3d(4) if with_norm else nn.Identity()
        if with_norm:  # no shift: mean 0 and bias 0, but scales of its own
            self.norm.running_var.copy_(torch.tensor([0.2, 0.5, 1.0, 3.0]))
            self.norm.weight.data.copy_(torch.tensor([1.0, -0.7, 0.4, 2.0]))
        self.pool, self.relu1 = pool, nn.ReLU()
        self.conv2 = nn.Conv3d(4, 5, 3, bias=False)
        self.relu2 = nn.ReLU()
        self.linear = nn.Linear(5, 2, bias=False)

    def forward(self, x):
        x = self.relu1(self.pool(self.norm(self.conv1(x))))
        return self.linear(self.relu2(self.conv2(x)).mean((2, 3, 4)))


@pytest.mark.parametrize("gamma", [0.0, 0.25, 2.0])
@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize("pool", [nn.MaxPool3d(2), nn.AvgPool3d(2)])
def test_relevance_is_conserved_without_biases(pool, with_norm, gamma, inputs):
    model = BiasFree(pool, with_norm).eval()
    for output in ("logit", "logit_difference"):
        scored = ClassScore(model, output)
        sums = LRP(scored, gamma=gamma).attribute(inputs, 1).sum((1, 2, 3, 4))
        torch.testing.assert_close(sums, scored(inputs)[:, 1].detach(), rtol=0.01, atol=0)


def test_relevance_without_rules_is_input_times_gradient(inputs):
    model = BiasFree(nn.MaxPool3d(2), True).eval()
    maps = LRP(model, gamma=0, epsilon=0).attribute(inputs, 0)
    expected = InputXGradient(model).attribute(inputs, 0)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    other = LRP(model).attribute(inputs, 0)
    assert not torch.allclose(other, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("voxels", "relevances"),
    [
        ([1.0, 1.0], [4 / 3, -1 / 3]),  # sum 1; with gamma 1 positive contributions count twice: 4 - 1
        ([1.0, -1.0], [2.0, 1.0]),  # both speak for it: the sum is 3, and nothing is preferred
        ([-1.0, 1.0], [-2.0, -1.0]),  # negative sum: negative contributions are preferred, both are
        ([-1.0, -1.0], [-4 / 3, 1 / 3]),
    ],
)
def test_gamma_rule_literals(voxels, relevances):
    conv = nn.Conv3d(1, 1, (1, 1, 2), bias=False)
    conv.weight.data = torch.tensor([2.0, -1.0]).view(1, 1, 1, 1, 2)
    x = torch.tensor(voxels).view(1, 1, 1, 1, 2)
    maps = LRP(nn.Sequential(conv, nn.Flatten()), gamma=1.0, epsilon=0.0).attribute(x, 0)
    torch.testing.assert_close(maps.ravel(), torch.tensor(relevances))


def test_batch_norm_is_folded_where_that_changes_nothing(toy_net, inputs):
    toy_net.norm.running_mean.copy_(torch.tensor([0.3, -0.2, 0.1, 0.5]))
    toy_net.norm.running_var.copy_(torch.tensor([0.3, 2.0, 0.7, 1.5]))
    inside = folded(toy_net, inputs[:1])
    assert isinstance(inside.norm, nn.Identity)
    assert isinstance(toy_net.norm, nn.BatchNorm3d)
    torch.testing.assert_close(inside(inputs), toy_net(inputs), rtol=1e-4, atol=1e-6)

    class Twice(ToyNet):  # the convolution's output is used beside the batch norm
        def forward(self, x):
            x = self.conv1(x)
            x = self.pool(self.relu1(self.norm(x) + x))
            return self.linear(self.relu2(self.conv2(x)).mean((2, 3, 4)))

    twice = like(Twice, toy_net)
    twice.norm.running_mean.fill_(1.0)
    assert isinstance(folded(twice, inputs[:1]).norm, nn.BatchNorm3d)


def test_a_network_that_has_learned_nothing_yet_has_a_map_of_zeros_and_is_not_refused():
    """Weights of 0: the output is a small bias, of which the stabiliser of the rules absorbs a part."""
    from xai_brain.models.networks.shallow import ShallowNet

    torch.manual_seed(0)
    network = ShallowNet((46, 55, 46)).eval()
    with torch.no_grad():
        network.linear.bias.copy_(torch.tensor([5e-4, 6e-3]))
    assert not LRP(network).attribute(torch.randn(1, 1, 46, 55, 46), 0).any()

"""Grad-CAM and guided backpropagation: literals, layers, and agreement with Captum."""

from __future__ import annotations

import captum.attr
import pytest
import torch
from torch import nn

from xai_brain.attribution import ClassScore, GradCAM, GuidedBackprop
from xai_brain.attribution.methods.grad_cam import find_layer
from xai_brain.attribution.model_state import AttributionError

# -- Grad-CAM ---------------------------------------------------------------------------------------


class HandSet(nn.Module):
    """Two channels, x and -x after ReLU; logits are weighted means of them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1, 1)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(2, 2, bias=False)
        self.linear.weight.data = torch.tensor([[3.0, 0.0], [2.0, -4.0]])

    def forward(self, x):
        return self.linear(self.relu(self.conv(x)).mean((2, 3, 4)))


def test_grad_cam_literals():
    x = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, 6.0]).view(1, 1, 1, 2, 3)
    # gradient of a mean over 6 voxels is w / 6 everywhere: map = 2/6 relu(x) - 4/6 relu(-x)
    expected = torch.tensor([2.0, -8.0, 6.0, -16.0, 10.0, 12.0]).view(1, 1, 1, 2, 3) / 6
    torch.testing.assert_close(GradCAM(HandSet()).attribute(x, target=1), expected)
    torch.testing.assert_close(GradCAM(HandSet()).attribute(x, target=0), x.clamp(min=0) / 2)


def test_grad_cam_pools_over_all_three_axes():
    # the gradient varies along the last axis only; pooled over two axes the map would differ
    class Varying(HandSet):
        def forward(self, x):
            ramp = torch.arange(x.shape[-1], dtype=x.dtype)
            return self.linear((self.relu(self.conv(x)) * ramp).mean((2, 3, 4)))

    x = torch.rand(1, 1, 2, 3, 4) + 0.1
    torch.testing.assert_close(GradCAM(Varying()).attribute(x, target=0), 3 * 1.5 / 24 * x)


def test_grad_cam_layer_is_found_and_can_be_named(toy_net, inputs):
    assert find_layer(toy_net, inputs) is toy_net.relu2
    assert find_layer(ClassScore(toy_net), inputs, "conv1") is toy_net.conv1
    with pytest.raises(AttributionError, match="no layer 'conv9'"):
        GradCAM(toy_net, "conv9").attribute(inputs, target=0)
    with pytest.raises(AttributionError, match="no layer to work on"):
        GradCAM(nn.Sequential(nn.Flatten(), nn.Linear(12 * 14 * 16, 2))).attribute(inputs, target=0)


def test_grad_cam_layer_of_the_papers_network():
    from xai_brain.models.networks.kan2020 import Kan2020

    model = Kan2020(channels=(2, 3, 4)).eval()
    volumes = torch.zeros(1, 1, 58, 70, 58)
    layer = find_layer(model, volumes)
    assert layer is model.block3.relu
    shapes = []
    layer.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    model(volumes)
    assert shapes == [(1, 4, 11, 14, 11)]


# -- guided backpropagation --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_guided_backprop_is_captums(toy_net, inputs):
    expected = captum.attr.GuidedBackprop(toy_net).attribute(inputs.clone().requires_grad_(), target=1)
    torch.testing.assert_close(GuidedBackprop(toy_net).attribute(inputs, target=1), expected)


def test_guided_backprop_differs_from_the_gradient(toy_net, inputs):
    gradient = captum.attr.Saliency(toy_net).attribute(inputs.clone().requires_grad_(), target=1, abs=False)
    assert not torch.allclose(GuidedBackprop(toy_net).attribute(inputs, target=1), gradient)


def test_guided_backprop_without_a_relu_is_refused(inputs):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12 * 14 * 16, 2))
    with pytest.raises(AttributionError, match="applies no ReLU: guided backpropagation would be"):
        GuidedBackprop(linear).attribute(inputs, target=0)

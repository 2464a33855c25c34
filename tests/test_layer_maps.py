"""Grad-CAM++, LayerCAM, HiResCAM and Score-CAM: published formulas, other packages and known answers."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import SHAPE, boxed_reference
from torch import nn

from xai_brain.attribution import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, ScoreCAM
from xai_brain.attribution.model_state import AttributionError


def features_and_gradient(net, layer, inputs, target):
    kept = []
    handle = getattr(net, layer).register_forward_hook(lambda module, args, output: kept.append(output))
    score = net(inputs)[:, target].sum()
    handle.remove()
    return kept[0].detach(), torch.autograd.grad(score, kept[0])[0]


def resized(coarse):
    return nn.functional.interpolate(coarse[:, None], SHAPE, mode="trilinear", align_corners=False)


def plain_grad_cam_plus_plus(features, gradient):
    """Equations 10, 5 and 1 of the paper, in loops over volumes and channels, in double precision."""
    maps = torch.zeros(len(features), *features.shape[2:], dtype=torch.float64)
    for map_, channels, gradients in zip(maps, features.double(), gradient.double(), strict=True):
        for a, g in zip(channels, gradients, strict=True):
            below = 2 * g**2 + a.sum() * g**3
            alpha = torch.where(below != 0, g**2 / below, 0)
            map_ += (alpha * g.clamp_min(0)).sum() * a
    return maps.float()


FORMULAS = {
    GradCAMPlusPlus: plain_grad_cam_plus_plus,
    LayerCAM: lambda features, gradient: (features * gradient.clamp_min(0)).sum(1),
    HiResCAM: lambda features, gradient: (features * gradient).sum(1),
}


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
@pytest.mark.parametrize("make", FORMULAS)
def test_the_published_formula(make, layer, toy_net, inputs):
    features, gradient = features_and_gradient(toy_net, layer, inputs, 1)
    expected = resized(FORMULAS[make](features, gradient))
    maps = make(toy_net, layer).attribute(inputs, 1)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_hires_cam_is_grad_cam_where_a_mean_and_a_linear_layer_follow(toy_net, inputs):
    maps, grad_cam = (make(toy_net).attribute(inputs, 1) for make in (HiResCAM, GradCAM))
    scale = float(grad_cam.abs().max())
    torch.testing.assert_close(maps, grad_cam, rtol=0, atol=1e-5 * scale)
    features, _ = features_and_gradient(toy_net, "relu2", inputs, 1)
    n_voxels = features[0, 0].numel()
    cam = torch.einsum("k,nk...->n...", toy_net.linear.weight[1].detach(), features) / n_voxels
    torch.testing.assert_close(maps, resized(cam), rtol=0, atol=1e-5 * scale)
    early, early_grad_cam = (make(toy_net, "relu1").attribute(inputs, 1) for make in (HiResCAM, GradCAM))
    assert not torch.allclose(early, early_grad_cam, rtol=0, atol=0.1 * float(early.abs().max()))


class OnTheGrid(nn.Module):
    """Features on the grid of the inputs, x and -x after ReLU, and a linear layer on all of their voxels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1, 1)
        self.relu, self.linear = nn.ReLU(), nn.Linear(12, 2)

    def forward(self, x):
        return self.linear(self.relu(self.conv(x)).flatten(1))


def test_hires_cam_sums_to_the_output_without_the_bias_where_a_linear_layer_follows():
    torch.manual_seed(3)
    net, x = OnTheGrid().eval(), torch.randn(2, 1, 1, 2, 3)
    change = (net(x) - net.linear.bias)[:, 0].detach()
    torch.testing.assert_close(HiResCAM(net).attribute(x, 0).sum((1, 2, 3, 4)), change)
    grad_cam = GradCAM(net).attribute(x, 0).sum((1, 2, 3, 4))
    assert not torch.allclose(grad_cam, change, rtol=0.05)


def test_literals():
    net = OnTheGrid().eval()
    x = torch.tensor([1.0, 2.0, 0.0, -1.0, 3.0, 0.0]).view(1, 1, 1, 2, 3)
    weights = torch.tensor([1.0, -2.0, 5.0, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0, -4.0, 1.0, 1.0])
    net.linear.weight.data[0] = weights  # six voxels of relu(x), then six of relu(-x)
    expected = torch.tensor([1.0, -4.0, 0.0, -4.0, 1.5, 0.0]).view_as(x)
    torch.testing.assert_close(HiResCAM(net).attribute(x, 0), expected)
    torch.testing.assert_close(LayerCAM(net).attribute(x, 0), expected.clamp_min(0))
    # relu(x) sums to 6: positive gradients 1, 5, 1, 0.5 count g / (2 + 6 g)
    first = 1 / 8 + 5 / 32 + 1 / 8 + 0.5 / 5
    # relu(-x) sums to 1: five gradients of 1
    second = 5 * 1 / 3
    expected = first * x.clamp_min(0) + second * (-x).clamp_min(0)
    torch.testing.assert_close(GradCAMPlusPlus(net).attribute(x, 0), expected)


@pytest.mark.filterwarnings("ignore")
def test_grad_cam_plus_plus_is_monais_where_the_gradient_is_the_same_at_all_voxels(toy_net, inputs):
    """MONAI sums A g^3 instead of A before it multiplies by g^3, and multiplies by exp(score)."""
    from monai.visualize import GradCAMpp

    toy_net.linear.weight.data *= 300  # the denominators of MONAI contain 1e-7
    net, volumes = copy.deepcopy(toy_net).double(), inputs.double()
    monai = GradCAMpp(
        nn_module=net, target_layers="relu2", postprocessing=lambda x: x, upsampler=lambda size: lambda x: x
    )
    coarse = torch.cat([monai(volumes[i : i + 1], class_idx=1) for i in range(3)]).detach()
    coarse /= net(volumes)[:, 1].exp().view(-1, 1, 1, 1, 1)
    expected = resized(coarse[:, 0].float())
    maps = GradCAMPlusPlus(toy_net, "relu2").attribute(inputs, 1)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


def test_grad_cam_plus_plus_is_finite_for_scores_whose_exponential_is_not(toy_net, inputs):
    toy_net.linear.bias.data += 1000
    maps = GradCAMPlusPlus(toy_net).attribute(inputs, 1)
    toy_net.linear.bias.data -= 1000
    expected = GradCAMPlusPlus(toy_net).attribute(inputs, 1)
    assert expected.abs().max() > 0
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


def test_grad_cam_plus_plus_refuses_a_layer_with_negative_sums(toy_net, inputs):
    with pytest.raises(AttributionError, match=r"channels with a negative sum, .* choose a ReLU as layer="):
        GradCAMPlusPlus(toy_net, "conv2").attribute(inputs, 1)
    assert LayerCAM(toy_net, "conv2").attribute(inputs, 1).any()


# -- Score-CAM ------------------------------------------------------------------------------------------


def plain_score_cam(net, layer, volume, fill, target):
    features, _ = features_and_gradient(net, layer, volume[None], target)
    scores, kept = [], []
    for channel in features[0]:
        if channel.max() == channel.min():
            continue
        mask = resized(channel[None])[0]
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        scores.append(net(mask * volume[None] + (1 - mask) * fill)[0, target].item())
        kept.append(channel)
    weights = torch.tensor(scores).softmax(0)
    return resized(torch.einsum("k,kxyz->xyz", weights, torch.stack(kept))[None])[0]


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
def test_score_cam_is_the_loop_of_the_paper(layer, toy_net, inputs):
    toy_net.linear.weight.data *= 20  # weights that differ
    reference = boxed_reference()
    # of class 0 the mean of class 1
    for given, fill in ((None, torch.zeros_like(inputs[0])), (reference, reference.class_means[1])):
        expected = torch.stack([plain_score_cam(toy_net, layer, volume, fill, 0) for volume in inputs])
        maps = ScoreCAM(toy_net, given, layer, chunk_size=3).attribute(inputs, 0)
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_channels_without_variation_have_no_weight(toy_net, inputs):
    toy_net.conv2.weight.data[:2] = 0
    toy_net.conv2.bias.data[:2] = torch.tensor([3.0, -1.0])  # after ReLU 3 and 0 everywhere
    expected = plain_score_cam(toy_net, "relu2", inputs[0], torch.zeros_like(inputs[0]), 1)
    maps = ScoreCAM(toy_net).attribute(inputs[:1], 1)
    torch.testing.assert_close(maps[0], expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    toy_net.conv2.weight.data[:] = 0
    assert not ScoreCAM(toy_net).attribute(inputs[:1], 1).any()


# -- several channels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [GradCAMPlusPlus, HiResCAM, LayerCAM, ScoreCAM])
def test_all_channels_of_the_input_have_the_map_of_the_layer(make):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    maps = make(net).attribute(torch.randn(2, 2, *SHAPE), 1)
    assert maps.shape == (2, 2, *SHAPE)
    assert maps.abs().sum() > 0
    assert torch.equal(maps[:, 0], maps[:, 1])

"""Gradient methods, Shapley values by gradients and Grad-CAM: known answers, seeds and memory."""

from __future__ import annotations

from dataclasses import replace

import captum.attr
import pytest
import torch
from conftest import SHAPE
from known_networks import WEIGHTS, Linear, reference_of
from torch import nn

from xai_brain.attribution import (
    LRP,
    RISE,
    DeepLift,
    ExpectedGradients,
    GradCAM,
    GradientShap,
    GuidedBackprop,
    GuidedGradCAM,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Occlusion,
    Saliency,
    ScoreCAM,
    SmoothGrad,
)
from xai_brain.attribution.model_state import AttributionError
from xai_brain.models.module import BrainClassifier


def gradient_of(model, inputs, target):
    leaf = inputs.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, target].sum(), leaf)[0]


# -- gradients ----------------------------------------------------------------------------------------


def test_gradient_methods_are_autograds(toy_net, inputs):
    gradient = gradient_of(toy_net, inputs, 1)
    torch.testing.assert_close(Saliency(toy_net).attribute(inputs, 1), gradient)
    torch.testing.assert_close(InputXGradient(toy_net).attribute(inputs, 1), gradient * inputs)
    one = SmoothGrad(toy_net, n_samples=1, noise=0.0).attribute(inputs, 1)
    torch.testing.assert_close(one, gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize(
    "make",
    [
        *(Saliency, InputXGradient, SmoothGrad, IntegratedGradients, GradientShap, ExpectedGradients),
        *(GuidedBackprop, DeepLift, LRP),
    ],
)
def test_where_a_standardized_network_sees_nothing_there_is_nothing(make, inputs, training):
    torch.manual_seed(0)  # of the first layer: with few active units most gradients would be 0
    network = {"_target_": "xai_brain.models.networks.shallow.ShallowNet", "channels": 3}
    classifier = BrainClassifier(network, ["a", "b"], list(SHAPE), standardize="zscore").eval()
    torch.nn.init.normal_(classifier.network.linear.weight, generator=torch.Generator().manual_seed(1))
    classifier.mean_volume.normal_(generator=torch.Generator().manual_seed(2))
    classifier.inverse_sd[:, 3:] = 0
    of_training = (IntegratedGradients, GradientShap, ExpectedGradients, DeepLift)
    needs = {"reference": reference_of(training)} if make in of_training else {}
    attributions = make(classifier, **needs).attribute(inputs, target=1)
    assert attributions.shape == inputs.shape
    assert (attributions[:, :, 3:] == 0).all()
    assert (attributions[:, :, :2] != 0).float().mean() > 0.9


def test_smooth_grad_approaches_the_smoothed_gradient():
    class Square(nn.Module):
        def forward(self, x):
            return (x**3).sum((1, 2, 3, 4))[:, None]

    inputs = 2 * torch.ones(1, 1, *SHAPE)
    inputs[:, :, ::2] = 4  # mean 3, standard deviation 1
    maps = SmoothGrad(Square(), n_samples=400, noise=0.5).attribute(inputs, 0)
    # E[3 (x + e)^2] = 3 (x^2 + 0.25)
    torch.testing.assert_close(maps.mean(), (3 * (inputs**2 + 0.25)).mean(), rtol=0.01, atol=0)


def test_integrated_gradients_are_exact_for_polynomials_and_complete(toy_net, inputs, training):
    class Cube(nn.Module):
        def forward(self, x):
            return (x**3).sum((1, 2, 3, 4))[:, None]

    maps = IntegratedGradients(Cube(), n_steps=4).attribute(inputs, 0)
    torch.testing.assert_close(maps, inputs**3, rtol=1e-4, atol=1e-5)
    for baseline in ("training_mean", "counterfactual_mean", "zero"):
        reference = reference_of(training)
        start = {
            "training_mean": reference.class_means.mean(0, keepdim=True),
            "counterfactual_mean": reference.class_means[:1],  # of class 1: the mean of class 0
            "zero": torch.zeros_like(inputs[:1]),
        }[baseline]
        method = IntegratedGradients(toy_net, reference, baseline, n_steps=300)
        change = (toy_net(inputs) - toy_net(start))[:, 1].detach()
        sums = method.attribute(inputs, 1).sum((1, 2, 3, 4))
        torch.testing.assert_close(sums, change, rtol=0.02, atol=0.002)


def test_gradient_shap_of_a_linear_model_is_the_mean_difference(few):
    volumes = torch.randn(4, 1, 4, 6, 8, generator=torch.Generator().manual_seed(4))
    maps = GradientShap(Linear(), reference_of(volumes), n_samples=8).attribute(few, 1)
    torch.testing.assert_close(maps, WEIGHTS * (few - volumes.mean(0)), rtol=1e-4, atol=1e-5)


def test_expected_gradients_are_captums_mean_over_the_training_volumes(toy_net, inputs, training):
    inputs, training = inputs[:2], training[:2]
    maps = ExpectedGradients(toy_net, reference_of(training), n_steps=64).attribute(inputs, 1)
    captums = captum.attr.IntegratedGradients(toy_net)
    expected = torch.stack(
        [
            captums.attribute(inputs, start.expand_as(inputs), 1, n_steps=64, method="gausslegendre")
            for start in training
        ]
    ).mean(0)
    scale = float(expected.abs().max())
    torch.testing.assert_close(maps, expected.float(), rtol=0, atol=1e-4 * scale)
    torch.manual_seed(0)
    sampled = captum.attr.GradientShap(toy_net).attribute(inputs, training, 600, stdevs=0.0, target=1)
    assert float((sampled - maps).norm() / maps.norm()) < 0.15


def test_expected_gradients_sum_to_the_output_minus_its_mean_over_the_training_volumes(
    toy_net, inputs, training
):
    toy_net.linear.weight.data *= 10
    targets = torch.tensor([1, 0, 1])
    maps = ExpectedGradients(toy_net, reference_of(training), n_steps=1).attribute(inputs, targets)
    after, before = toy_net(inputs).gather(1, targets[:, None])[:, 0], toy_net(training).mean(0)[targets]
    error = (maps.sum((1, 2, 3, 4)) - (after - before)).abs()
    assert (error <= 0.05 * torch.maximum((after - before).abs(), 0.05 * maps.abs().sum((1, 2, 3, 4)))).all()
    exact = ExpectedGradients(toy_net, reference_of(training), n_steps=50).attribute(inputs, targets)
    torch.testing.assert_close(exact.sum((1, 2, 3, 4)), (after - before).detach(), rtol=0.01, atol=1e-3)


def test_expected_gradients_use_some_volumes_of_each_class():
    """Of 3 + 9 volumes, four baselines are one of class 1 and three of class 0."""

    class Sum(nn.Module):
        def forward(self, x):
            return x.sum((1, 2, 3, 4))[:, None]

    volumes = torch.arange(12.0).view(12, 1, 1, 1, 1).expand(12, 1, 2, 3, 4)
    targets = torch.tensor([1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    reference = replace(reference_of(volumes), targets=targets)
    maps = ExpectedGradients(Sum(), reference, n_baselines=4).attribute(torch.zeros(1, 1, 2, 3, 4), 0)
    torch.testing.assert_close(maps, torch.full_like(maps, -(2 + 6 + 10 + 4) / 4))
    maps = ExpectedGradients(Sum(), reference).attribute(torch.zeros(1, 1, 2, 3, 4), 0)
    torch.testing.assert_close(maps, torch.full_like(maps, -5.5))  # all twelve
    with pytest.raises(AttributionError, match="n_baselines=0"):
        ExpectedGradients(Sum(), reference, n_baselines=0)


def test_expected_gradients_of_a_polynomial(few):
    class Cube(nn.Module):
        def forward(self, x):
            return (x**3).sum((1, 2, 3, 4))[:, None]

    volumes = torch.randn(5, 1, 4, 6, 8, generator=torch.Generator().manual_seed(4))
    maps = ExpectedGradients(Cube(), reference_of(volumes), n_steps=2).attribute(few, 0)
    torch.testing.assert_close(maps, few**3 - (volumes**3).mean(0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", [GradientShap, ExpectedGradients])
def test_a_reference_without_volumes_is_refused(make, few):
    with pytest.raises(AttributionError, match=r"the reference holds no volumes .*n_reference_volumes"):
        make(Linear(), replace(reference_of(few), volumes=few[:0]))


@pytest.mark.parametrize("make", [SmoothGrad, GradientShap])
def test_random_methods_follow_the_seed_and_not_the_memory(make, toy_net, inputs, training):
    def maps(**settings):
        return make(toy_net, reference=reference_of(training), n_samples=7, **settings).attribute(inputs, 1)

    tolerance = 1e-5 * float(maps().abs().max())
    torch.testing.assert_close(maps(chunk_size=1), maps(chunk_size=4), rtol=0, atol=tolerance)
    assert not torch.allclose(maps(random_state=1), maps(), atol=tolerance)
    state = torch.random.get_rng_state()
    maps()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "make",
    [
        lambda model, reference: IntegratedGradients(model, reference, n_steps=6, chunk_size=6),
        lambda model, reference: SmoothGrad(model, n_samples=6, chunk_size=6),
        lambda model, reference: GradientShap(model, reference, n_samples=6, chunk_size=6),
        lambda model, reference: ExpectedGradients(model, reference, n_steps=3, chunk_size=6),
        lambda model, reference: Occlusion(model, reference, window_mm=7, n_levels=1, chunk_size=6),
        lambda model, reference: RISE(model, reference, n_masks=9, cell_mm=7, chunk_size=6),
        lambda model, reference: KernelShap(model, reference, size_mm=7, n_samples=80, chunk_size=6),
        lambda model, reference: ScoreCAM(model, reference, layer="relu2", chunk_size=6),
        lambda model, reference: Saliency(model),
    ],
)
def test_when_memory_is_out_the_chunk_is_halved_and_the_map_the_same(make, toy_net, inputs, training):
    sizes = []

    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = toy_net

        def forward(self, x):
            sizes.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.net(x)

    expected = make(toy_net, reference_of(training)).attribute(inputs, 1)
    maps = make(Small(), reference_of(training)).attribute(inputs, 1)
    assert max(sizes) > 2  # it was tried
    torch.testing.assert_close(maps, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


# -- Grad-CAM and guided gradients ---------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", ["relu1", "relu2"])
def test_grad_cam_is_monais(layer, toy_net, inputs):
    from monai.visualize import GradCAM as MonaiGradCAM

    # MONAI clips the coarse map at 0 before it resizes it; a net whose map is positive is not changed by that
    toy_net.linear.weight.data.abs_()
    # its display normaliser is left out
    monai = MonaiGradCAM(
        nn_module=toy_net, target_layers=layer, postprocessing=lambda x: x, upsampler=lambda size: lambda x: x
    )
    coarse = torch.cat([monai(inputs[i : i + 1], class_idx=1) for i in range(3)]).detach()
    expected = nn.functional.interpolate(coarse, SHAPE, mode="trilinear", align_corners=False)
    maps = GradCAM(toy_net, layer).attribute(inputs, 1)
    if layer == "relu1":  # on the grid of the inputs already
        maps = maps.clamp_min(0)
    assert expected.abs().max() > 0
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.filterwarnings("ignore:Setting")
def test_guided_grad_cam_is_the_product(toy_net, inputs):
    guided = GuidedBackprop(toy_net).attribute(inputs, 1)
    gate = GradCAM(toy_net).attribute(inputs, 1)
    torch.testing.assert_close(GuidedGradCAM(toy_net).attribute(inputs, 1), guided * gate.clamp_min(0))
    signed = GuidedGradCAM(toy_net, positive_gate=False).attribute(inputs, 1)
    torch.testing.assert_close(signed, guided * gate)
    assert not torch.allclose(signed, guided * gate.clamp_min(0))

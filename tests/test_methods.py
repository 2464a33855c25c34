"""Gradient methods, DeepLIFT, relevance, occlusion: known answers, and models that they refuse."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import captum.attr
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SHAPE, ToyNet
from torch import nn

from xai_brain import attribution
from xai_brain.attribution import (
    LRP,
    RISE,
    ClassScore,
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
    Reference,
    RegionAblation,
    Saliency,
    ScoreCAM,
    SmoothGrad,
)
from xai_brain.attribution.methods.lrp import folded
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.protocol import Method
from xai_brain.models.module import BrainClassifier

WEIGHTS = torch.arange(4 * 6 * 8, dtype=torch.float32).view(1, 4, 6, 8).cos()


class Linear(nn.Module):
    """Class 1 is a weighted sum of the voxels plus 5, class 0 its negative."""

    def forward(self, x):
        score = (x * WEIGHTS).sum((1, 2, 3, 4)) + 5
        return torch.stack([-score, score], 1)


def reference_of(volumes, brain=None, affine=None):
    shape = volumes.shape[2:]
    return Reference(
        class_means=torch.stack([volumes[::2].mean(0), volumes[1::2].mean(0)]),
        volumes=volumes,
        targets=torch.arange(len(volumes)) % 2,
        brain_mask=torch.ones(shape, dtype=torch.bool) if brain is None else brain,
        voxel_size_mm=(1.0, 1.0, 1.0),
        affine=affine,
    )


@pytest.fixture
def few():
    return torch.randn(2, 1, 4, 6, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def training():
    return torch.randn(4, 1, *SHAPE, generator=torch.Generator().manual_seed(7))


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


# -- occlusion and regions -----------------------------------------------------------------------------


def test_occlusion_of_a_linear_model_is_the_contribution(few):
    # boxes of 4 voxels, halved to 2 and 1: at the end every voxel has been replaced alone
    method = Occlusion(Linear(), fill="zero", voxel_size_mm=(1, 1, 1), window_mm=4, n_levels=3, n_refined=99)
    maps = method.attribute(few, torch.tensor([1, 0]))
    expected = few * WEIGHTS * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1, 1)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-4)


def test_occlusion_literals():
    class Sum(nn.Module):
        def forward(self, x):
            return x.sum((1, 2, 3, 4))[:, None]

    x = torch.zeros(1, 1, 2, 4, 6)
    x[0, 0, 0, 0, 0] = 16.0
    x[0, 0, 1, 3, 5] = 1.0
    reference = reference_of(x.repeat(2, 1, 1, 1, 1))
    reference.brain_mask[:, 3] = False  # the second spot is outside the brain
    coarse = Occlusion(Sum(), reference, "zero", window_mm=3, n_levels=1).attribute(x, 0)
    # the brain's bounding box is 2 x 3 x 6: one box of 2 x 3 x 3 loses 16, the other nothing
    assert coarse[0, 0, :, :3, :3].unique().tolist() == pytest.approx([16 / 18])
    assert float(coarse.sum()) == pytest.approx(16)
    fine = Occlusion(Sum(), reference, "zero", window_mm=3, n_levels=2, n_refined=1).attribute(x, 0)
    # the part with the spot is 1 x 2 x 2; its seven neighbours lose nothing
    assert fine[0, 0, 0, :2, :2].unique().tolist() == [4.0]
    assert float(fine.sum()) == pytest.approx(16)
    assert int((fine != 0).sum()) == 4


def test_occlusion_fills_from_the_training_subjects(few):
    volumes = torch.randn(4, 1, 4, 6, 8, generator=torch.Generator().manual_seed(4))
    reference = reference_of(volumes)
    maps = Occlusion(Linear(), reference, window_mm=99, n_levels=1).attribute(few, 1)
    change = (WEIGHTS * (few - reference.class_means[0])).sum((1, 2, 3, 4))  # of class 1: the mean of class 0
    torch.testing.assert_close(maps.sum((1, 2, 3, 4)), change, rtol=1e-4, atol=1e-4)
    with pytest.raises(AttributionError, match="window_mm=40 is in mm: give voxel_size_mm or a reference"):
        Occlusion(Linear())


def test_regions_are_placed_by_their_affine_and_share_their_fall(few):
    # volumes: 2 mm voxels from (10, 20, 30) mm; the atlas: 1 mm, its first axis from right to left
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([10.0, 20.0, 30.0])
    labels = np.zeros((8, 12, 16), np.int16)
    labels[4:, :4, :6] = 300  # the lower two voxels in x, two in y, three in z
    labels[:4, :4, :6] = 2
    atlas_affine = np.diag([-1.0, 1, 1, 1])
    atlas_affine[:3, 3] = [10 - 0.5 + 7, 20 - 0.5, 30 - 0.5]
    reference = reference_of(few, affine=affine)
    reference.brain_mask[0, 0, 0] = False
    names = pd.DataFrame({"index": [2, 300], "name": ["high", "low"]})
    method = RegionAblation(Linear(), reference, nib.Nifti1Image(labels, atlas_affine), names, fill="zero")
    maps = method.attribute(few, 1)[:, 0]
    shares = (few * WEIGHTS)[:, 0]
    low = shares[:, :2, :2, :3].sum((1, 2, 3)) - shares[:, 0, 0, 0]
    torch.testing.assert_close(maps[:, 1, 1, 2], low / 11, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps[:, 2:, :2, :3].sum((1, 2, 3)), shares[:, 2:, :2, :3].sum((1, 2, 3)))
    assert int((maps[0] != 0).sum()) == 23
    with pytest.raises(AttributionError, match="needs Reference"):
        RegionAblation(Linear(), reference_of(few), nib.Nifti1Image(labels, atlas_affine), names)
    far = atlas_affine.copy()
    far[2, 3] = 500
    with pytest.raises(AttributionError, match="no region lies in the brain"):
        RegionAblation(Linear(), reference, nib.Nifti1Image(labels, far), names)


# -- documentation ------------------------------------------------------------------------------------
METHOD_CLASSES = [
    member for name in attribution.__all__ if hasattr(member := getattr(attribution, name), "info")
]


@pytest.mark.parametrize("method", METHOD_CLASSES)
def test_attribute_is_documented_once_in_the_protocol(method):
    assert len(METHOD_CLASSES) > 25
    (line,) = inspect.getdoc(method.attribute).splitlines()
    assert "`Method.attribute`" in line
    contract = inspect.getdoc(Method.attribute)
    for part in ("Parameters", "Returns", "Raises", "(N, C, X, Y, Z)", "AttributionError"):
        assert part in contract
    arguments = list(inspect.signature(method.attribute).parameters)
    assert arguments[:3] == list(inspect.signature(Method.attribute).parameters)
    assert set(arguments[3:]) <= {"show_progress"}


@pytest.mark.parametrize("method", METHOD_CLASSES)
def test_published_methods_have_a_citation(method):
    unpublished = method.info.is_baseline or method is RegionAblation
    assert unpublished or re.search(r"\b(19|20)\d\d\b", method.info.citation)


def test_a_network_that_has_learned_nothing_yet_has_a_map_of_zeros_and_is_not_refused():
    """Weights of 0: the output is a small bias, of which the stabiliser of the rules absorbs a part."""
    from xai_brain.models.networks.shallow import ShallowNet

    torch.manual_seed(0)
    network = ShallowNet((46, 55, 46)).eval()
    with torch.no_grad():
        network.linear.bias.copy_(torch.tensor([5e-4, 6e-3]))
    assert not LRP(network).attribute(torch.randn(1, 1, 46, 55, 46), 0).any()

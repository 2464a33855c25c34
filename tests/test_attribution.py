"""One contract over all methods, then what each must get right."""

from __future__ import annotations

from functools import partial

import captum.attr
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SHAPE, ToyNet, boxed_reference
from torch import nn

from xai_brain.attribution import (
    LRP,
    RISE,
    ClassScore,
    DeepLift,
    Edges,
    ExpectedGradients,
    GradCAM,
    GradCAMPlusPlus,
    GradientShap,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputXGradient,
    IntegratedGradients,
    Intensity,
    KernelShap,
    LayerCAM,
    MeanDifference,
    MeaningfulPerturbation,
    Occlusion,
    RandomMap,
    Reference,
    RegionAblation,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    TMap,
    preserved,
)
from xai_brain.attribution.methods.grad_cam import find_layer
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.replacement import gaussian_blur
from xai_brain.attribution.protocol import Method, MethodInfo, method_info, takes


def reference_for(shape, n_classes=2):
    generator = torch.Generator().manual_seed(3)
    return Reference(
        class_means=torch.randn(n_classes, 1, *shape, generator=generator),
        volumes=torch.randn(4, 1, *shape, generator=generator),
        targets=torch.tensor([0, 1, 0, 1]),
        brain_mask=torch.ones(shape, dtype=torch.bool),
        voxel_size_mm=(2.0, 2.0, 2.0),
        class_variances=torch.rand(n_classes, 1, *shape, generator=generator) + 0.5,
        class_counts=torch.arange(n_classes) + 5,
        affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64)),
    )


def quarters():
    """Labels 1 to 4 on the grid of the volumes."""
    x, y = np.indices(SHAPE)[:2]
    labels = 1 + (x > 5) + 2 * (y > 6)
    return nib.Nifti1Image(labels.astype(np.int16), np.diag([2.0, 2, 2, 1]))


REFERENCE = reference_for(SHAPE)
NAMES = pd.DataFrame({"index": [1, 2, 3, 4], "name": ["first", "second", "third", "fourth"]})
METHODS = {
    "GradCAM": GradCAM,
    "GradCAMPlusPlus": GradCAMPlusPlus,
    "HiResCAM": HiResCAM,
    "LayerCAM": LayerCAM,
    "ScoreCAM": lambda model: ScoreCAM(model, REFERENCE, chunk_size=4),
    "GuidedBackprop": GuidedBackprop,
    "GuidedGradCAM": GuidedGradCAM,
    "Saliency": Saliency,
    "InputXGradient": InputXGradient,
    "IntegratedGradients": lambda model: IntegratedGradients(model, REFERENCE, n_steps=6),
    "IntegratedGradients-zero": lambda model: IntegratedGradients(model, n_steps=6, chunk_size=4),
    "SmoothGrad": lambda model: SmoothGrad(model, n_samples=5, chunk_size=3),
    "GradientShap": lambda model: GradientShap(model, REFERENCE, n_samples=6),
    "ExpectedGradients": lambda model: ExpectedGradients(model, REFERENCE, n_steps=3),
    "DeepLift": lambda model: DeepLift(model, REFERENCE),
    "LRP": LRP,
    "Occlusion": lambda model: Occlusion(model, REFERENCE, window_mm=14, n_levels=2, n_refined=2),
    "RegionAblation": lambda model: RegionAblation(model, REFERENCE, quarters(), NAMES),
    "KernelShap": lambda model: KernelShap(model, REFERENCE, size_mm=12, n_samples=100),
    "KernelShap-atlas": lambda model: KernelShap(model, REFERENCE, quarters(), NAMES),
    "RISE": lambda model: RISE(model, REFERENCE, n_masks=10, cell_mm=10, chunk_size=4),
    "MeaningfulPerturbation": lambda model: MeaningfulPerturbation(
        ClassScore(model, "probability"), REFERENCE, n_iter=8, area_weight=0.0
    ),
    "MeaningfulPerturbation-blur": lambda model: MeaningfulPerturbation(
        ClassScore(model, "probability"),
        fill="blur",
        blur_sigma_mm=1.5,
        voxel_size_mm=(1, 1, 1),
        n_iter=8,
        area_weight=0.0,
    ),
    "RandomMap": RandomMap,
    "Intensity": Intensity,
    "Edges": Edges,
    "MeanDifference": lambda model: MeanDifference(model, REFERENCE),
    "TMap": lambda model: TMap(model, REFERENCE),
}
OF_THE_IMAGE = ["RandomMap", "Intensity", "Edges", "MeanDifference"]  # they know no class
OF_NO_MODEL = [*OF_THE_IMAGE, "TMap"]
OF_A_CLASS = [name for name in METHODS if name not in OF_THE_IMAGE]
OF_A_MODEL = [name for name in METHODS if name not in OF_NO_MODEL]


def state_of(model):
    return [
        (
            module.training,
            len(module._forward_hooks),
            len(module._backward_hooks),
            len(module._forward_pre_hooks),
            sorted(vars(module)),
        )
        for module in model.modules()
    ] + [
        (p.requires_grad, None if p.grad is None else p.grad.clone().sum().item()) for p in model.parameters()
    ]


@pytest.mark.parametrize("name", METHODS)
class TestContract:
    def test_shape_and_finite(self, name, toy_net, inputs):
        maps = METHODS[name](toy_net).attribute(inputs, target=1)
        assert maps.shape == inputs.shape
        assert torch.isfinite(maps).all()
        assert maps.abs().sum() > 0
        assert not maps.requires_grad

    def test_batch_equals_one_by_one(self, name, toy_net, inputs):
        target = torch.tensor([0, 1, 1])
        method = METHODS[name](toy_net)
        together = method.attribute(inputs, target=target)
        alone = torch.cat([method.attribute(inputs[i : i + 1], target=target[i : i + 1]) for i in range(3)])
        tolerance = 1e-5 if not name.startswith("Meaningful") else 1e-3
        torch.testing.assert_close(together, alone, rtol=0, atol=tolerance * together.abs().max().item())

    def test_same_call_same_map(self, name, toy_net, inputs):
        method = METHODS[name](toy_net)
        assert torch.equal(method.attribute(inputs, target=1), method.attribute(inputs, target=1))

    def test_inputs_that_are_no_volumes_are_refused(self, name, toy_net, inputs):
        with pytest.raises(AttributionError, match=r"shape \(3, 12, 14, 16\): .* \(N, C, X, Y, Z\)"):
            METHODS[name](toy_net).attribute(inputs[:, 0], target=1)

    def test_it_says_what_it_is(self, name, toy_net):
        method = METHODS[name](toy_net)
        assert isinstance(method, Method)
        assert method_info(method) is method.info
        assert method.info.name == type(method).__name__
        assert method.info.is_baseline is (name in OF_NO_MODEL)
        assert method.info.value_meaning
        assert method.info.citation or name in {*OF_NO_MODEL, "RegionAblation"}
        gradients = ("Saliency", "SmoothGrad", "GuidedBackprop", "GuidedGradCAM")
        assert method.info.multiplies_by_inputs is (name not in gradients)


@pytest.mark.parametrize("name", OF_A_CLASS)
class TestContractOfTargets:
    def test_target_is_what_is_explained(self, name, toy_net, inputs):
        method = METHODS[name](toy_net)
        assert not torch.allclose(method.attribute(inputs, target=0), method.attribute(inputs, target=1))

    def test_without_a_target_it_refuses(self, name, toy_net, inputs):
        with pytest.raises(AttributionError, match="target is needed"):
            METHODS[name](toy_net).attribute(inputs)


@pytest.mark.parametrize("name", OF_A_MODEL)
class TestContractOfModels:
    @pytest.mark.parametrize("wrong", [None, 7])
    def test_nothing_is_left_on_the_model(self, name, toy_net, inputs, wrong):
        toy_net.train()
        toy_net.conv1.bias.requires_grad_(False)
        toy_net(inputs).sum().backward()
        weights = {key: value.clone() for key, value in toy_net.state_dict().items()}
        before = state_of(toy_net)
        if wrong is None:
            METHODS[name](toy_net).attribute(inputs, target=1)
        else:
            with pytest.raises(Exception, match=r".+"):
                METHODS[name](toy_net).attribute(inputs, target=wrong)
        assert state_of(toy_net) == before
        assert all(torch.equal(value, weights[key]) for key, value in toy_net.state_dict().items())

    def test_nothing_is_left_after_a_crash(self, name, toy_net, inputs):
        before = state_of(toy_net)

        class Crash(nn.Module):
            calls = 0

            def forward(self, x):
                Crash.calls += 1
                if Crash.calls >= 2:
                    raise RuntimeError("crashed inside")
                return x

        toy_net.linear = nn.Sequential(toy_net.linear, Crash())
        changed = state_of(toy_net)
        method = METHODS[name](toy_net)
        with pytest.raises(RuntimeError, match="crashed inside"):
            [method.attribute(inputs, target=1) for _ in range(3)]
        assert state_of(toy_net) == changed
        assert len(changed) > len(before)

    def test_in_place_relus_are_explained_the_same(self, name, toy_net, inputs):
        in_place = ToyNet(inplace=True).eval()
        in_place.load_state_dict(toy_net.state_dict())
        maps = METHODS[name](in_place).attribute(inputs, target=1)
        torch.testing.assert_close(
            maps, METHODS[name](toy_net).attribute(inputs, target=1), atol=1e-5, rtol=1e-4
        )
        assert in_place.relu1.inplace


def test_preserved_restores_after_an_exception(toy_net):
    toy_net.train()
    before = state_of(toy_net)

    def crash():
        with preserved(toy_net):
            toy_net.relu1.register_forward_hook(lambda *_: None)
            assert not toy_net.training
            raise KeyError

    with pytest.raises(KeyError):
        crash()
    assert state_of(toy_net) == before


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


# -- meaningful perturbation -------------------------------------------------------------------------


def test_mask_stays_away_where_nothing_speaks_for_the_class():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2, 3, 4)) * 0, x.mean((1, 2, 3, 4)) * 0], 1)

    inputs = torch.randn(2, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    method = MeaningfulPerturbation(ClassScore(Constant(), "probability"), boxed_reference(), n_iter=60)
    assert method.attribute(inputs, target=1).abs().max() < 0.05


def test_mask_is_restricted_to_the_brain(toy_net, inputs):
    reference = reference_for(SHAPE)
    reference.brain_mask[:6] = False
    maps = MeaningfulPerturbation(ClassScore(toy_net, "probability"), reference, n_iter=3).attribute(
        inputs, 1
    )
    assert not maps[:, :, :6].any()
    assert maps[:, :, 6:].any()


def test_the_returned_mask_is_the_one_that_was_applied(toy_net, inputs):
    reference = reference_for(SHAPE)
    model = ClassScore(toy_net, "probability")
    (result,) = MeaningfulPerturbation(model, reference, n_iter=5).optimize(inputs[:1], target=1)
    perturbed = inputs[:1] * result.mask + reference.class_means[0] * (1 - result.mask)
    assert model(perturbed)[0, 1].item() == pytest.approx(result.score_after, abs=1e-5)


def test_counterfactual_mean_is_that_of_the_other_classes():
    reference = reference_for(SHAPE, n_classes=3)
    fill = reference.counterfactual_mean(torch.tensor([0, 2]), torch.zeros(2, 1, *SHAPE))
    torch.testing.assert_close(fill[0], (reference.class_means[1] + reference.class_means[2]) / 2)
    torch.testing.assert_close(fill[1], (reference.class_means[0] + reference.class_means[1]) / 2)
    two = reference_for(SHAPE)
    assert torch.equal(
        two.counterfactual_mean(torch.tensor([1]), torch.zeros(2, 1, *SHAPE))[0], two.class_means[0]
    )


@pytest.mark.parametrize("sigma", [0.8, 2.0, 4.0])
def test_blur_has_the_sigma_it_is_given_and_is_centred(sigma):
    impulse = torch.zeros(1, 1, 41, 43, 45)
    impulse[0, 0, 20, 21, 22] = 1
    blurred = gaussian_blur(impulse, sigma)[0, 0]
    for axis, centre in zip(range(3), (20, 21, 22), strict=True):
        profile = blurred.sum([a for a in range(3) if a != axis])
        positions = torch.arange(len(profile))
        assert (profile * positions).sum().item() == pytest.approx(centre, abs=1e-3)
        variance = (profile * (positions - centre) ** 2).sum().item()
        assert variance**0.5 == pytest.approx(sigma, rel=0.02)


def test_blur_replicates_edges():
    constant = torch.full((1, 1, *SHAPE), 3.0)
    torch.testing.assert_close(gaussian_blur(constant, 3.0), constant)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_outputs(n_classes):
    class Identity(nn.Module):
        def forward(self, x):
            return x

    logits = torch.randn(4, n_classes)
    difference = ClassScore(Identity(), "logit_difference")(logits)
    for k in range(n_classes):
        others = logits[:, [j for j in range(n_classes) if j != k]].mean(1)
        torch.testing.assert_close(difference[:, k], logits[:, k] - others)
    torch.testing.assert_close(ClassScore(Identity(), "probability")(logits), logits.softmax(1))
    with pytest.raises(ValueError, match="one of logit"):
        ClassScore(Identity(), "odds")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", METHODS)
def test_same_maps_on_a_gpu(name, toy_net, inputs):
    on_cpu = METHODS[name](toy_net).attribute(inputs, target=1)
    on_gpu = METHODS[name](toy_net.cuda()).attribute(inputs.cuda(), target=1)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=1e-2 * on_cpu.abs().max().item())


def test_what_was_tried_on_a_model_is_tried_again_when_it_changes(inputs):
    net, passes = ToyNet().eval(), []
    net.register_forward_hook(lambda *_: passes.append(1))
    method = GradCAM(net)
    first = method.attribute(inputs, 0)
    begun = len(passes)
    torch.testing.assert_close(method.attribute(inputs, 0), first, rtol=0, atol=0)
    assert (begun, len(passes) - begun) == (3, 1)  # the layer, the memory, the map; then the map alone
    net.relu2 = nn.ReLU6()  # the last ReLU is another
    torch.testing.assert_close(method.attribute(inputs, 0), GradCAM(net, "relu1").attribute(inputs, 0))

    net.relu2 = nn.ReLU()
    guided = GuidedBackprop(net)
    guided.attribute(inputs, 0)
    net.relu1 = net.relu2 = nn.Identity()
    with pytest.raises(AttributionError, match="applies no ReLU"):
        guided.attribute(inputs, 0)


def test_methods_of_others_need_no_info():
    class Mine:
        def __init__(self, model, reference=None):
            self.model = model

        def attribute(self, inputs, target=None):
            return inputs

    captum_info = method_info(captum.attr.InputXGradient(nn.Identity()))
    assert captum_info.multiplies_by_inputs is True
    assert captum_info.value_meaning == "raw values of captum.attr._core.input_x_gradient.InputXGradient"
    assert method_info(Mine).multiplies_by_inputs is None
    assert method_info(partial(Mine, reference=None)) == method_info(Mine(None)) == method_info(Mine)
    assert takes(partial(Mine), "reference")
    assert not takes(Mine, "voxel_size_mm")
    Mine.info = MethodInfo("Mine", "the image", True, citation="Mine M. 2026.")
    assert method_info(Mine(None)) is Mine.info

"""One contract over all methods, and what they need of models and of each other."""

from __future__ import annotations

from functools import partial

import captum.attr
import pytest
import torch
from all_methods import METHODS, OF_A_CLASS, OF_A_MODEL, OF_NO_MODEL
from conftest import ToyNet
from torch import nn

from xai_brain.attribution import ClassScore, GradCAM, GuidedBackprop, preserved
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.protocol import Method, MethodInfo, method_info, takes


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

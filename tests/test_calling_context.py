"""Maps do not depend on the precision and the modes of the caller: one contract for all methods."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import pytorch_lightning as lightning
import torch
from all_methods import METHODS, REFERENCE, reference_for
from conftest import ToyNet
from torch import nn
from torch.utils.data import DataLoader

from xai_brain.attribution import (
    AmortizedMasker,
    AreaConstrainedPerturbation,
    ClassScore,
    GradCAM,
    IntegratedGradients,
    Kan2020Perturbation,
    MeaningfulPerturbation,
    Saliency,
)
from xai_brain.attribution.calling_context import float32_weights
from xai_brain.attribution.model_state import AttributionError

ALL = METHODS | {
    "AreaConstrained": lambda model: AreaConstrainedPerturbation(
        ClassScore(model, "probability"), REFERENCE, areas=(0.05, 0.2), n_iter=3
    ),
    "AmortizedMasker": lambda model: AmortizedMasker(ClassScore(model, "probability"), REFERENCE, n_steps=3),
    "Kan2020": lambda model: Kan2020Perturbation(
        ClassScore(model, "probability"), n_iter=3, n_shifts=2, first_kept_iteration=1
    ),
}
TARGET = torch.tensor([0, 1, 1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_networks_and_inputs_of_other_precisions_have_the_maps_of_float32(name, dtype, toy_net, inputs):
    toy_net.linear.weight.data *= 100  # values that float16 can hold
    network, volumes = toy_net.to(dtype), inputs.to(dtype)
    weights = copy.deepcopy(network.state_dict())
    expected = ALL[name](copy.deepcopy(network).float()).attribute(volumes.float(), target=TARGET)
    maps = ALL[name](network).attribute(volumes, target=TARGET)
    assert maps.dtype == dtype
    assert maps.isfinite().all()
    largest, rounding = float(expected.abs().max()), max(torch.finfo(dtype).eps, 1e-6)
    torch.testing.assert_close(maps.float(), expected, rtol=rounding, atol=rounding * largest)
    for key, value in network.state_dict().items():
        assert value.dtype == weights[key].dtype
        assert torch.equal(value, weights[key])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ALL)
def test_maps_are_the_same_inside_no_grad_and_inference_mode(name, mode, toy_net, inputs):
    expected = ALL[name](toy_net).attribute(inputs, target=TARGET)
    with mode():
        made_inside, targets = inputs.clone(), TARGET.clone()
        maps = ALL[name](toy_net).attribute(made_inside, target=targets)
    torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("mode", [nullcontext, torch.inference_mode])
def test_a_network_and_a_reference_that_were_made_in_inference_mode(mode, inputs):
    def made():
        torch.manual_seed(0)
        network = ClassScore(ToyNet().eval(), "probability")
        return IntegratedGradients(network, reference_for(inputs.shape[2:]), n_steps=6)

    expected = made().attribute(inputs, 1)
    with mode():
        method = made()
        maps = method.attribute(inputs, 1)
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(method.attribute(inputs, 1), expected)


def test_autocast_of_the_caller_does_not_round_maps(toy_net, inputs):
    expected = Saliency(toy_net).attribute(inputs, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Saliency(toy_net).attribute(inputs, 1), expected)


def test_details_and_results_of_masks_are_made_in_any_mode(toy_net, inputs):
    method = MeaningfulPerturbation(ClassScore(toy_net.half(), "probability"), REFERENCE, n_iter=3)
    with torch.inference_mode():
        maps, details = method.attribute_with_details(inputs.half(), 1)
        results = method.optimize(inputs.half(), 1)
        group = method.optimize_group(inputs.half(), 1, n_iter=2)
    assert maps.dtype == torch.float16
    assert details[0]["ScoreBefore"] == pytest.approx(results[0].score_before)
    assert group.mask.isfinite().all()


def test_whole_numbers_are_explained_in_float32(toy_net):
    counts = torch.randint(0, 255, (2, 1, 12, 14, 16), generator=torch.Generator().manual_seed(0))
    maps = GradCAM(toy_net).attribute(counts.to(torch.uint8), 1)
    assert torch.equal(maps, GradCAM(toy_net).attribute(counts.float(), 1))
    assert maps.dtype == torch.float32


@pytest.mark.parametrize("factor", [1e9, 1e-3])
def test_maps_that_the_precision_of_the_inputs_cannot_hold_are_refused(factor, toy_net, inputs):
    toy_net.linear.weight.data *= factor
    assert Saliency(toy_net).attribute(inputs, 1).abs().sum() > 0
    with pytest.raises(AttributionError, match=r"largest value of a map .*float16.* give the inputs"):
        Saliency(toy_net).attribute(inputs.half(), 1)


def test_inputs_that_are_no_tensor_are_refused(toy_net, inputs):
    with pytest.raises(AttributionError, match=r"inputs are a ndarray: a torch\.Tensor of shape"):
        Saliency(toy_net).attribute(inputs.numpy(), 1)


def test_shared_weights_stay_shared_and_come_back_after_an_exception():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).half()
    network[1].weight = network[0].weight
    before = list(network.parameters())

    def use():
        with float32_weights(network):
            assert network[1].weight is network[0].weight
            assert {p.dtype for p in network.parameters()} == {torch.float32}
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        use()
    assert all(a is b for a, b in zip(network.parameters(), before, strict=True))
    assert {p.dtype for p in network.parameters()} == {torch.float16}


def test_maps_are_made_in_the_test_step_of_lightning(toy_net, inputs):
    class Explaining(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.maps = toy_net, []

        def test_step(self, batch):
            assert torch.is_inference_mode_enabled()
            self.maps.append(Saliency(self.network).attribute(batch, 1))

    module = Explaining()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    lightning.Trainer(accelerator="cpu", **quiet).test(module, DataLoader(inputs, 3), verbose=False)
    torch.testing.assert_close(module.maps[0], Saliency(toy_net).attribute(inputs, 1))

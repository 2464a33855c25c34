"""DeepLIFT and integrated gradients sum to the change of the output; completeness error."""

from __future__ import annotations

import captum.attr
import pytest
import torch
import yaml
from conftest import SHAPE
from hydra.utils import instantiate
from step_networks import ACTIVATIONS, POOLING, Step
from torch import nn

from xai_brain.attribution import DeepLift, InputXGradient, IntegratedGradients, Reference, Saliency
from xai_brain.attribution.completeness import check_completeness, completeness_error, sums
from xai_brain.attribution.model_state import AttributionError
from xai_brain.config.compose import conf_dir


def change_of(model, inputs, target=1):
    with torch.no_grad():
        return (model(inputs) - model(torch.zeros_like(inputs)))[:, target].double()


@pytest.mark.parametrize("name", [*ACTIVATIONS, *POOLING])
def test_deep_lift_is_complete_for_activations_and_pooling(name, inputs):
    step = (ACTIVATIONS | POOLING)[name]
    model = Step(step if name in POOLING else nn.Identity(), step if name in ACTIVATIONS else None)
    maps = DeepLift(model).attribute(inputs, 1)
    total, absolute = sums(maps)
    change = change_of(model, inputs)
    assert completeness_error(total, change, absolute, change).max() < 1e-3
    assert not torch.allclose(maps, InputXGradient(model).attribute(inputs, 1), rtol=0.05, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Softplus, nn.ELU])
def test_deep_lift_is_captums_where_captums_is_complete(activation, inputs):
    model = Step(nn.MaxPool3d(2), activation())
    maps = DeepLift(model).attribute(inputs, 1)
    for module in (model.relu1, model.step, model.activation):
        # Captum's hooks of one module and of the next are otherwise on the same tensor, in the wrong order
        module.register_forward_pre_hook(lambda _, args: args[0].clone())
    theirs = captum.attr.DeepLift(model)
    # Captum's rule of pooling mixes the volumes of a batch
    expected = torch.cat(
        [theirs.attribute(volume[None].clone().requires_grad_(), target=1) for volume in inputs]
    )
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4 * float(maps.abs().max()))


def test_deep_lift_of_overlapping_pooling_by_hand():
    # windows (1, 3), (3, 2) of x and (0, 0), (0, 0) of the baseline: both maxima are the 3, twice its share
    model = nn.Sequential(nn.MaxPool3d((1, 1, 2), stride=1), nn.Flatten(), nn.Linear(2, 1, bias=False))
    model[2].weight.data = torch.tensor([[1.0, 10.0]])
    x = torch.tensor([1.0, 3.0, 2.0]).view(1, 1, 1, 1, 3)
    torch.testing.assert_close(DeepLift(model).attribute(x, 0).ravel(), torch.tensor([0.0, 33.0, 0.0]))
    # the maximum falls from 0 (baseline, first place) to -1: the difference belongs to the first place
    fallen = torch.tensor([-5.0, -1.0, -2.0]).view(1, 1, 1, 1, 3)
    torch.testing.assert_close(DeepLift(model).attribute(fallen, 0).ravel(), torch.tensor([-1.0, -10.0, 0.0]))


def test_deep_lift_takes_the_derivative_where_nothing_changes():
    model = nn.Sequential(nn.Conv3d(1, 1, 1), nn.Tanh(), nn.Flatten(), nn.Linear(2, 1, bias=False))
    model[0].bias.data.fill_(1.0)
    small = 1e-6 * torch.tensor([1.0, -2.0]).view(1, 1, 1, 1, 2)
    gradient = Saliency(model).attribute(torch.zeros_like(small), 0)
    torch.testing.assert_close(DeepLift(model).attribute(small, 0), small * gradient, rtol=1e-3, atol=0)


def test_completeness_error_has_a_floor():
    error = completeness_error(*(torch.tensor([x]) for x in (1.04, 1.0, 4.0, 1.0)))
    assert error.item() == pytest.approx(0.04)
    # an output that does not change is compared with 5 % of the sum of absolute values
    error = completeness_error(*(torch.tensor([x]) for x in (0.1, 0.0, 4.0, 1.0)))
    assert error.item() == pytest.approx(0.5)
    # nor with less than a ten-thousandth of the outputs, whose difference is rounded
    error = completeness_error(*(torch.tensor([x]) for x in (1e-6, -1e-6, 1e-6, 1.0)))
    assert error.item() == pytest.approx(0.02)
    nothing = torch.zeros(1)
    assert completeness_error(nothing, nothing, nothing, nothing).item() == 0
    with pytest.raises(AttributionError, match="volume 7 sum to nan, but the sum is 1 "):
        check_completeness("M", torch.tensor([torch.nan]), *torch.ones(3, 1), "the sum", "", [7])


class Jump(nn.Module):
    """Rises within a small part of the path from 0."""

    def __init__(self, steepness):
        super().__init__()
        self.steepness = steepness

    def forward(self, x):
        return torch.tanh(self.steepness * x.mean((1, 2, 3, 4)))[:, None].expand(-1, 2)


def test_integrated_gradients_double_their_steps_before_they_refuse():
    volume = torch.ones(1, 1, *SHAPE)
    few = IntegratedGradients(Jump(3000.0), n_steps=4)
    assert float(few.attribute(volume, 1).sum()) == pytest.approx(1, abs=0.05)
    with pytest.raises(AttributionError, match=r"IntegratedGradients with 1024 steps: .*choose another one"):
        IntegratedGradients(Jump(1e9), n_steps=4).attribute(volume, 1)


@pytest.mark.slow
def test_deep_lift_of_the_supplied_densenet121_sums_to_the_difference():
    """Its first pooling overlaps. Volumes have the size of the paper's grid."""
    pytest.importorskip("monai")
    settings = yaml.safe_load((conf_dir() / "model" / "densenet121.yaml").read_text())
    del settings["weights"]
    torch.manual_seed(0)
    network = instantiate(settings, out_channels=2).train()
    volumes = torch.randn(4, 1, 58, 70, 58) + torch.linspace(-1, 1, 70)[:, None]
    with torch.no_grad():
        for _ in range(5):  # statistics of the batch normalisations
            network(volumes)
    network.eval()
    reference = Reference(
        class_means=torch.stack([volumes[::2].mean(0), volumes[1::2].mean(0)]),
        volumes=volumes,
        targets=torch.tensor([0, 1, 0, 1]),
        brain_mask=torch.ones(58, 70, 58, dtype=torch.bool),
        voxel_size_mm=(3.125, 3.125, 3.125),
    )
    inputs = 2 * volumes[:2].roll(3, 2)
    total = DeepLift(network, reference).attribute(inputs, 1).sum((1, 2, 3, 4))
    with torch.no_grad():
        change = (network(inputs) - network(reference.mean[None]))[:, 1]
    ratio = total / change
    assert ratio.tolist() == pytest.approx([1, 1], abs=0.02)

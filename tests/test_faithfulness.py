"""Whether networks lose and find their class as maps say: deletion, insertion, infidelity."""

from __future__ import annotations

import captum.metrics
import numpy as np
import pytest
import torch
from captum.attr import InputXGradient
from captum.metrics import infidelity_perturb_func_decorator
from conftest import SHAPE, boxed_reference
from torch import nn
from toy_methods import BRAIN, TARGETS, VOXEL_MM, Linear, OfWeights

from xai_brain import attribution
from xai_brain.attribution import ClassScore
from xai_brain.attribution.model_state import AttributionError
from xai_brain.config.evaluation import CardConfig
from xai_brain.config.setting import ConfigError
from xai_brain.metrics.deletion_insertion import (
    area_under,
    deletion_insertion,
    random_order,
    removal_baselines,
    removal_steps,
)
from xai_brain.metrics.infidelity import (
    BlockChanges,
    block_changes,
    infidelity,
    infidelity_of_chance,
    random_blocks,
)
from xai_brain.metrics.maps import maps_of
from xai_brain.study.evaluation.network_metrics import infidelity_scores
from xai_brain.study.explanation.configured_methods import multiplies_by_inputs


def test_deletion_and_insertion_are_those_of_every_step_by_itself(toy_net, inputs):
    maps, baselines = torch.randn_like(inputs), torch.full_like(inputs, 0.5)
    curves = deletion_insertion(toy_net, inputs, baselines, maps, TARGETS, BRAIN, n_steps=5)
    for i in range(len(inputs)):
        steps = torch.from_numpy(removal_steps(maps[i, 0].numpy(), BRAIN, 5))
        for k in range(6):
            gone = (steps > 0) & (steps <= k)
            deleted, inserted = inputs[i : i + 1].clone(), inputs[i : i + 1].clone()
            deleted[0, 0][gone] = 0.5
            inserted[0, 0][(steps > 0) & ~gone] = 0.5
            with torch.no_grad():
                expected = toy_net(torch.cat([deleted, inserted]))[:, TARGETS[i]]
            found = [curves["deletion"][i, k], curves["insertion"][i, k]]
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_both_curves_need_40_passes_for_20_steps(inputs):
    class Counting(nn.Module):
        n_volumes = 0

        def forward(self, x):
            Counting.n_volumes += len(x) if len(x) > 1 else 0  # not the probes of the engine
            return torch.stack([x.mean((1, 2, 3, 4)), x.sum((1, 2, 3, 4))], 1)

    maps = torch.randn_like(inputs)
    deletion_insertion(Counting(), inputs, torch.zeros_like(inputs), maps, TARGETS, BRAIN, n_steps=20)
    assert Counting.n_volumes == 3 * 40


def test_curves_of_a_linear_model_by_hand():
    class Sum(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum((1, 2, 3, 4)), -x.sum((1, 2, 3, 4))], 1)

    brain, volume = np.zeros((1, 2, 4), bool), torch.zeros(1, 1, 1, 2, 4)
    brain[0, 0] = True
    volume[0, 0, 0] = torch.tensor([[4.0, 3, 2, 1], [10, 0, 0, 0]])  # 10 is outside of the brain
    target = torch.tensor([0])
    curves = deletion_insertion(Sum(), volume, torch.zeros_like(volume), volume, target, brain, n_steps=4)
    assert curves["deletion"].tolist() == [[20, 16, 13, 11, 10]]
    assert curves["insertion"].tolist() == [[10, 14, 17, 19, 20]]
    assert area_under(curves["deletion"]).tolist() == [(20 / 2 + 16 + 13 + 11 + 10 / 2) / 4]


def test_random_order_is_the_straight_line_of_a_linear_model():
    model = Linear()
    inputs = torch.rand(40, 1, *SHAPE)
    targets, zero = torch.ones(40, dtype=torch.long), torch.zeros(40, 1, *SHAPE)
    curves = random_order(model, inputs, zero, targets, BRAIN, n_steps=4)["deletion"]
    line = curves[:, :1] + (curves[:, -1:] - curves[:, :1]) * np.linspace(0, 1, 5)
    error = (curves - line)[:, 1:-1].std(0) / np.sqrt(40)
    assert (abs((curves - line)[:, 1:-1].mean(0)) < 4 * error).all()
    assert (error > 0).all()
    perfect = maps_of(InputXGradient(model), inputs, targets).clamp_min(0)
    best = deletion_insertion(model, inputs, zero, perfect, targets, BRAIN, n_steps=4)
    assert (area_under(best["deletion"]) < area_under(curves) - 4 * area_under(curves - line).std()).all()


def test_baselines_of_removal(inputs):
    reference = boxed_reference()
    assert not removal_baselines("zero", inputs).any()
    mean = removal_baselines("training_mean", inputs, reference)
    torch.testing.assert_close(mean[2], reference.class_means.mean(0))
    # a Gaussian of 4 mm on voxels of 2 mm leaves (1 / (2 sqrt(pi) 2))^3 of the variance of white noise
    large = torch.randn(1, 1, 40, 44, 48)
    blurred = removal_baselines("blur", large, blur_sigma_mm=4.0, voxel_size_mm=(2.0, 2.0, 2.0))
    inner = blurred[:, :, 8:-8, 8:-8, 8:-8]
    assert float(inner.var()) == pytest.approx((4 * np.sqrt(np.pi)) ** -3, rel=0.25)
    with pytest.raises(ValueError, match="baseline='noise': one of zero, blur, training_mean"):
        removal_baselines("noise", inputs)
    with pytest.raises(AttributionError, match="training_mean"):
        removal_baselines("training_mean", inputs)


@pytest.fixture
def found(toy_net, inputs) -> BlockChanges:
    blocks = random_blocks(BRAIN, VOXEL_MM, 20, (6.0, 12.0))
    return block_changes(toy_net, inputs, torch.full_like(inputs, 0.3), TARGETS, BRAIN, blocks)


def test_blocks_are_cubes_in_mm():
    blocks = random_blocks(np.ones((40, 60, 30), bool), VOXEL_MM, 50, (12.0,))
    assert blocks.sum(1).max() == 4 * 6 * 3  # 12 mm on each axis
    assert (np.median(blocks.sum(1)), blocks.shape) == (72, (50, 72000))


@pytest.mark.parametrize("multiply_by_inputs", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_infidelity_is_captums(toy_net, inputs, found, multiply_by_inputs, normalize):
    maps = torch.randn_like(inputs)
    masks = torch.zeros(20, 1, *SHAPE)
    masks[:, 0, torch.from_numpy(BRAIN)] = torch.from_numpy(found.blocks).float()

    @infidelity_perturb_func_decorator(multiply_by_inputs)
    def without_block(volumes, baselines):
        return torch.where(masks.repeat(3, 1, 1, 1, 1) > 0, baselines, volumes)

    expected = captum.metrics.infidelity(
        toy_net, without_block, inputs, maps, 0.3, target=TARGETS, n_perturb_samples=20, normalize=normalize
    )
    scale = "normalized" if normalize else "raw"
    ours = infidelity(maps, found, multiply_by_inputs, scale)
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


def test_contributions_of_a_linear_model_foretell_every_block(inputs):
    model, zero = Linear(), torch.zeros_like(inputs)
    blocks = random_blocks(BRAIN, VOXEL_MM)
    of_linear = block_changes(model, inputs, zero, TARGETS, BRAIN, blocks)
    contributions = maps_of(InputXGradient(model), inputs, TARGETS)
    gradients = torch.from_numpy(np.stack([model.weight(t) for t in TARGETS]))[:, None]
    np.testing.assert_allclose(infidelity(contributions, of_linear), 0, atol=1e-6)
    np.testing.assert_allclose(infidelity(-7 * contributions, of_linear), 0, atol=1e-6)  # any multiple
    np.testing.assert_allclose(infidelity(gradients, of_linear, multiply_by_inputs=False), 0, atol=1e-6)
    chance = infidelity_of_chance(of_linear)
    assert ((chance > 0.1) & (chance <= 1)).all()
    drawn = np.mean([infidelity(torch.rand_like(inputs), of_linear) for _ in range(20)], 0)
    np.testing.assert_allclose(chance, drawn, atol=0.02)


class LinearContext:
    """The part of an evaluation context that the infidelity needs, with a linear network."""

    def __init__(self, inputs, method, removal):
        self.inputs, self.removal, self.classifier = inputs, removal, Linear()
        self.card = CardConfig(removal=removal, n_blocks=24)
        self.reference = boxed_reference()
        self._method = method(ClassScore(self.classifier))

    def common_brain(self):
        return BRAIN

    def method(self, label):
        return self._method

    def output(self, label):
        return "logit"

    def scorer(self, output):
        return ClassScore(self.classifier, output)

    def saved(self, label):
        return maps_of(self._method, self.inputs, TARGETS), TARGETS

    def cached(self, key, make):
        return make()


@pytest.mark.parametrize(
    ("method", "removal"),
    [
        (attribution.Saliency, "zero"),
        (attribution.Saliency, "training_mean"),
        (lambda model: attribution.SmoothGrad(model, n_samples=2), "training_mean"),
        (attribution.InputXGradient, "zero"),
        (InputXGradient, "zero"),  # Captum's
        (lambda model: attribution.IntegratedGradients(model, boxed_reference(), n_steps=3), "training_mean"),
        (lambda model: attribution.DeepLift(model, boxed_reference()), "training_mean"),
    ],
)
def test_the_card_finds_no_infidelity_in_maps_of_a_linear_model(method, removal, inputs):
    values, chance = infidelity_scores(LinearContext(inputs, method, removal), "Method")["infidelity"]
    np.testing.assert_allclose(values, 0, atol=1e-5)
    assert chance.mean() > 0.3


def test_the_card_does_not_guess_whether_a_method_multiplies_by_the_input(inputs):
    method = OfWeights(lambda model, volumes, targets: volumes)
    with pytest.raises(ConfigError, match=r"attribution\.Mine: OfWeights does not state whether its values"):
        multiplies_by_inputs(method, "Mine")


def test_infidelity_by_hand_and_of_an_empty_map():
    blocks = np.array([[True, False, False], [False, True, True]])
    brain = np.ones((1, 1, 3), bool)
    by_hand = BlockChanges(blocks, np.array([[1.0, 2.0]]), np.ones((1, 3)), brain)
    one = torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 1, 1, 3)  # foretells 1 and 0
    assert infidelity(one, by_hand, scale="raw") == pytest.approx(2)  # (0 + 4) / 2
    assert infidelity(2 * one, by_hand, scale="normalized") == pytest.approx(2)
    assert infidelity(2 * one, by_hand) == pytest.approx(0.8)  # of (1 + 4) / 2
    assert infidelity(0 * one, by_hand) == 1
    nothing_changes = BlockChanges(blocks, np.zeros((1, 2)), np.ones((1, 3)), brain)
    assert np.isnan(infidelity(one, nothing_changes)).all()
    with pytest.raises(ValueError, match="scale='other': one of relative, normalized, raw"):
        infidelity(one, by_hand, scale="other")

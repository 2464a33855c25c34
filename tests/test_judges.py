from __future__ import annotations

import time

import captum.metrics
import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, Saliency
from captum.metrics import infidelity_perturb_func_decorator
from conftest import SHAPE, boxed_reference
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.evaluation import cost as cost_module
from xai_brain.evaluation.agreement import spearman
from xai_brain.evaluation.cost import cost
from xai_brain.evaluation.faithfulness import (
    area_under,
    deletion_insertion,
    random_order,
    removal_baselines,
    removal_steps,
)
from xai_brain.evaluation.infidelity import (
    BlockChanges,
    block_changes,
    infidelity,
    infidelity_of_chance,
    random_blocks,
)
from xai_brain.evaluation.maps import maps_of
from xai_brain.evaluation.sanity import full_randomization, parameter_randomization, randomized_models
from xai_brain.evaluation.similarity import scaled, similarity, ssim_map, ssim_of_chance
from xai_brain.evaluation.stability import UNRELATED, max_sensitivity, noise_stability, reseed_stability

BRAIN = np.zeros(SHAPE, bool)
BRAIN[1:11, 2:12, 1:15] = True
TARGETS = torch.tensor([1, 0, 1])
VOXEL_MM = (3.0, 2.0, 4.0)


class Linear(nn.Module):
    """Two classes, each a weighted sum of the voxels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(int(np.prod(SHAPE)), 2)

    def forward(self, x):
        return self.linear(x.flatten(1))

    def weight(self, target):
        return self.linear.weight[target].detach().view(SHAPE).numpy()


class OfWeights:
    """A method that is given by a function of model, inputs and targets."""

    def __init__(self, make, model=None):
        self.make, self.model = make, model

    def attribute(self, inputs, target):
        return self.make(self.model, inputs, target)


# --- deletion and insertion ---


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


# --- infidelity ---


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


# --- sensitivity and stability ---


def test_max_sensitivity_is_captums(toy_net, inputs):
    brain = torch.from_numpy(BRAIN)
    in_brain = OfWeights(lambda model, x, t: InputXGradient(model).attribute(x, t) * brain, toy_net)
    rng = np.random.default_rng(3)
    noise = [np.where(BRAIN, rng.uniform(-0.05, 0.05, SHAPE), 0) for _ in range(4)]
    sd = inputs[:, 0, brain].std(1, correction=0).view(-1, 1, 1, 1, 1)

    def perturb(volumes):  # Captum hands over tuples, every subject repeated
        drawn = torch.from_numpy(np.stack(noise)).float()[:, None].repeat(3, 1, 1, 1, 1)
        return volumes + sd.repeat_interleave(4, 0) * drawn

    def explain(volumes, target):
        as_given = isinstance(volumes, tuple)
        volumes = volumes[0] if as_given else volumes
        with torch.enable_grad():
            maps = in_brain.attribute(volumes.detach().clone().requires_grad_(), target).detach()
        return (maps,) if as_given else maps

    expected = captum.metrics.sensitivity_max(explain, inputs, perturb, n_perturb_samples=4, target=TARGETS)
    ours = max_sensitivity(in_brain, inputs, TARGETS, BRAIN, 0.05, 4, batch_size=2, random_state=3)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    assert (ours > 0).all()


def test_maps_without_relation_and_maps_without_noise(inputs):
    unrelated = OfWeights(lambda _, x, t: torch.sin(1e6 * x.detach()))
    found = max_sensitivity(unrelated, inputs, 0, BRAIN, radius=0.5)
    np.testing.assert_allclose(found, UNRELATED, rtol=0.1)
    np.testing.assert_allclose(noise_stability(unrelated, inputs, 0, BRAIN), 0, atol=0.06)
    model = Linear()
    assert max_sensitivity(Saliency(model), inputs, TARGETS, BRAIN).tolist() == [0, 0, 0]
    np.testing.assert_allclose(noise_stability(Saliency(model), inputs, TARGETS, BRAIN), 1)
    empty = OfWeights(lambda _, x, t: torch.zeros_like(x))
    assert np.isnan(max_sensitivity(empty, inputs, 0, BRAIN)).all()
    assert np.isnan(noise_stability(empty, inputs, 0, BRAIN)).all()


def test_noise_lowers_the_correlation_of_an_image_as_theory_says():
    # of x and x + s e, both normal: 1 / sqrt(1 + s^2); the method is the image itself, above 0 throughout
    x = 50 + torch.randn(2, 1, *SHAPE)
    intensity = OfWeights(lambda _, x, t: x.detach())
    pearson = 1 / np.sqrt(1 + 0.75**2)
    expected = 6 / np.pi * np.arcsin(pearson / 2)  # Spearman of a bivariate normal
    found = noise_stability(intensity, x, 0, BRAIN, noise_sd=0.75, n_samples=8)
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_reseed_stability_by_hand():
    n = int(BRAIN.sum())  # 1400
    rng = np.random.default_rng(0)
    maps, labels = np.zeros((3, *SHAPE)), np.zeros(SHAPE, int)
    values = rng.permutation(n) + 1.0
    lower = np.where(values > n - 35, 0.5, values)  # half of the highest 5 % become the lowest
    maps[0][BRAIN], maps[1][BRAIN] = values, -lower
    labels[BRAIN] = rng.integers(0, 5, n)
    found = reseed_stability(maps[:2], BRAIN, 5.0, labels)
    assert found["dice"] == pytest.approx(0.5)
    assert found["spearman"] == pytest.approx(spearman(values, lower))
    means = [[v[labels[BRAIN] == k].mean() for k in range(1, 5)] for v in (values, lower)]
    assert found["regions"] == pytest.approx(np.corrcoef(*means)[0, 1])
    assert reseed_stability(maps, BRAIN, 5.0, labels) == pytest.approx(found)  # the third is empty
    assert np.isnan(reseed_stability(maps[[0, 2]], BRAIN)["dice"])
    with pytest.raises(ValueError, match="1 of one subject, at least two"):
        reseed_stability(maps[:1], BRAIN)


# --- similarity and randomised networks ---


def test_similarity_of_known_maps():
    rng = np.random.default_rng(0)
    a = rng.normal(size=SHAPE)
    assert similarity(a, -3 * a, BRAIN) == pytest.approx({"spearman": 1, "ssim": 1})
    unrelated = similarity(a, rng.normal(size=SHAPE), BRAIN)
    assert unrelated["spearman"] == pytest.approx(0, abs=0.08)
    assert unrelated["ssim"] == pytest.approx(ssim_of_chance(a, BRAIN), abs=0.03)
    assert np.isnan(list(similarity(0 * a, a, BRAIN).values())).all()
    assert similarity(a, 0 * a, BRAIN)["spearman"] == 0
    outside = np.where(BRAIN, a, 9)
    assert similarity(a, outside, BRAIN) == pytest.approx({"spearman": 1, "ssim": 1})


def test_ssim_of_flat_images_and_of_a_negative_by_hand():
    flat = np.full(SHAPE, 0.5)
    # variances are 0: what remains is (2 x 0.5 x 0.25 + 0.0001) / (0.25 + 0.0625 + 0.0001)
    np.testing.assert_allclose(ssim_map(flat, flat / 2), 0.2501 / 0.3126)
    checkers = np.indices(SHAPE).sum(0) % 2
    # means are 1/2 nearly everywhere, the covariance is minus the variance
    middle = ssim_map(checkers.astype(float), 1.0 - checkers)[6, 7, 8]
    assert middle == pytest.approx((-0.5 + 0.0009) / (0.5 + 0.0009), abs=1e-3)


def test_maps_are_scaled_to_their_own_percentile():
    a = np.zeros(SHAPE)
    a[BRAIN] = np.arange(1400) - 1399.0
    assert scaled(a, BRAIN).max() == 1
    assert (scaled(a, BRAIN) == 1).sum() == 7  # the highest 0.5 % of 1400
    one = np.zeros(SHAPE)
    one[5, 5, 5] = -4
    assert scaled(one, BRAIN)[5, 5, 5] == 1


def test_layers_are_randomised_from_the_output_to_the_input(toy_net, inputs):
    toy_net.norm.running_mean.fill_(3)
    before = {name: value.clone() for name, value in toy_net.state_dict().items()}
    changed = []
    names = []
    for name, model in randomized_models(toy_net, inputs[:1], random_state=7):
        names.append(name)
        state = model.state_dict()
        changed.append({key for key in state if not torch.equal(state[key], before[key])})
    assert names == ["linear", "conv2", "conv1"]
    assert changed[0] == {"linear.weight", "linear.bias"}
    assert changed[1] == changed[0] | {"conv2.weight", "conv2.bias"}
    assert changed[2] == changed[1] | {"conv1.weight", "conv1.bias", "norm.running_mean"}
    assert all(torch.equal(value, before[name]) for name, value in toy_net.state_dict().items())
    # as when they were made: uniform within 1 / sqrt(fan in)
    assert model.conv1.weight.abs().max() <= 1 / np.sqrt(27)
    again = [m for _, m in randomized_models(toy_net, inputs[:1], random_state=7)][-1]
    assert torch.equal(again.conv2.weight, model.conv2.weight)


def test_parameters_of_a_layer_without_a_reset_keep_their_values_in_another_order(inputs):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.arange(1.0, SHAPE[2] + 1))
            self.attention = nn.MultiheadAttention(SHAPE[2], 2, batch_first=True)

        def forward(self, x):
            x = (x * self.scale).mean((1, 2))
            return self.attention(x, x, x)[0].mean(1)[:, :2]

    model = Own()
    steps = [(name, m.scale.tolist()) for name, m in randomized_models(model, inputs)]
    assert [name for name, _ in steps] == ["attention", ""]  # its projection goes with it
    assert steps[0][1] == model.scale.tolist() != steps[1][1]
    assert sorted(steps[1][1]) == model.scale.tolist()
    with pytest.raises(ValueError, match="no parameters"):
        list(randomized_models(nn.Identity(), inputs))


def test_a_map_that_ignores_the_weights_keeps_similarity_1(toy_net, inputs):
    table = parameter_randomization(
        toy_net, lambda model: OfWeights(lambda _, x, t: x.detach()), inputs, TARGETS, BRAIN
    )
    assert len(table) == 3 * 3
    np.testing.assert_allclose(table[["spearman", "ssim"]], 1)
    noise = OfWeights(lambda _, x, t: torch.randn_like(x))  # drawn anew in each call: the same every time
    table = parameter_randomization(toy_net, lambda model: noise, inputs, TARGETS, BRAIN)
    np.testing.assert_allclose(table["spearman"], 1)


def test_the_gradient_of_a_linear_model_loses_all_similarity(inputs):
    table = full_randomization(parameter_randomization(Linear(), Saliency, inputs, TARGETS, BRAIN))
    assert table["subject"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(table["spearman"], 0, atol=4 / np.sqrt(BRAIN.sum()))
    np.testing.assert_allclose(table["ssim"], table["ssim_chance"], atol=0.05)


def test_a_map_that_vanishes_with_the_weights_is_not_similar(inputs):
    def of_trained(model, x, t):  # the gradient, where the model is the trained one
        return Saliency(model).attribute(x, t) * (model.linear.bias.detach()[0] == 5)

    model = Linear()
    model.linear.bias.data[0] = 5
    table = parameter_randomization(model, lambda m: OfWeights(of_trained, m), inputs, TARGETS, BRAIN)
    assert table["spearman"].tolist() == [0, 0, 0]


def test_maps_do_not_depend_on_the_batches_and_leave_the_generator_alone(toy_net, inputs):
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    together = maps_of(InputXGradient(toy_net), inputs, TARGETS)
    one_by_one = maps_of(InputXGradient(toy_net), inputs, TARGETS, batch_size=1)
    torch.testing.assert_close(together, one_by_one)
    assert torch.equal(torch.rand(1), expected)
    broken = OfWeights(lambda _, x, t: torch.where(t.view(-1, 1, 1, 1, 1) > 0, torch.nan, 1.0).expand_as(x))
    assert maps_of(broken, inputs, TARGETS).flatten(1).sum(1).tolist() == [0, np.prod(SHAPE), 0]


# --- cost ---


def test_cost_counts_seconds_per_subject_and_megabytes(inputs):
    def slow_and_large(_, x, t):
        large = torch.ones(200 * 2**18)  # 200 MB
        time.sleep(0.3)
        return x * large[0]

    def small(_, x, t):
        return x

    cost(OfWeights(small), inputs, 0)
    little, much = cost(OfWeights(small), inputs, 0), cost(OfWeights(slow_and_large), inputs, 0)
    again = cost(OfWeights(small), inputs, 0)
    assert 0.1 < much["seconds"] < 1.0
    assert little["seconds"] < 0.1
    if np.isfinite(much["peak_mb"]):  # Linux
        assert 195 < much["peak_mb"] - little["peak_mb"] < 260
        assert again["peak_mb"] - little["peak_mb"] < 50  # the peak before is forgotten


def test_memory_is_unknown_where_the_system_does_not_tell(inputs, monkeypatch, tmp_path):
    monkeypatch.setattr(cost_module, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    assert np.isnan(cost(OfWeights(lambda _, x, t: x), inputs, 0)["peak_mb"])

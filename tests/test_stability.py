"""Whether maps stay as they are: noise, other seeds; and what they cost."""

from __future__ import annotations

import time

import captum.metrics
import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, Saliency
from conftest import SHAPE
from toy_methods import BRAIN, TARGETS, Linear, OfWeights

from xai_brain.metrics import cost as cost_module
from xai_brain.metrics.comparison.agreement import spearman
from xai_brain.metrics.comparison.stability import (
    UNRELATED,
    max_sensitivity,
    noise_stability,
    reseed_stability,
)
from xai_brain.metrics.cost import cost


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
    # the third is empty: a mean over the other two would be one of fewer seeds than it seems
    assert np.isnan(list(reseed_stability(maps, BRAIN, 5.0, labels).values())).all()
    assert np.isnan(reseed_stability(maps[[0, 2]], BRAIN)["dice"])
    with pytest.raises(ValueError, match="1 of one subject, at least two"):
        reseed_stability(maps[:1], BRAIN)


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

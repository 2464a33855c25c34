"""Meaningful perturbation: where masks lie, what they are applied to, and the blur."""

from __future__ import annotations

import pytest
import torch
from all_methods import reference_for
from conftest import SHAPE, boxed_reference
from torch import nn

from xai_brain.attribution import ClassScore, MeaningfulPerturbation
from xai_brain.attribution.perturbation.replacement import gaussian_blur


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

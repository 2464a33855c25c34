"""What replaces tissue: sizes in mm, classes, mixtures."""

from __future__ import annotations

import pytest
import torch
from conftest import BOX, SHAPE, boxed_reference
from torch import nn

from xai_brain.attribution import (
    MeaningfulPerturbation,
)
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.replacement import FILLS, ReplacementVolumes, kan2020_blur, mixed


@pytest.mark.parametrize("name", FILLS)
def test_every_fill_is_a_volume_per_subject_and_repeats(name, inputs):
    fills = ReplacementVolumes(name, boxed_reference(), blur_sigma_mm=4.0)
    brain, targets = torch.ones_like(inputs[:1]), torch.tensor([0, 1, 1])
    twice = [fills.make(inputs, targets, brain, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert twice[0].shape == (1, *inputs.shape)
    assert torch.equal(*twice)
    assert not torch.equal(twice[0][0], inputs)


def test_blur_is_in_mm(inputs):
    point = torch.zeros(1, 1, 41, 41, 41)
    point[..., 20, 20, 20] = 1
    fills = ReplacementVolumes("blur", None, blur_sigma_mm=6.0, voxel_size_mm=(2.0, 3.0, 4.0))
    blurred = fills.make(point, torch.tensor([0]), torch.ones_like(point), torch.Generator())[
        0, 0, 0
    ].double()
    grid = torch.meshgrid(*[torch.arange(41.0) - 20] * 3, indexing="ij")
    sd_mm = [
        ((blurred * axis**2).sum() / blurred.sum()).sqrt() * size
        for axis, size in zip(grid, (2, 3, 4), strict=True)
    ]
    assert sd_mm == pytest.approx([6, 6, 6], rel=0.01)


def test_the_published_blur_is_a_centred_box_with_zeros_outside(inputs):
    point = torch.zeros(1, 1, 15, 16, 17)
    point[..., 7, 8, 9] = 1
    blurred = kan2020_blur(point)[0, 0].double()
    for axis, place in enumerate((7, 8, 9)):
        positions = torch.arange(point.shape[axis + 2])
        weights = blurred.sum([other for other in range(3) if other != axis])
        mean = (weights * positions).sum() / weights.sum()
        sd = ((weights * (positions - mean) ** 2).sum() / weights.sum()).sqrt()
        assert (float(mean), float(sd)) == pytest.approx((place, 2**0.5), abs=1e-5)
    kernel = torch.full((1, 1, 5, 5, 5), 1 / 125)
    torch.testing.assert_close(kan2020_blur(inputs), nn.functional.conv3d(inputs, kernel, padding=2))


def test_nearest_counterfactual_is_of_the_other_class_and_near():
    reference = boxed_reference(n=20)
    near = reference.volumes[1] + 0.01  # nearly a subject of class 1
    fill = reference.nearest_counterfactual(near[None], torch.tensor([0]), torch.ones(1, 1, *SHAPE), 1)
    assert torch.equal(fill[0], reference.volumes[1])
    fill = reference.nearest_counterfactual(near[None], torch.tensor([1]), torch.ones(1, 1, *SHAPE), 5)
    assert fill[0, 0][BOX].mean() < 0.2  # class 0 has no box


def test_mixture_is_convex_and_new_at_every_step():
    generator = torch.Generator().manual_seed(0)
    weights = ReplacementVolumes(["zero", "noise"], None, 1.0).mixtures(20, generator)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(20))
    assert weights[:, 0].std() > 0.1
    fills = torch.stack([torch.zeros(20, 1, *SHAPE), torch.ones(20, 1, *SHAPE)], 1)
    torch.testing.assert_close(mixed(fills, weights).mean((1, 2, 3, 4)), weights[:, 1])
    assert torch.equal(mixed(fills[:, :1], weights[:, :1]), fills[:, 0])  # of one kind: as it is


def test_fill_that_cannot_be_made_is_refused(toy_net):
    with pytest.raises(AttributionError, match="needs reference"):
        MeaningfulPerturbation(toy_net, fill="training_mean")
    with pytest.raises(AttributionError, match="give voxel_size_mm"):
        MeaningfulPerturbation(toy_net)
    with pytest.raises(AttributionError, match="one of counterfactual_mean"):
        MeaningfulPerturbation(toy_net, fill="bluur")
    with pytest.raises(AttributionError, match="one of deletion, preservation, both"):
        MeaningfulPerturbation(toy_net, mode="deletoin")
    with pytest.raises(AttributionError, match="only fill='kan2020_blur' with mode='deletion'"):
        MeaningfulPerturbation(toy_net, fill="zero", moving="image")
    with pytest.raises(AttributionError, match="only fill='kan2020_blur' with mode='deletion'"):
        MeaningfulPerturbation(toy_net, fill="kan2020_blur", mode="preservation", moving="image")

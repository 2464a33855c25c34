"""RISE, KernelSHAP and supervoxels: definitions, exact Shapley values and other packages."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import captum.attr
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SHAPE, boxed_reference
from known_networks import WEIGHTS, Linear, reference_of
from scipy import ndimage
from torch import nn

from xai_brain.attribution import RISE, KernelShap
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.masks import smooth_masks
from xai_brain.attribution.perturbation.regions import spread_evenly, supervoxels
from xai_brain.attribution.perturbation.shapley import draw_coalitions, shapley_values

AFFINE = torch.eye(4, dtype=torch.float64)


# -- RISE -----------------------------------------------------------------------------------------------


def interpolated(cells, shift, cell_voxels, shape):
    """A mask by scipy: trilinear between the centres of the cells, moved by a part of a cell."""
    voxels = [
        (np.arange(n) + 0.5) / cell - 0.5 + s
        for n, cell, s in zip(shape, cell_voxels, shift.tolist(), strict=True)
    ]
    places = np.stack(np.meshgrid(*voxels, indexing="ij"))
    mask = ndimage.map_coordinates(cells.double().numpy(), places, order=1, mode="nearest")
    return torch.from_numpy(mask).float()


def test_rise_is_the_published_sum_over_the_same_masks_without_its_mean(toy_net, inputs):
    reference = boxed_reference()
    reference.brain_mask[:3] = False
    method = RISE(toy_net, reference, n_masks=7, kept=0.4, cell_mm=9, chunk_size=3)
    maps = method.attribute(inputs, 0)
    brain, fill = reference.brain_mask, reference.class_means[1]  # of class 0: the mean of class 1
    for volume, map_ in zip(inputs, maps, strict=True):
        cells, shifts = method._draw(volume)
        masks = [interpolated(*drawn, [4.5] * 3, SHAPE)[None] for drawn in zip(cells, shifts, strict=True)]
        published, mean_mask, scores = torch.zeros(SHAPE), torch.zeros(SHAPE), []
        for mask in masks:
            kept = torch.where(brain, mask, 1.0)
            score = toy_net((kept * volume + (1 - kept) * fill)[None])[0, 0].item()
            scores.append(score)
            published += score * mask[0] / (7 * 0.4)
            mean_mask += mask[0] / (7 * 0.4)
        expected = brain * (published - np.mean(scores) * mean_mask)
        torch.testing.assert_close(map_[0], expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_masks_are_cropped_from_interpolated_cells():
    """As published: cells are enlarged by a whole number and the result is moved by whole voxels."""
    cells = (torch.rand(2, 4, 5, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    moves, cell = torch.tensor([[0, 2, 3], [1, 0, 2]]), 4
    masks = smooth_masks(cells, moves / cell, [cell] * 3, (12, 16, 20))
    for mask, drawn, (x, y, z) in zip(masks, cells, moves.tolist(), strict=True):
        enlarged = nn.functional.interpolate(
            drawn[None, None], scale_factor=cell, mode="trilinear", align_corners=False
        )
        torch.testing.assert_close(mask, enlarged[0, :, x : x + 12, y : y + 16, z : z + 20])


def test_rise_of_a_linear_network_is_proportional_to_the_contributions(few):
    """The expected map is (1 - kept) times the contributions, smoothed by the covariance of the masks."""
    method = RISE(Linear(), n_masks=20000, kept=0.5, cell_mm=1, voxel_size_mm=(1, 1, 1), chunk_size=1000)
    maps = method.attribute(few, 1)
    along = torch.tensor([1 / 6, 2 / 3, 1 / 6])  # of two cells, weighted by s and 1 - s for uniform s
    kernel = torch.einsum("i,j,k->ijk", along, along, along)[None, None]
    expected = 0.5 * nn.functional.conv3d(few * WEIGHTS, kernel, padding=1)
    for map_, truth in zip(maps, expected, strict=True):
        assert float((map_ - truth).norm() / truth.norm()) < 0.12
        assert np.corrcoef(map_.flatten(), truth.flatten())[0, 1] > 0.99


def test_rise_of_a_constant_network_is_zero(inputs):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.stack([0 * x.mean((1, 2, 3, 4)) + 7, 0 * x.mean((1, 2, 3, 4))], 1)

    maps = RISE(Constant(), n_masks=20, voxel_size_mm=(2, 2, 2)).attribute(inputs, 0)
    assert not maps.any()  # the published map would be 7 times the mean of the masks


def test_rise_refuses_settings_without_meaning(toy_net):
    for wrong in ({"n_masks": 1}, {"kept": 0.0}, {"kept": 1.0}):
        with pytest.raises(AttributionError, match="RISE needs two masks or more, and kept between 0 and 1"):
            RISE(toy_net, boxed_reference(), **wrong)
    with pytest.raises(AttributionError, match="cell_mm=0: a length above 0 mm"):
        RISE(toy_net, boxed_reference(), cell_mm=0)
    with pytest.raises(AttributionError, match="cell_mm=24 is in mm: give voxel_size_mm or a reference"):
        RISE(toy_net)


# -- KernelSHAP -----------------------------------------------------------------------------------------


def exact_shapley_values(value, n):
    """Mean increase of the value of a set of players over all orders."""
    orders = list(permutations(range(n)))
    values = [0.0] * n
    for order in orders:
        for k, player in enumerate(order):
            values[player] += (value(order[: k + 1]) - value(order[:k])) / len(orders)
    return values


def quarters(shape):
    """Regions 3, 5, 6 and 9, and a part without a region."""
    labels = np.zeros(shape, np.int16)
    labels[:2, :3], labels[2:, :3], labels[:2, 3:], labels[2:, 3:] = 3, 5, 6, 9
    labels[:, :, -1] = 0
    return labels, nib.Nifti1Image(labels, AFFINE.numpy())


NAMES = pd.DataFrame({"index": [3, 5, 6, 9], "name": list("abcd")})


class Interaction(nn.Module):
    """Not additive: products of the means of quarters, and a maximum."""

    def forward(self, x):
        a, b = x[:, 0, :2, :3].mean((1, 2, 3)), x[:, 0, 2:, :3].mean((1, 2, 3))
        c, d = x[:, 0, :2, 3:].mean((1, 2, 3)), x[:, 0, 2:, 3:].mean((1, 2, 3))
        return torch.stack([10 * a * b + 3 * torch.maximum(c, d) + 40 * a * c * d, a], 1)


def region_sums(map_, labels):
    return torch.tensor([float(map_[0][torch.from_numpy(labels == label)].sum()) for label in NAMES["index"]])


def test_kernel_shap_of_a_network_with_interactions_is_exact(few):
    labels, image = quarters(few.shape[2:])
    reference = reference_of(few + 1, affine=AFFINE)
    method = KernelShap(Interaction(), reference, image, NAMES, fill="training_mean")
    maps = method.attribute(few, 0)
    fill = reference.class_means.mean(0)
    for volume, map_ in zip(few, maps, strict=True):

        def decrease(players, volume=volume):
            replaced = torch.from_numpy(np.isin(labels, [NAMES["index"][k] for k in players]))
            changed = torch.where(replaced, fill, volume)
            return float(Interaction()(volume[None])[0, 0] - Interaction()(changed[None])[0, 0])

        expected = torch.tensor(exact_shapley_values(decrease, 4))
        torch.testing.assert_close(region_sums(map_, labels), expected, rtol=1e-3, atol=1e-4)
        single = torch.tensor([decrease([k]) for k in range(4)])
        assert not torch.allclose(single, expected, rtol=0.05)  # region ablation differs
        assert not map_[0][labels == 0].any()
        for label in (3, 5, 6, 9):
            assert map_[0][labels == label].unique().numel() == 1


@pytest.mark.parametrize("settings", [{"size_mm": 2.0}, {"size_mm": 99.0}, {"labels_img": "quarters"}])
def test_kernel_shap_of_a_linear_network_is_the_contribution_of_each_region(settings, few):
    labels, image = quarters(few.shape[2:])
    if "labels_img" in settings:
        settings = {"labels_img": image, "table": NAMES}
    reference = reference_of(few + 1, affine=AFFINE)
    method = KernelShap(Linear(), reference, fill="zero", n_samples=200, contrast=0.0, **settings)
    maps = method.attribute(few, torch.tensor([1, 0]))
    regions = (
        torch.from_numpy(labels).long()
        if "labels_img" in settings
        else supervoxels(few[0], reference.brain_mask, method.size_voxels, 0.0)
    )
    assert len(regions.unique()) == {2.0: 24, 99.0: 1}.get(settings.get("size_mm"), 5)
    for volume, map_, sign in zip(few, maps, (1, -1), strict=True):
        for k in regions[regions > 0].unique():
            contribution = sign * (volume * WEIGHTS)[0][regions == k].sum()
            torch.testing.assert_close(map_[0][regions == k].sum(), contribution, rtol=1e-3, atol=1e-4)


def test_kernel_shap_is_captums(toy_net, inputs):
    labels = np.zeros(SHAPE, np.int16)
    labels[:6, :7], labels[6:, :7], labels[:6, 7:], labels[6:, 7:] = 3, 5, 6, 9
    reference = replace(boxed_reference(), affine=AFFINE)
    toy_net.linear.weight.data *= 10
    method = KernelShap(toy_net, reference, nib.Nifti1Image(labels, np.eye(4)), NAMES, fill="zero")
    maps = method.attribute(inputs[:1], 1)
    numbers = torch.from_numpy(np.searchsorted([3, 5, 6, 9], labels))[None, None]
    torch.manual_seed(1)
    captums = captum.attr.KernelShap(toy_net).attribute(
        inputs[:1], 0, 1, feature_mask=numbers, n_samples=800, perturbations_per_eval=100
    )
    found = torch.stack([maps[numbers == k].sum() for k in range(4)])
    expected = torch.stack([captums[numbers == k][0] for k in range(4)])  # every voxel has the whole value
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def game(n):
    """A value of sets of players with pairs that interact."""
    generator = torch.Generator().manual_seed(4)
    own = torch.randn(n, generator=generator).double()
    pairs = torch.randn(n, n, generator=generator).double().triu(1)
    exact = own + (pairs + pairs.T).sum(1) / 2  # each of a pair gets half
    return lambda sets: sets.double() @ own + ((sets.double() @ pairs) * sets.double()).sum(1), exact


@pytest.mark.parametrize(
    ("n", "n_samples", "tolerance"), [(1, 10, 1e-9), (6, 62, 1e-9), (7, 1, 1e-9), (30, 1, 1e-9)]
)
def test_shapley_values_of_pairs(n, n_samples, tolerance):
    """Exact with all sets; and, for interactions of pairs, with random sets and their complements."""
    value, exact = game(n)
    sets, weights = draw_coalitions(n, n_samples, seed=3)
    total = value(torch.ones(1, n))
    values = shapley_values(sets, weights, value(sets), total)
    assert float(values.sum()) == pytest.approx(float(total))
    torch.testing.assert_close(values, exact, rtol=0, atol=tolerance * float(exact.abs().max()))


def test_sets_are_drawn_in_pairs_with_the_sizes_of_the_shapley_kernel():
    sets, weights = draw_coalitions(8, 2**8 - 2, seed=0)
    assert sets.unique(dim=0).shape == (254, 8)
    size = sets.sum(1)
    expected = torch.stack([weights[size == k].sum() for k in range(1, 8)])  # (n - 1) / (k (n - k))
    torch.testing.assert_close(expected, torch.tensor([7 / (k * (8 - k)) for k in range(1, 8)]).double())
    sets, weights = draw_coalitions(8, 253, seed=0)
    assert sets.shape == (254, 8)
    assert torch.equal(sets[:127], ~sets[127:])
    many = draw_coalitions(20, 40000, seed=0)[0].sum(1)
    share = torch.stack([(many == k).double().mean() for k in range(1, 20)])
    kernel = torch.tensor([1 / (k * (20 - k)) for k in range(1, 20)]).double()
    torch.testing.assert_close(share, kernel / kernel.sum(), rtol=0.1, atol=0)
    assert len(draw_coalitions(20, 1, seed=0)[0]) == 160  # eight for each player


def test_kernel_shap_refuses_settings_without_meaning(toy_net):
    image = quarters(SHAPE)[1]
    for reference in (None, boxed_reference()):
        with pytest.raises(AttributionError, match=r"an atlas needs Reference\(\.\.\., affine="):
            KernelShap(toy_net, reference, image, NAMES, voxel_size_mm=(1, 1, 1))
    with pytest.raises(AttributionError, match="KernelShap needs at least 0 and 1"):
        KernelShap(toy_net, boxed_reference(), n_samples=0)
    with pytest.raises(AttributionError, match="size_mm=30 is in mm: give voxel_size_mm or a reference"):
        KernelShap(toy_net)


def test_a_volume_without_a_brain_has_an_empty_map(toy_net, inputs):
    inputs[1] = 0
    maps = KernelShap(toy_net, voxel_size_mm=(8, 8, 8), n_samples=2).attribute(inputs, 1)
    assert not maps[1].any()
    assert maps[0].any()


# -- supervoxels ----------------------------------------------------------------------------------------


def test_supervoxels_divide_the_brain_and_follow_edges():
    volume = 0.05 * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    volume[:, :, :5] += 4  # an edge inside of boxes
    brain = torch.ones(SHAPE, dtype=torch.bool)
    brain[:2] = False
    regions = supervoxels(volume, brain, [4.0] * 3, 3.0)
    assert torch.equal(regions > 0, brain)
    assert torch.equal(regions.unique(), torch.arange(int(regions.max()) + 1))
    bright = regions[:, :5][brain[:, :5]].unique()
    dark = regions[:, 5:][brain[:, 5:]].unique()
    assert not set(bright.tolist()) & set(dark.tolist())
    blind = supervoxels(volume, brain, [4.0] * 3, 0.0)
    assert set(blind[:, 4].unique().tolist()) & set(blind[:, 5].unique().tolist()) - {0}
    assert torch.equal(blind, supervoxels(torch.zeros_like(volume), brain, [4.0] * 3, 0.0))
    extent = [(regions == k).nonzero().float().std(0).max() for k in range(1, int(regions.max()) + 1)]
    assert max(extent) < 4  # compact


def test_values_are_spread_evenly_over_regions_and_channels():
    regions = torch.tensor([[[0, 1, 1, 2]]])
    map_ = spread_evenly(torch.tensor([6.0, -2.0]), regions, n_channels=2)
    assert map_.tolist() == [[[0.0, 1.5, 1.5, -1.0]]]


def test_regions_of_two_channels_are_replaced_together():
    """The score is the sum of both channels: a region loses both, shared by all of their voxels."""

    class Sum(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum((1, 2, 3, 4)), -x.sum((1, 2, 3, 4))], 1)

    volumes = torch.rand(2, 2, 4, 6, 8, generator=torch.Generator().manual_seed(1)) + 0.1
    method = KernelShap(Sum(), voxel_size_mm=(1, 1, 1), size_mm=2, contrast=0.0, n_samples=60)
    maps = method.attribute(volumes, 0)
    torch.testing.assert_close(maps.sum((1, 2, 3, 4)), volumes.sum((1, 2, 3, 4)), rtol=1e-4, atol=1e-3)
    assert torch.equal(maps[:, 0], maps[:, 1])
    block = maps[0, :, :2, :2, :2].sum()
    torch.testing.assert_close(block, volumes[0, :, :2, :2, :2].sum(), rtol=1e-3, atol=1e-3)
    rise = RISE(Sum(), voxel_size_mm=(1, 1, 1), cell_mm=2, n_masks=50).attribute(volumes, 0)
    assert torch.equal(rise[:, 0], rise[:, 1])

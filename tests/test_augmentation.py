"""Random changes of training volumes: geometry in mm, exactness, statistics, repeatability."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import norm

from xai_brain.data.augmentation import Augmentation, move, rotation, spline_basis

SHAPE = (20, 24, 28)
SIZE_MM = (3.0, 2.0, 2.5)
EVERYTHING = {
    "max_shift_mm": 4.0,
    "max_rotation_degrees": 8.0,
    "max_scaling": 0.05,
    "elastic_sd_mm": 1.5,
    "flip_probability": 0.5,
    "intensity_sd": 0.1,
    "gamma_sd": 0.1,
    "bias_field_sd": 0.2,
    "noise_sd": 0.1,
}


def centres():
    """Coordinates of all voxels in mm from the grid's centre, (X, Y, Z, 3)."""
    axes = [(torch.arange(n) - (n - 1) / 2) * size for n, size in zip(SHAPE, SIZE_MM, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def blob(at_mm, sd_mm=4.0):
    return torch.exp(-((centres() - torch.tensor(at_mm)) ** 2).sum(-1) / (2 * sd_mm**2))[None, None]


def centre_of(volume):
    """Centre of mass in mm."""
    return (centres() * volume[0, 0, ..., None]).sum((0, 1, 2)) / volume.sum()


def brains(n=2, seed=0):
    """z-scored texture inside an ellipsoid, 0 outside."""
    generator = torch.Generator().manual_seed(seed)
    inside = ((centres() / torch.tensor([20.0, 17.0, 25.0])) ** 2).sum(-1) < 1
    volumes = torch.zeros(n, 1, *SHAPE)
    for volume in volumes:
        values = torch.randn(int(inside.sum()), generator=generator)
        volume[0][inside] = (values - values.mean()) / values.std(correction=0)
    return volumes, inside


def test_of_no_strength_it_changes_nothing():
    volumes, _ = brains()
    assert Augmentation(voxel_size_mm=SIZE_MM)(volumes) is volumes
    same = move(volumes, torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3), SIZE_MM, torch.zeros(2, 3, *SHAPE))
    torch.testing.assert_close(same, volumes, atol=2e-5, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_by_one_voxel_is_exact_and_goes_the_right_way(axis):
    volumes = torch.randn(1, 1, *SHAPE)
    shift = torch.zeros(1, 3)
    shift[0, axis] = SIZE_MM[axis]
    moved = move(volumes, torch.eye(3)[None], shift, SIZE_MM)
    n = SHAPE[axis]
    torch.testing.assert_close(
        moved.narrow(axis + 2, 1, n - 1), volumes.narrow(axis + 2, 0, n - 1), atol=2e-5, rtol=0
    )
    assert moved.narrow(axis + 2, 0, 1).abs().max() < 2e-5  # zeros come in


@pytest.mark.parametrize(
    ("angles", "scales", "shift", "goes_to"),
    [
        ((0, 0, 0), (1, 1, 1), (3.0, -2.0, 1.5), (9.0, 2.0, -3.5)),
        ((90, 0, 0), (1, 1, 1), (0.0, 0.0, 0.0), (6.0, 5.0, 4.0)),  # y to z, z to -y
        ((0, 90, 0), (1, 1, 1), (0.0, 0.0, 0.0), (-5.0, 4.0, -6.0)),  # z to x, x to -z
        ((0, 0, 90), (1, 1, 1), (0.0, 0.0, 0.0), (-4.0, 6.0, -5.0)),  # x to y, y to -x
        ((0, 0, 0), (1.2, 0.9, 1.1), (0.0, 0.0, 0.0), (7.2, 3.6, -5.5)),
        ((0, 0, 90), (1.2, 1, 1), (1.0, 2.0, 0.0), (-3.0, 9.2, -5.0)),  # scaled, turned, then shifted
    ],
)
def test_a_point_goes_where_the_matrix_sends_it(angles, scales, shift, goes_to):
    turn = rotation(torch.deg2rad(torch.tensor([angles], dtype=torch.float32)))
    matrix = turn * torch.tensor(scales, dtype=torch.float32)
    moved = move(blob((6.0, 4.0, -5.0)), matrix, torch.tensor([shift]), SIZE_MM)
    assert torch.linalg.norm(centre_of(moved) - torch.tensor(goes_to)) < 0.3  # mm, an eighth of a voxel


def test_every_volume_moves_within_its_limits_and_by_itself():
    point = (3.0, -2.0, 4.0)
    augmentation = Augmentation(max_shift_mm=5.0, voxel_size_mm=SIZE_MM)
    moved = augmentation(blob(point).repeat(40, 1, 1, 1, 1))
    shifts = torch.stack([centre_of(volume[None]) for volume in moved]) - torch.tensor(point)
    assert shifts.abs().max() < 5.2
    assert (shifts.std(0) - 5 / math.sqrt(3)).abs().max() < 0.8  # uniform
    turned = Augmentation(max_rotation_degrees=10.0, voxel_size_mm=SIZE_MM)(
        blob(point).repeat(20, 1, 1, 1, 1)
    )
    radii = torch.stack([torch.linalg.norm(centre_of(volume[None])) for volume in turned])
    assert (radii - math.dist(point, (0, 0, 0))).abs().max() < 0.2  # about the centre


def test_the_flip_is_exact_and_of_the_share_asked_for():
    volumes, _ = brains(1)
    volumes = volumes.repeat(400, 1, 1, 1, 1)
    flipped = Augmentation(flip_probability=0.25)(volumes)
    is_flipped = (flipped == volumes.flip(2)).flatten(1).all(1)
    assert (is_flipped | (flipped == volumes).flatten(1).all(1)).all()
    assert 0.17 < is_flipped.float().mean() < 0.33
    assert torch.equal(Augmentation(flip_probability=1.0)(volumes[:3]), volumes[:3].flip(2))


@pytest.mark.parametrize("n_intervals", [1.0, 3.7, 9.0])
def test_smooth_fields_have_the_standard_deviation_asked_for_everywhere(n_intervals):
    basis = spline_basis(29, n_intervals)
    torch.testing.assert_close(basis.square().sum(1), torch.ones(29))
    assert (basis >= 0).all()
    augmentation = Augmentation(voxel_size_mm=SIZE_MM)
    augmentation(torch.zeros(1, 1, *SHAPE))
    field = augmentation._smooth_field(torch.zeros(2000, 1, 5, 6, 7), 1, 8.0)
    assert field.shape == (2000, 1, 5, 6, 7)
    assert (field.std(0) - 1).abs().max() < 5 * norm.ppf(0.99) / math.sqrt(2 * 2000)


def test_the_strongest_bend_that_is_allowed_does_not_fold():
    augmentation = Augmentation(voxel_size_mm=SIZE_MM)
    augmentation(torch.zeros(1, 1, *SHAPE))
    displacement = 4.0 * augmentation._smooth_field(torch.zeros(8, 1, *SHAPE), 3, 32.0)  # 32 / 8
    where = centres().movedim(-1, 0)[None] + displacement  # (N, 3, X, Y, Z)
    jacobian = torch.stack(torch.gradient(where, spacing=SIZE_MM, dim=(2, 3, 4)), -1)  # (N, 3, X, Y, Z, 3)
    assert torch.linalg.det(jacobian.movedim(1, -2)).min() > 0


def test_one_seed_one_result():
    volumes, _ = brains()

    def stream(seed):
        augmentation = Augmentation(**EVERYTHING, voxel_size_mm=SIZE_MM, seed=seed)
        torch.rand(seed + 1)  # what others draw does not matter
        return [augmentation(volumes), augmentation(volumes)]

    first, second = stream(3)
    again = stream(3)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, stream(4)[0])


@pytest.mark.parametrize("name", ["intensity_sd", "gamma_sd", "bias_field_sd", "noise_sd"])
def test_intensities_change_in_the_brain_only(name):
    volumes, inside = brains(4)
    before = volumes.clone()
    changed = Augmentation(**{name: 0.2}, voxel_size_mm=SIZE_MM)(volumes)
    assert torch.equal(volumes, before)  # what was given stays
    assert (changed[:, 0][:, ~inside] == 0).all()
    assert (changed != volumes)[:, 0][:, inside].float().mean() > 0.99


def test_strengths_are_standard_deviations_of_the_brain():
    volumes, inside = brains(200)
    brain = volumes[:, 0][:, inside]

    def changed(**strength):
        return Augmentation(**strength, voxel_size_mm=SIZE_MM)(10 * volumes)[:, 0][:, inside] / 10

    assert (changed(noise_sd=0.3) - brain).std().item() == pytest.approx(0.3, rel=0.02)
    recoloured = changed(intensity_sd=0.2)
    assert recoloured.mean(1).std().item() == pytest.approx(0.2, rel=0.2)  # offset
    assert recoloured.std(1).std().item() == pytest.approx(0.2, rel=0.2)  # gain
    low = brain.amin(1, keepdim=True)
    factor = (changed(bias_field_sd=0.2) - low) / (brain - low)
    logs = factor[(brain - low) > 1].log()
    assert logs.std().item() == pytest.approx(0.2, rel=0.1)
    gamma = changed(gamma_sd=0.3)
    for bent, straight in zip(gamma[:20], brain[:20], strict=True):  # order and range are kept
        assert (bent[straight.argsort()].diff() >= -1e-5).all()
        assert bent.max().item() == pytest.approx(straight.max().item(), abs=1e-4)
        assert bent.min().item() == pytest.approx(straight.min().item(), abs=1e-4)


def test_everything_together_stays_finite_also_without_a_brain():
    volumes, _ = brains()
    volumes[1] = 0
    changed = Augmentation(**EVERYTHING, voxel_size_mm=SIZE_MM)(volumes)
    assert changed.shape == volumes.shape
    assert changed.isfinite().all()
    assert (changed[1] == 0).all()
    assert changed[0, 0, 0, 0, 0] == 0
    still = changed[0] != 0
    assert 0.7 < still.sum() / (volumes[0] != 0).sum() < 1.6  # a brain is still about as large

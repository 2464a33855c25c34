"""Deformations and their edges: volumes, Jacobian determinants, sides, soft transitions."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from planted_cohort import GRID, LEFT, RIGHT, WORLD, volumes, write_cohort
from scipy import ndimage

from xai_brain.config.planted_effect import PlantedEffect, PlantedError
from xai_brain.data.planted.changes import Deformation, soft_region
from xai_brain.data.planted.effects import plant
from xai_brain.data.planted.local_change import jacobian_determinant
from xai_brain.data.planted.placement import place_of, sphere, world_mm
from xai_brain.io.nifti import Grid


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("prepared"))


@pytest.mark.parametrize(("kind", "size"), [("atrophy", 30.0), ("atrophy", 10.0), ("expansion", 40.0)])
def test_volume_and_jacobian_are_what_was_asked(kind, size):
    grid = Grid("fine", (59, 61, 57), np.diag([1.0, 1.0, 1.0, 1.0]))
    center = np.array([29.0, 30.0, 28.0])
    settings = PlantedEffect(kind, size=size, center_mm=list(center), radius_mm=10.0, variation=0.2)
    place = place_of(settings)
    deformation = Deformation(place, grid, settings)
    change = size / 100 * (-1 if kind == "atrophy" else 1)
    world = world_mm(grid)
    radius = np.linalg.norm(world - center, axis=-1)
    # the Jacobian: constant where the content of the region is, above 0 all around
    pullback = jacobian_determinant(lambda x: deformation.pullback(x, change), world.reshape(-1, 3))
    pullback = pullback.reshape(grid.shape)
    content = radius < 10 * (1 + change) ** (1 / 3) - 0.5
    np.testing.assert_allclose(1 / pullback[content], 1 + change, rtol=1e-6)
    assert pullback.min() > 0
    assert np.array_equal(
        deformation.pullback(world, change)[~deformation.zone], world[~deformation.zone]
    )  # nothing moves outside
    # a ball drawn into a volume and moved with it, at half and full strength
    ball = (np.clip(10 - radius, -1.5, 1.5) / 3 + 0.5).astype(np.float64)
    everything = np.ones(grid.shape, bool)
    for strength in (0.5, 1.0):
        moved = deformation.changed(ball, everything, strength, size)
        assert moved.sum() / ball.sum() - 1 == pytest.approx(strength * change, rel=0.05)


def elongated(spacing=2.0):
    """An ellipsoid of 40 x 14 x 12 mm, oblique, as a mask on its own grid."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [-60, -45, -20]
    world = world_mm(Grid("mask", (40, 41, 42), affine)) - [-24.0, -8.0, 18.0]
    turn = np.array([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    return nib.Nifti1Image((((world @ turn.T) / [20, 7, 6]) ** 2).sum(-1).__lt__(1).astype(np.uint8), affine)


def test_a_masks_volume_changes_as_asked(tmp_path):
    path = tmp_path / "mask.nii.gz"
    elongated().to_filename(path)
    settings = PlantedEffect("atrophy", size=20, mask_img=str(path), variation=0.0)
    place = place_of(settings)
    np.testing.assert_allclose(place.center_mm, [-24, -8, 18], atol=0.3)
    assert place.volume_ml == pytest.approx(4 / 3 * np.pi * 2 * 0.7 * 0.6, rel=0.1)
    assert place.deepest_mm == pytest.approx(6, abs=1.5)  # its surface is known to a part of 2 mm
    grid = Grid("fine", (91, 89, 87), np.diag([1.0, 1.0, 1.0, 1.0]))
    grid.affine[:3, 3] = [-69, -52, -25]
    deformation = Deformation(place, grid, settings)
    label = place.depth_mm(world_mm(grid)) > 0
    moved = deformation.changed(label.astype(float), np.ones(grid.shape, bool), 1.0, 20)
    assert moved.sum() / label.sum() - 1 == pytest.approx(-0.2, rel=0.05)


@pytest.mark.parametrize("region", ["Right_thing", 7])
def test_a_region_of_an_atlas_is_on_its_side(cohort, tmp_path, region):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-60, -66, -30]
    world = world_mm(Grid("atlas", (61, 60, 52), affine))
    labels = np.zeros(world.shape[:3], np.int16)
    labels[np.linalg.norm(world - LEFT, axis=-1) < 11] = 3
    labels[np.linalg.norm(world - RIGHT, axis=-1) < 11] = 7
    nib.Nifti1Image(labels, affine).to_filename(tmp_path / "labels.nii.gz")
    table = tmp_path / "names.tsv"
    table.write_text("index\tname\n3\tLeft_thing\n7\tRight_thing\n")
    settings = PlantedEffect(
        "atrophy",
        size=20,
        labels_img=str(tmp_path / "labels.nii.gz"),
        table=str(table),
        region=region,
    )
    place = place_of(settings)
    np.testing.assert_allclose(place.center_mm, RIGHT, atol=0.2)
    assert place.volume_ml == pytest.approx((labels == 7).sum() * 0.008, rel=0.01)
    planted = plant(cohort.head(4), settings, GRID, cache_dir=tmp_path)
    changed = (volumes(planted) != volumes(planted, "source_volume_path")).any(axis=0)
    np.testing.assert_allclose(WORLD[changed].mean(axis=0), RIGHT, atol=1.5)
    with pytest.raises(ValueError, match="Right_thing"):
        place_of(replace(settings, region="Right_thin"))


def test_soft_edges_are_round_and_have_no_step():
    place = sphere(LEFT, 12.0)
    fine = Grid("fine", (71, 73, 75), np.diag([0.5, 0.5, 0.5, 1.0]))
    fine.affine[:3, 3] = np.array(LEFT) - 18
    profile = soft_region(place, fine, None).profile
    radius = np.linalg.norm(world_mm(fine) - LEFT, axis=-1)
    # the same all around: a function of the radius alone
    np.testing.assert_allclose(profile, np.interp(radius, *_half_cosine(6.0, 12.0)), atol=2e-4)
    steps = [np.abs(np.diff(profile, axis=axis)).max() for axis in range(3)]
    assert max(steps) < 0.5 * np.pi / 2 / 6 * 1.01  # steepest slope of the cosine, per half millimetre
    # no kink either: the second difference is that of the cosine
    assert np.abs(np.diff(profile, n=2, axis=0)).max() < 0.5 * (np.pi / 6) ** 2 * 0.5**2 * 1.05


def _half_cosine(inner, outer):
    radius = np.linspace(0, 40, 40001)
    return radius, 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - inner) / (outer - inner), 0, 1))


def test_the_edge_of_a_mask_is_soft():
    place = place_of_elongated()
    fine = Grid("fine", (61, 63, 59), np.diag([1.0, 1.0, 1.0, 1.0]))
    fine.affine[:3, 3] = [-54, -39, -11]
    profile = soft_region(place, fine, 4.0).profile
    outside = place.depth_mm(world_mm(fine)) <= 0
    assert (profile[outside] == 0).all()
    assert profile.max() == 1
    # steepest slope of the cosine over 4 mm, from one millimetre to the next
    assert max(np.abs(np.diff(profile, axis=axis)).max() for axis in range(3)) < 1.1 * np.pi / 2 / 4


def place_of_elongated(kind="intensity"):
    from xai_brain.data.planted.placement import place_of_mask

    img = elongated()
    settings = PlantedEffect(kind, mask_img="mask")
    return place_of_mask(np.asanyarray(img.dataobj) > 0, img.affine, "mask", settings)


def test_deformation_keeps_the_noise(cohort, tmp_path):
    settings = PlantedEffect("atrophy", size=15, center_mm=LEFT, radius_mm=10.0, variation=0.0)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    table = table[table["target"] == 1]
    inside = np.linalg.norm(WORLD - LEFT, axis=-1) < 10

    def roughness(stack):
        return np.mean([ndimage.laplace(volume)[inside].std() for volume in stack])

    assert roughness(volumes(table)) / roughness(volumes(table, "source_volume_path")) > 0.9


def test_two_pieces_cannot_shrink_about_one_centre(tmp_path):
    img = elongated()
    both = np.asanyarray(img.dataobj).copy()
    both[34:38, 2:8, 2:8] = 1
    nib.Nifti1Image(both, img.affine).to_filename(tmp_path / "two.nii.gz")
    settings = PlantedEffect("atrophy", mask_img=str(tmp_path / "two.nii.gz"))
    with pytest.raises(PlantedError, match=r"two\.nii\.gz: is in 2 pieces; atrophy needs"):
        place_of(settings)
    assert place_of(replace(settings, kind="intensity", size=1.0)).volume_ml > 3
    nib.Nifti1Image(np.zeros_like(both), img.affine).to_filename(tmp_path / "none.nii.gz")
    with pytest.raises(PlantedError, match="has no voxel"):
        place_of(replace(settings, mask_img=str(tmp_path / "none.nii.gz")))

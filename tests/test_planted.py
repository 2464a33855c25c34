"""Planted effects: size, place, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from planted_cohort import (
    AFFINE,
    BRAIN,
    EVERY_KIND,
    GRID,
    INTENSITY,
    LEFT,
    RIGHT,
    WORLD,
    cohens_d,
    truths,
    volumes,
    write_cohort,
)
from scipy import ndimage

from xai_brain.config.planted_effect import PlantedEffect
from xai_brain.data.planted.draws import draw
from xai_brain.data.planted.effects import plant
from xai_brain.data.planted.lesions import lesion_shares, measured_compactness
from xai_brain.data.planted.placement import sphere, world_mm
from xai_brain.io.nifti import Grid, same_grid


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("prepared"))


@pytest.mark.parametrize("kind", ["intensity", "expansion", "lesion"])
def test_an_effect_lies_at_all_of_its_places(cohort, tmp_path, kind):
    size = {"intensity": 1.5, "expansion": 40.0, "lesion": 3.0}[kind]
    one = PlantedEffect(kind, size, center_mm=LEFT, radius_mm=10.0, variation=0.0, lesion_count=1)
    two = replace(one, further_centers_mm=[RIGHT])
    few = cohort.head(12)
    planted = plant(few, two, GRID, cache_dir=tmp_path)
    alone = plant(few, one, GRID, cache_dir=tmp_path)
    near = [np.linalg.norm(WORLD - center, axis=-1) < 22 for center in (LEFT, RIGHT)]
    ill = (planted["target"] == 1).to_numpy()
    changed = volumes(planted) != volumes(planted, "source_volume_path")
    assert not changed[~ill].any()
    assert all(changed[ill][:, where].any(axis=1).all() for where in near)
    assert not changed[:, ~(near[0] | near[1])].any()
    marked, marked_alone = truths(planted), truths(alone)
    assert all(marked[:, where].any(axis=1).all() for where in near)
    np.testing.assert_array_equal(marked[:, near[0]], marked_alone[:, near[0]])
    np.testing.assert_array_equal(volumes(planted)[:, near[0]], volumes(alone)[:, near[0]])
    if kind == "intensity":  # d holds at each place
        for center in (LEFT, RIGHT):
            inside = (np.linalg.norm(WORLD - center, axis=-1) < 10) & BRAIN
            means = volumes(planted)[:, inside].mean(axis=1)
            assert cohens_d(means, planted["target"].to_numpy()) == pytest.approx(1.5, abs=0.9)
    assert set(planted["sha256"]).isdisjoint(alone["sha256"])


@pytest.mark.parametrize("size", [-2.0, 0.8])
def test_d_of_the_regions_mean_is_what_was_asked(cohort, tmp_path, size):
    region = np.linalg.norm(WORLD - LEFT, axis=-1) < 12
    settings = replace(INTENSITY, size=size)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    target = table["target"].to_numpy()
    plain = volumes(table, "source_volume_path")[:, region].mean(axis=1, dtype=float)
    change = volumes(table)[:, region].mean(axis=1, dtype=float) - plain
    # without the luck of the draw: change of the mean by the standard deviations around it
    spread = np.sqrt((2 * plain.var(ddof=1) + change[target == 1].var()) / 2)
    assert change[target == 1].mean() / spread == pytest.approx(size, rel=0.01)
    assert change[target == 1].std() / abs(change[target == 1].mean()) == pytest.approx(0.2, rel=0.01)
    delta = change[target == 1].mean()
    np.testing.assert_allclose(change, delta * table["planted_strength"], atol=1e-4 * abs(delta))
    # as it is measured in a cohort, over draws of the classes: one d has an error of about 2 / sqrt(60)
    found = []
    for random_state in range(100):
        own = draw(cohort["participant_id"], replace(settings, random_state=random_state))
        values = plain + delta * own.loc[cohort["participant_id"], "strength"].to_numpy()
        found.append(cohens_d(values, own.loc[cohort["participant_id"], "target"].to_numpy()))
    assert np.mean(found) == pytest.approx(size, rel=0.1)


def test_absolute_size_is_the_change_of_the_mean(cohort, tmp_path):
    settings = replace(INTENSITY, size=0.25, absolute=True, variation=0.0)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    region, target = truths(table)[0], table["target"].to_numpy()
    change = (volumes(table) - volumes(table, "source_volume_path"))[:, region].mean(axis=1)
    np.testing.assert_allclose(change, 0.25 * target, atol=1e-5)


@pytest.mark.parametrize("settings", EVERY_KIND, ids=lambda settings: settings.kind)
def test_nothing_changes_outside_of_the_truth_and_left_is_left(cohort, tmp_path, settings):
    table = plant(cohort.head(12), settings, GRID, cache_dir=tmp_path)
    planted, plain, truth = volumes(table), volumes(table, "source_volume_path"), truths(table)
    target = table["target"].to_numpy()
    assert planted.dtype == np.float32
    assert np.array_equal(planted[~truth], plain[~truth])
    assert np.array_equal(planted[target == 0], plain[target == 0])
    assert (planted[:, ~BRAIN] == 0).all()
    for i in np.flatnonzero(target):
        assert (planted[i] != plain[i])[truth[i]].mean() > 0.9
        assert (WORLD[truth[i], 0] < 0).all()
        assert np.abs(WORLD[truth[i]] - LEFT).max() < 26
    img = nib.load(table["truth_path"].iloc[0])
    assert same_grid(img, GRID)
    assert img.get_data_dtype() == np.uint8


def test_an_effect_on_the_right_is_on_the_right(cohort, tmp_path):
    table = plant(cohort.head(4), replace(INTENSITY, center_mm=RIGHT), GRID, cache_dir=tmp_path)
    center = WORLD[truths(table)[0]].mean(axis=0)
    np.testing.assert_allclose(center, RIGHT, atol=0.5)
    assert nib.affines.apply_affine(np.linalg.inv(AFFINE), RIGHT)[0] < GRID.shape[0] / 2  # x is flipped


@pytest.mark.parametrize("compactness", [0.9, 0.6, 0.45])
def test_lesions_have_volume_count_and_compactness(compactness):
    place = sphere(LEFT, 22.0)
    allowed = BRAIN & (place.depth_mm(WORLD) > 0)
    voxel_ml = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    for seed in range(4):
        rng = np.random.default_rng(seed)
        shares = lesion_shares(place, GRID, allowed, 3.0, 3, compactness, rng)
        assert shares.sum() * voxel_ml == pytest.approx(3.0, rel=0.1)
        assert ndimage.label(shares > 0, np.ones((3, 3, 3)))[1] == 3
        assert (shares[~allowed] == 0).all()
        assert shares.max() == pytest.approx(1, abs=1e-5)
    fine = Grid("fine", (61, 63, 65), np.diag([0.8, 0.8, 0.8, 1.0]))
    place = sphere([24.0, 25.0, 26.0], 22.0)
    allowed = place.depth_mm(world_mm(fine)) > 0
    shares = [
        lesion_shares(place, fine, allowed, 3.0, 1, compactness, np.random.default_rng(seed))
        for seed in range(4)
    ]
    found = np.mean([measured_compactness(share > 0.5, fine.spacing_mm) for share in shares])
    assert found == pytest.approx(compactness, rel=0.15)


def test_measured_compactness_of_known_shapes():
    step = np.array([0.5, 0.5, 0.5])
    places = np.stack(np.meshgrid(*[np.arange(-20, 21) * 0.5] * 3, indexing="ij"), -1)
    ball = np.linalg.norm(places, axis=-1) < 6
    assert measured_compactness(ball, step) == pytest.approx(1, rel=0.05)
    spindle = np.linalg.norm(places / [9.5, 4, 4], axis=-1) < 1  # prolate; its surface by the formula
    e = np.sqrt(1 - (4 / 9.5) ** 2)
    surface = 2 * np.pi * 4**2 * (1 + 9.5 / (4 * e) * np.arcsin(e))
    exact = 36 * np.pi * (4 / 3 * np.pi * 9.5 * 16) ** 2 / surface**3
    assert measured_compactness(spindle, step) == pytest.approx(exact, rel=0.05)


def test_an_effect_at_the_brains_edge_stays_inside(cohort, tmp_path):
    settings = PlantedEffect("expansion", size=30, center_mm=[-54.0, -8.0, 18.0], radius_mm=8.0)
    table = plant(cohort.head(6), settings, GRID, cache_dir=tmp_path)
    planted, plain = volumes(table), volumes(table, "source_volume_path")
    assert (planted[:, ~BRAIN] == 0).all()
    changed = planted[table["target"] == 1] != plain[table["target"] == 1]
    assert changed.any()
    # nothing of the background is drawn in: the values are those that were around
    assert np.abs(planted - plain)[changed.any(axis=0)[None].repeat(6, 0)].max() < 4

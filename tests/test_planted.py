from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from xai_brain.config.planted_effect import PlantedEffect, PlantedError, check_planted
from xai_brain.data.planted.changes import Deformation, soft_region
from xai_brain.data.planted.draws import draw
from xai_brain.data.planted.effects import plant
from xai_brain.data.planted.lesions import lesion_shares, measured_compactness
from xai_brain.data.planted.local_change import jacobian_determinant
from xai_brain.data.planted.placement import place_of, sphere, world_mm
from xai_brain.data.planted.smooth_fields import smooth_fields
from xai_brain.io.nifti import Grid, load_img, same_grid

N = 60
AFFINE = np.diag([-3.0, 2.5, 3.5, 1.0])  # anisotropic, x flipped, with an offset
AFFINE[:3, 3] = [66, -70, -40]
GRID = Grid("small", (44, 50, 34), AFFINE)
WORLD = world_mm(GRID)
BRAIN = ((WORLD - [0, -8, 18]) ** 2 / np.array([58, 56, 50]) ** 2).sum(-1) < 1
LEFT = [-30.0, -10.0, 16.0]
RIGHT = [30.0, -10.0, 16.0]
UP = [0.0, 12.0, 48.0]
INTENSITY = PlantedEffect("intensity", size=1.0, center_mm=LEFT, radius_mm=12.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """60 subjects as `prepare_cohort` gives them: smooth anatomy and noise, z-scored, 0 outside."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(3)
    rows = []
    for i in range(N):
        volume = smooth_fields(rng, GRID, 40.0, 1)[0] + 0.3 * rng.standard_normal(GRID.shape)
        volume = (volume - volume[BRAIN].mean()) / volume[BRAIN].std()
        np.save(folder / f"{i}.npy", np.where(BRAIN, volume, 0).astype(np.float32))
        rows.append(
            {
                "participant_id": f"sub-{i:02d}",
                "session_id": "",
                "t1w_path": f"/data/sub-{i:02d}_T1w.nii.gz",
                "truth_path": None,
                "label": "male" if i % 2 else "female",
                "target": i % 2,
                "age": 20.0 + i,
                "volume_path": str(folder / f"{i}.npy"),
                "volume_mask_path": str(folder / "mask.npy"),
                "sha256": f"{i:064x}",
            }
        )
    np.save(folder / "mask.npy", BRAIN)
    return pd.DataFrame(rows)


def volumes(table, column="volume_path"):
    return np.stack([np.load(path) for path in table[column]])


def truths(table):
    return np.stack([np.asanyarray(load_img(path).dataobj) > 0 for path in table["truth_path"]])


def cohens_d(values, target):
    """Difference of two means by the pooled standard deviation."""
    a, b = values[target == 0], values[target == 1]
    return (b.mean() - a.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)


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


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"further_centers_mm": [[1, 2]]}, "three numbers are needed"),
        ({"further_centers_mm": [RIGHT], "suppression": 1.0}, "without planted.suppression"),
        ({"further_centers_mm": [LEFT]}, r"further_centers_mm: overlaps the effect"),
        ({"further_centers_mm": [RIGHT], "distractor_center_mm": RIGHT}, "distractor_center_mm: overlaps"),
    ],
)
def test_places_that_cannot_be_used_are_refused(cohort, more, message):
    with pytest.raises(PlantedError, match=message):
        plant(cohort, replace(INTENSITY, confound_center_mm=UP, **more), GRID)


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


EVERY_KIND = [
    INTENSITY,
    PlantedEffect("atrophy", size=25, center_mm=LEFT, radius_mm=9.0),
    PlantedEffect("expansion", size=25, center_mm=LEFT, radius_mm=9.0),
    PlantedEffect("lesion", size=-2.0, center_mm=LEFT, radius_mm=14.0, lesion_volume_ml=1.5),
]


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


def test_classes_are_balanced_and_know_nothing_else(cohort, tmp_path):
    table = plant(cohort, INTENSITY, GRID, cache_dir=tmp_path)
    assert table["target"].sum() == N // 2
    assert set(zip(table["target"], table["label"], strict=True)) == {(0, "without"), (1, "with")}
    correlations = []
    for random_state in range(100):
        target = draw(cohort["participant_id"], replace(INTENSITY, random_state=random_state))["target"]
        correlations.append([np.corrcoef(target, cohort[name])[0, 1] for name in ("target", "age")])
    correlations = np.array(correlations)
    np.testing.assert_allclose(correlations.mean(axis=0), 0, atol=4 / np.sqrt(100 * (N - 1)))
    np.testing.assert_allclose(correlations.std(axis=0), 1 / np.sqrt(N - 1), rtol=0.25)
    shuffled = draw(cohort["participant_id"].sample(frac=1, random_state=1), INTENSITY)
    pd.testing.assert_frame_equal(shuffled, draw(cohort["participant_id"], INTENSITY))


def test_sessions_of_a_participant_share_their_class(cohort, tmp_path):
    twice = pd.concat([cohort.head(8), cohort.head(8).assign(session_id="ses-2")])
    table = plant(twice, INTENSITY, GRID, cache_dir=tmp_path)
    per_person = table.groupby("participant_id")[["target", "planted_strength"]].nunique()
    assert (per_person == 1).all(axis=None)
    assert table["target"].sum() == 8


def test_a_distractor_varies_as_much_and_knows_no_class(cohort, tmp_path):
    settings = replace(INTENSITY, distractor_center_mm=RIGHT)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    carries = table["planted_distractor"] > 0
    assert pd.crosstab(table["target"], carries).to_numpy().tolist() == [[15, 15], [15, 15]]
    change = volumes(table) - volumes(table, "source_volume_path")
    at = {name: np.linalg.norm(WORLD - center, axis=-1) < 12 for name, center in
          (("effect", LEFT), ("distractor", RIGHT))}  # fmt: skip
    effect, distractor = (change[:, region].mean(axis=1) for region in at.values())
    assert np.array_equal(effect > 0.01, table["target"] == 1)
    assert np.array_equal(distractor > 0.01, carries)
    assert abs(np.corrcoef(distractor, table["target"])[0, 1]) < 1e-3
    plain = volumes(table, "source_volume_path")
    sds = [plain[:, region].mean(axis=1).std() for region in at.values()]
    assert distractor[carries].mean() / sds[1] == pytest.approx(
        effect[table["target"] == 1].mean() / sds[0], rel=0.01
    )
    assert not truths(table)[:, at["distractor"]].any()


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.8])
def test_a_confound_has_the_correlation_asked_for(cohort, tmp_path, rho):
    settings = replace(INTENSITY, confound_center_mm=RIGHT, confound_rho=rho, confound_size=1.5)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    region = np.linalg.norm(WORLD - RIGHT, axis=-1) < 10
    plain = volumes(table, "source_volume_path")[:, region].mean(axis=1, dtype=float)
    added = volumes(table)[:, region].mean(axis=1, dtype=float) - plain
    assert np.corrcoef(added, table["target"])[0, 1] == pytest.approx(rho, abs=1e-3)
    assert added.std() == pytest.approx(1.5 * plain.std(ddof=1), rel=0.01)


def test_a_suppressor_says_nothing_alone_and_much_together(cohort, tmp_path):
    settings = replace(INTENSITY, confound_center_mm=RIGHT, confound_size=3.0, suppression=3.0, variation=0.0)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    target = table["target"].to_numpy()
    planted = volumes(table)
    at_effect, at_confound = (
        planted[:, np.linalg.norm(WORLD - center, axis=-1) < radius].mean(axis=1, dtype=float)
        for center, radius in ((LEFT, 12), (RIGHT, 10))
    )
    plain = volumes(table, "source_volume_path")
    sd = plain[:, np.linalg.norm(WORLD - LEFT, axis=-1) < 12].mean(axis=1).std(ddof=1)
    change = at_effect - plain[:, np.linalg.norm(WORLD - LEFT, axis=-1) < 12].mean(axis=1)
    assert change[target == 1].mean() - change[target == 0].mean() == pytest.approx(
        np.sqrt(10) * sd, rel=0.15
    )  # d = 1 of what then varies by sqrt(1 + 3^2) times as much
    assert abs(cohens_d(at_confound, target)) < 2.6 / np.sqrt(N / 4)
    slope = np.polyfit(at_confound[target == 0], at_effect[target == 0], 1)[0]
    assert cohens_d(at_effect - slope * at_confound, target) > 1.5 * cohens_d(at_effect, target)


def test_sites_shift_all_of_their_images_and_know_no_class(cohort, tmp_path):
    settings = replace(INTENSITY, n_sites=3, site_gain_sd=0.0, site_offset_sd=0.5)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    assert pd.crosstab(table["site"], table["target"]).to_numpy().tolist() == [[10, 10]] * 3
    change = (volumes(table) - volumes(table, "source_volume_path")).astype(float)
    away = BRAIN & (np.linalg.norm(WORLD - LEFT, axis=-1) > 12)
    assert (change[:, ~BRAIN] == 0).all()
    fields = {}
    for site, rows in table.groupby("site").groups.items():
        fields[site] = change[rows][:, away].mean(axis=0)
        np.testing.assert_allclose(change[rows][:, away], np.tile(fields[site], (20, 1)), atol=1e-4)
    assert 0.2 < np.std(list(fields.values())) < 0.9
    region = np.linalg.norm(WORLD - LEFT, axis=-1) < 12
    means = volumes(table)[:, region].mean(axis=1, dtype=float)
    without_effect = means - table["planted_strength"] * _delta(means, change, region, table)
    assert _delta(means, change, region, table) / without_effect.std(ddof=1) == pytest.approx(1, rel=0.1)


def _delta(means, change, region, table):
    """Mean change of the region in class with, beside that of its site."""
    own = pd.Series(change[:, region].mean(axis=1))
    site = own[table["target"] == 0].groupby(table["site"]).mean()
    return (own - table["site"].map(site))[table["target"] == 1].mean()


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


def test_same_settings_same_bytes_and_nothing_is_made_twice(cohort, tmp_path):
    rows = cohort.head(6)
    settings = EVERY_KIND[3]
    first = plant(rows, settings, GRID, cache_dir=tmp_path / "a")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}

    def refuse(missing):
        raise AssertionError(f"{len(missing)} are made again")

    again = plant(rows, replace(settings), GRID, cache_dir=tmp_path / "a", progress=refuse)
    pd.testing.assert_frame_equal(first, again)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == before
    plant(rows, settings, GRID, cache_dir=tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a" / "planted").iterdir())
    assert len(files) == 12
    for name in files:
        assert (tmp_path / "a/planted" / name).read_bytes() == (tmp_path / "b/planted" / name).read_bytes()


@pytest.mark.parametrize("change", [{"size": -1.0}, {"random_state": 1}, {"lesion_compactness": 0.5}])
def test_another_plant_is_another_image(cohort, tmp_path, change):
    rows, settings = cohort.head(6), EVERY_KIND[3]
    first = plant(rows, settings, GRID, cache_dir=tmp_path)
    other = plant(rows, replace(settings, **change), GRID, cache_dir=tmp_path)
    assert not set(first["sha256"]) & set(other["sha256"])
    assert (first["sha256"].str[:64] == rows["sha256"]).all()


def test_an_effect_at_the_brains_edge_stays_inside(cohort, tmp_path):
    settings = PlantedEffect("expansion", size=30, center_mm=[-54.0, -8.0, 18.0], radius_mm=8.0)
    table = plant(cohort.head(6), settings, GRID, cache_dir=tmp_path)
    planted, plain = volumes(table), volumes(table, "source_volume_path")
    assert (planted[:, ~BRAIN] == 0).all()
    changed = planted[table["target"] == 1] != plain[table["target"] == 1]
    assert changed.any()
    # nothing of the background is drawn in: the values are those that were around
    assert np.abs(planted - plain)[changed.any(axis=0)[None].repeat(6, 0)].max() < 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "tumour"}, "planted.kind=tumour: one of atrophy, expansion, intensity, lesion"),
        ({"center_mm": None}, "no value for planted.center_mm"),
        ({"center_mm": [1.0, 2.0]}, "three numbers"),
        ({"radius_mm": 0.0}, "planted.radius_mm=0.0: above 0"),
        ({"edge_mm": -1.0}, "planted.edge_mm=-1.0: above 0"),
        ({"confound_rho": 0.5}, "no value for planted.confound_center_mm"),
        ({"confound_center_mm": UP, "confound_rho": 1.5}, "from -1 to 1"),
        ({"confound_center_mm": UP, "confound_rho": 0.5, "suppression": 1.0}, "confound_rho=0"),
        ({"kind": "lesion", "confound_center_mm": UP, "suppression": 1.0}, "only with kind=intensity"),
        ({"variation": 0.5}, "planted.variation=0.5: from 0 to 0.3"),
        ({"size": 8.0}, "planted.size=8.0: a strength that varies by 0.2"),
        ({"kind": "atrophy", "size": 80.0}, "from 0 to 60"),
        ({"kind": "expansion", "size": -3.0}, "from 0 to 150"),
        ({"n_sites": 0}, "planted.n_sites=0"),
        ({"site_gain_sd": -1.0}, "planted.site_gain_sd"),
        ({"lesion_count": 0}, "planted.lesion_count=0"),
        ({"lesion_volume_ml": 0.0}, "planted.lesion_volume_ml=0.0"),
        ({"lesion_compactness": 1.0}, "planted.lesion_compactness=1.0"),
        ({"mask_img": "a.nii", "region": 3}, "one place only"),
        ({"region": 3}, "no value for planted.labels_img"),
        ({"labels_img": "a.nii"}, "no value for planted.region"),
    ],
)
def test_wrong_settings_are_told_in_one_line(change, message):
    with pytest.raises(PlantedError) as caught:
        check_planted(replace(INTENSITY, **change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (replace(INTENSITY, center_mm=[0.0, 300.0, 0.0]), "outside the grid"),
        (
            replace(INTENSITY, center_mm=[-60.0, -60.0, -30.0], radius_mm=5.0),
            "outside the brain of sub-00",
        ),
        (replace(INTENSITY, distractor_center_mm=[-20.0, -10.0, 16.0]), "overlaps the effect"),
        (replace(EVERY_KIND[1], size=50.0, edge_mm=2.0), "would fold"),
        (replace(EVERY_KIND[3], radius_mm=6.0, lesion_volume_ml=5.0), "too small for them"),
        (PlantedEffect(), "no effect is chosen"),
    ],
)
def test_what_cannot_be_planted_here_is_told_in_one_line(cohort, tmp_path, settings, message):
    with pytest.raises(PlantedError, match=message) as caught:
        plant(cohort.head(8), settings, GRID, cache_dir=tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(PlantedError, match="at least 4"):
        draw(["sub-1", "sub-2"], INTENSITY)


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

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from scipy import ndimage, stats

from xai_brain.data.layouts.synthetic import make_synthetic_cohort
from xai_brain.data.planted.synthetic_subject import (
    SyntheticSettings,
    effect_pullback,
    make_synthetic_subject,
)
from xai_brain.io.nifti import get_grid, load_img, same_grid, template_brain_mask
from xai_brain.runs.directory import read_json

SETTINGS = SyntheticSettings(n_subjects=6)
NO_EFFECT = replace(SETTINGS, effect_volume_change=0.0, effect_intensity_change=0.0)
# one anatomy and no noise: what is left is the effect
BARE = replace(
    SETTINGS, deformation_mm=0.0, size_variation=0.0, contrast_variation=0.0, bias_field=0.0, noise=0.0
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_synthetic_cohort(tmp_path_factory.mktemp("synthetic") / "cohort", SETTINGS)


@pytest.fixture(scope="module")
def subjects():
    """60 subjects in memory: T1w, truth, is M."""
    made = [make_synthetic_subject(index, SETTINGS) for index in range(60)]
    t1w, truth = (np.stack([subject[part] for subject in made]) for part in (0, 1))
    return t1w, truth, np.array([participant["sex"] == "M" for *_, participant in made])


def file_bytes(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def first(sex, settings):
    """The first subject of a class, of the settings given."""
    index = next(index for index in (0, 1) if make_synthetic_subject(index, settings)[2]["sex"] == sex)
    return make_synthetic_subject(index, settings)


def distance_mm(settings):
    grid = get_grid(settings.grid)
    world = nib.affines.apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))
    return np.linalg.norm(world - settings.effect_center_mm, axis=-1)


def test_files_are_a_bids_derivative(cohort):
    assert read_json(cohort / "dataset_description.json")["DatasetType"] == "derivative"
    participants = pd.read_csv(cohort / "participants.tsv", sep="\t")
    assert list(participants) == ["participant_id", "sex", "age", "brain_volume_ml"]
    assert participants["participant_id"].tolist() == [f"sub-{k:04d}" for k in range(1, 7)]
    for participant_id, volume_ml in zip(
        participants["participant_id"], participants["brain_volume_ml"], strict=True
    ):
        stem = cohort / participant_id / "anat" / f"{participant_id}_space-MNI152"
        t1w_img, truth_img = (
            load_img(f"{stem}_desc-brain_T1w.nii.gz"),
            load_img(f"{stem}_desc-truth_mask.nii.gz"),
        )
        t1w, truth = t1w_img.get_fdata(), truth_img.get_fdata()
        assert same_grid(t1w_img, get_grid("t1w_4mm"))
        assert same_grid(truth_img, t1w_img)
        assert nib.load(f"{stem}_desc-truth_mask.nii.gz").get_data_dtype() == np.uint8
        assert set(np.unique(truth)) == {0, 1}
        assert (t1w[truth > 0] > 0).all()
        assert (t1w > 0).sum() * 0.064 == pytest.approx(volume_ml, abs=0.06)
        overlap = ((t1w > 0) & template_brain_mask("t1w_4mm")).sum()
        assert 2 * overlap / ((t1w > 0).sum() + template_brain_mask("t1w_4mm").sum()) > 0.93


def test_same_seed_same_bytes_other_seed_other_images(cohort, tmp_path):
    again = make_synthetic_cohort(tmp_path / "again", SETTINGS)
    assert file_bytes(again) == file_bytes(cohort)
    other = make_synthetic_subject(0, replace(SETTINGS, seed=1))[0]
    assert not np.array_equal(other, make_synthetic_subject(0, SETTINGS)[0])


def test_subject_is_the_same_in_a_smaller_cohort(cohort, tmp_path):
    smaller = file_bytes(make_synthetic_cohort(tmp_path / "smaller", replace(SETTINGS, n_subjects=3)))
    images = {path: content for path, content in smaller.items() if path.suffix == ".gz"}
    assert len(images) == 6
    assert images.items() <= file_bytes(cohort).items()


def test_second_call_leaves_the_cohort_alone(cohort):
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}
    assert make_synthetic_cohort(cohort, replace(SETTINGS)) == cohort
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*")} == before


def test_what_is_in_the_way_is_named(cohort, tmp_path):
    with pytest.raises(ValueError, match=r"seed is 0, requested is 3"):
        make_synthetic_cohort(cohort, replace(SETTINGS, seed=3))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not a synthetic cohort"):
        make_synthetic_cohort(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_nothing_is_left_behind_when_it_fails(tmp_path):
    def stop(numbers):
        yield numbers[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_synthetic_cohort(tmp_path / "cohort", SETTINGS, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"effect_volume_change": -0.7},
        {"effect_intensity_change": 2.0},
        {"effect_radius_mm": 0.0},
        {"effect_center_mm": [0.0, 0.0, 100.0]},
        {"n_subjects": 1},
        {"grid": "t1w_9mm"},
    ],
)
def test_impossible_settings_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong)))):
        make_synthetic_cohort(tmp_path / "cohort", replace(SETTINGS, **wrong))
    assert list(tmp_path.iterdir()) == []


def test_settings_go_through_omegaconf():
    config = OmegaConf.merge(OmegaConf.structured(SyntheticSettings), {"effect_center_mm": [10, 20, 30.5]})
    settings = OmegaConf.to_object(config)
    assert settings == replace(SyntheticSettings(), effect_center_mm=[10.0, 20.0, 30.5])
    assert SyntheticSettings(effect_center_mm=config.effect_center_mm) == settings
    assert type(SyntheticSettings(effect_center_mm=config.effect_center_mm).effect_center_mm) is list


def test_classes_are_balanced_and_in_random_order(subjects):
    is_m = subjects[2]
    assert is_m.sum() == 30
    assert 5 < is_m[::2].sum() < 25


@pytest.mark.parametrize("volume_change", [-0.3, 0.28, 0.6])
def test_volume_changes_as_asked_and_nothing_moves_outside(volume_change):
    axis = np.linspace(-20, 20, 81)  # 0.5 mm
    offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    places = offsets + SETTINGS.effect_center_mm
    source = effect_pullback(places, SETTINGS, volume_change)
    pullback = np.linalg.det(np.stack(np.gradient(source, 0.5, axis=(0, 1, 2)), axis=-1))
    radius = np.linalg.norm(offsets, axis=-1)
    np.testing.assert_allclose(1 / pullback[radius < 6], 1 + volume_change, rtol=0.02)
    assert np.array_equal(source[radius >= 14], places[radius >= 14])
    assert pullback.min() > 0  # no folds
    assert pullback[radius < 16].mean() == pytest.approx(1, abs=0.01)  # the sphere as a whole stays
    # C1: no step of the Jacobian from one half millimetre to the next
    assert np.abs(np.diff(pullback, axis=0)).max() < 0.5 * abs(volume_change)


@pytest.mark.parametrize("intensity_change", [-0.15, 0.2])
def test_intensity_changes_as_asked(intensity_change):
    settings = replace(
        BARE, effect_volume_change=0.0, effect_intensity_change=intensity_change, effect_variation=0.0
    )
    (with_effect, truth, _), (without, _, _) = first("M", settings), first("F", settings)
    ratio = with_effect[truth] / without[truth]
    distance = distance_mm(settings)[truth]
    np.testing.assert_allclose(ratio[distance < 7], 1 + intensity_change, atol=0.005)
    np.testing.assert_allclose(ratio[np.abs(distance - 10.5) < 0.5], 1 + intensity_change / 2, atol=0.03)


def test_strength_varies_within_class_m():
    settings = replace(BARE, effect_volume_change=0.0)
    core = distance_mm(settings) < 7
    made = [make_synthetic_subject(index, settings) for index in range(12)]
    means = {sex: [t1w[core].mean() for t1w, _, row in made if row["sex"] == sex] for sex in "MF"}
    assert np.ptp(means["F"]) == 0
    assert np.std(means["M"]) / (np.mean(means["M"]) - means["F"][0]) == pytest.approx(0.2, abs=0.12)


@pytest.mark.parametrize("sex", ["M", "F"])
def test_effect_is_inside_the_truth_and_nowhere_else(sex):
    (planted, truth, _), (plain, plain_truth, _) = first(sex, SETTINGS), first(sex, NO_EFFECT)
    assert np.array_equal(truth, plain_truth)
    assert np.array_equal(planted[~truth], plain[~truth])
    assert np.array_equal(planted > 0, plain > 0)
    assert (planted[truth] != plain[truth]).mean() == pytest.approx(1 if sex == "M" else 0, abs=0.15)


def test_deformation_alone_leaves_a_mark():
    settings = replace(BARE, effect_intensity_change=0.0)
    (expanded, truth, _), (plain, _, _) = first("M", settings), first("F", settings)
    assert np.array_equal(expanded[~truth], plain[~truth])
    assert np.abs(expanded[truth] - plain[truth]).max() > 20  # of 1000


@pytest.mark.parametrize("center_mm", [[-34.0, -20.0, -14.0], [30.0, -60.0, 40.0]])
def test_truth_lies_where_it_was_asked_left_stays_left(center_mm):
    settings = replace(SETTINGS, effect_center_mm=center_mm)
    affine = get_grid(settings.grid).affine
    truths = [make_synthetic_subject(index, settings)[1] for index in range(8)]
    voxels = [np.argwhere(truth) for truth in truths]
    centers = np.array([nib.affines.apply_affine(affine, voxel).mean(axis=0) for voxel in voxels])
    np.testing.assert_allclose(centers, np.tile(center_mm, (8, 1)), atol=8)  # the anatomy moves
    np.testing.assert_allclose(centers.mean(axis=0), center_mm, atol=2.5)
    assert np.linalg.norm(centers - centers[0], axis=1)[1:].min() > 0
    world_x = nib.affines.apply_affine(affine, np.concatenate(voxels))[:, 0]
    assert (np.sign(world_x) == np.sign(center_mm[0])).all()
    volume_ml = np.mean([truth.sum() for truth in truths]) * 0.064
    assert volume_ml == pytest.approx(4 / 3 * np.pi * 1.4**3, rel=0.1)


def test_classes_differ_in_the_truth_and_by_chance_elsewhere(subjects):
    t1w, truth, is_m = subjects
    brains = t1w > 0
    values = np.where(brains, t1w / np.array([t[t > 0].mean() for t in t1w])[:, None, None, None], 0)
    everywhere = brains.all(axis=0)
    t = np.zeros(everywhere.shape)
    t[everywhere] = stats.ttest_ind(values[is_m][:, everywhere], values[~is_m][:, everywhere]).statistic
    mean_truth = truth.mean(axis=0)
    assert mean_truth[np.unravel_index(np.abs(t).argmax(), t.shape)] > 0.9
    assert np.abs(t).max() > 8
    outside = everywhere & ~ndimage.binary_dilation(mean_truth > 0, iterations=1)
    assert t[outside].std() == pytest.approx(1, abs=0.15)
    assert np.abs(t[outside]).max() < 5.5
    assert t[ndimage.binary_dilation(mean_truth > 0) & everywhere & (mean_truth == 0)].std() < 1.5


def test_size_brightness_and_outline_know_no_class(subjects):
    t1w, _, is_m = subjects
    brains = t1w > 0
    size = brains.sum(axis=(1, 2, 3))
    brightness = np.array([image[brain].mean() for image, brain in zip(t1w, brains, strict=True)])
    for measure in (size, brightness):
        assert stats.ttest_ind(measure[is_m], measure[~is_m]).pvalue > 0.01
        assert 0.01 < measure.std() / measure.mean() < 0.2


def test_an_effect_at_three_places_has_all_of_them_in_the_images_and_in_the_truth():
    centers = [[36.0, -50.0, 40.0], [4.0, 46.0, 12.0]]
    bright = replace(BARE, effect_volume_change=0.0)
    three = replace(bright, further_centers_mm=centers)
    t1w, truth, _ = first("M", three)
    without, *_ = first("M", replace(bright, effect_intensity_change=0.0))
    n_places = ndimage.label(truth)[1]
    assert n_places == 3
    assert not (t1w != without)[~truth].any()
    strengths = []
    for center in (three.effect_center_mm, *centers):
        inner = (distance_mm(replace(three, effect_center_mm=center)) < 5) & (without > 200)
        strengths.append(np.median(t1w[inner] / without[inner]) - 1)
    assert all(0.1 < strength < 0.6 for strength in strengths)
    assert len({round(strength, 3) for strength in strengths}) == 3  # each place has a strength of its own
    woman, *_ = first("F", three)
    assert np.array_equal(woman, first("F", bright)[0])
    assert np.array_equal(first("M", bright)[0], first("M", replace(bright, further_centers_mm=[]))[0])

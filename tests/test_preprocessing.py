from __future__ import annotations

from functools import lru_cache

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import AWKWARD_SHAPE, awkward_affine, fake_brain, template_values, world_coordinates
from nilearn.datasets import load_mni152_gm_template
from scipy import ndimage
from test_volumes import centre_of_mass_mm

from xai_brain.config.data import PreprocessingConfig, read_preprocessing
from xai_brain.config.setting import ConfigError
from xai_brain.data.cohort import prepare_cohort
from xai_brain.data.participants import load_participants
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.io.nifti import GRIDS, ImageError, template_brain_mask

FINE = PreprocessingConfig("t1w_58x70x58")
COARSE = PreprocessingConfig("t1w_4mm")


def prepare(img, settings=COARSE, **kwargs):
    return preprocess_t1w(img, settings, **{"space": "MNI152", "path": "some.nii.gz", **kwargs})


@pytest.mark.parametrize("landmark_mm", [(-40.0, -20.0, 15.0), (35.0, 20.0, 5.0), (5.0, -70.0, 30.0)])
def test_landmark_of_an_oblique_flipped_image_keeps_its_place(landmark_mm):
    img = fake_brain(AWKWARD_SHAPE, awkward_affine(), blob_mm=landmark_mm)
    prepared = prepare(img, FINE)
    bright = np.where(prepared.volume > 3, prepared.volume, 0)
    found = centre_of_mass_mm(bright, prepared.affine)
    np.testing.assert_allclose(found, landmark_mm, atol=1.0)  # a third of a voxel


def test_left_stays_left():
    img = fake_brain(AWKWARD_SHAPE, awkward_affine(), blob_mm=(-40.0, -20.0, 15.0))
    prepared = prepare(img, FINE)
    peak = np.unravel_index(prepared.volume.argmax(), prepared.volume.shape)
    assert nib.affines.apply_affine(prepared.affine, peak)[0] == pytest.approx(-40, abs=3.125)


def test_mean_0_and_sd_1_in_the_brain_and_0_outside():
    prepared = prepare(fake_brain(AWKWARD_SHAPE, awkward_affine()))
    inside = prepared.volume[prepared.brain_mask]
    assert inside.mean() == pytest.approx(0, abs=1e-5)
    assert inside.std() == pytest.approx(1, abs=1e-5)
    assert not prepared.volume[~prepared.brain_mask].any()
    assert prepared.volume.dtype == np.float32


def test_the_rim_is_not_darkened_by_the_background():
    affine = GRIDS["t1w_2mm"].affine
    mm = world_coordinates(GRIDS["t1w_2mm"].shape, affine)
    inside = template_values(mm) > 20
    ramp = np.where(inside, 200 + mm[..., 1], 0).astype(np.float32)  # intensity is a function of y only
    prepared = prepare(nib.Nifti1Image(ramp, affine), PreprocessingConfig("t1w_4mm", scaling="none"))
    grid = GRIDS["t1w_4mm"]
    expected = 200 + world_coordinates(grid.shape, grid.affine)[..., 1]
    assert (
        np.abs(prepared.volume - expected)[prepared.brain_mask].max() < 4.0
    )  # darkening would cost up to half


def test_nan_outside_the_brain_becomes_0():
    img = fake_brain(AWKWARD_SHAPE, awkward_affine())
    data = img.get_fdata(dtype=np.float32)
    with_nan = nib.Nifti1Image(np.where(data == 0, np.nan, data), img.affine)
    np.testing.assert_array_equal(prepare(with_nan).volume, prepare(img).volume)


def test_a_brain_mask_is_used():
    img = fake_brain(AWKWARD_SHAPE, awkward_affine())
    left = world_coordinates(AWKWARD_SHAPE, img.affine)[..., 0] < 0
    mask_img = nib.Nifti1Image((left & (img.get_fdata() > 0)).astype(np.uint8), img.affine)
    with pytest.raises(ImageError, match=r"in MNI152 by its name .*; data\.space_check=warn accepts"):
        prepare(img, brain_mask_img=mask_img)
    prepared = prepare(img, brain_mask_img=mask_img, space_check="warn")
    assert "template" in prepared.space_warning
    x_mm = world_coordinates(prepared.volume.shape, prepared.affine)[..., 0]
    assert x_mm[prepared.brain_mask].max() <= 2


def _with(img, change):
    return nib.Nifti1Image(change(img.get_fdata(dtype=np.float32)), img.affine)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: np.full_like(d, 7), "is constant"),
        (lambda d: np.zeros_like(d), "is constant"),
        (lambda d: np.full_like(d, np.nan), "no finite voxel"),
        (
            lambda d: d + np.random.default_rng(0).uniform(1, 9, d.shape).astype(np.float32),
            "not skull-stripped",
        ),
        (lambda d: np.where(d > 0, 5, 0).astype(np.float32), "constant inside the brain"),
    ],
)
def test_unusable_images_are_named_with_the_reason(change, reason):
    img = _with(fake_brain(AWKWARD_SHAPE, awkward_affine()), change)
    with pytest.raises(ImageError, match=rf"^some\.nii\.gz: .*{reason}"):
        prepare(img)


def test_a_brain_mask_of_another_grid_is_refused():
    img = fake_brain(AWKWARD_SHAPE, awkward_affine())
    mask_img = nib.Nifti1Image(np.ones((12, 14, 16), np.uint8), np.eye(4))
    with pytest.raises(ImageError, match="brain mask has another grid"):
        prepare(img, brain_mask_img=mask_img)


def test_native_space_is_recognised():
    grid = GRIDS["t1w_2mm"]
    assert prepare(fake_brain(grid.shape, grid.affine), space=None).brain_mask.any()
    shifted = grid.affine.copy()
    shifted[:3, 3] += [25, 10, 20]
    with pytest.raises(ImageError, match=r"not in MNI152 space \(Dice"):
        prepare(
            fake_brain(grid.shape, grid.affine).__class__(
                fake_brain(grid.shape, grid.affine).dataobj, shifted
            ),
            space=None,
        )
    with pytest.raises(ImageError, match="space-T1w"):
        prepare(fake_brain(grid.shape, grid.affine), space="T1w")


def test_cache_is_memory_mapped_and_follows_content_and_settings(bids_tree, tmp_path):
    participants = load_participants("bids", bids_tree)
    first = prepare_cohort(participants, COARSE, cache_dir=tmp_path / "cache")
    assert isinstance(np.load(first["volume_path"][0], mmap_mode="r"), np.memmap)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    again = prepare_cohort(participants, COARSE, cache_dir=tmp_path / "cache")
    pd.testing.assert_frame_equal(first, again)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}

    other = prepare_cohort(
        participants, PreprocessingConfig("t1w_4mm", scaling="none"), cache_dir=tmp_path / "cache"
    )
    assert not set(other["volume_path"]) & set(first["volume_path"])
    path = participants["t1w_path"][2]
    img = nib.load(path)
    nib.save(nib.Nifti1Image(2 * img.get_fdata(dtype=np.float32) + (img.get_fdata() > 0), img.affine), path)
    changed = prepare_cohort(participants, COARSE, cache_dir=tmp_path / "cache")
    assert (changed["volume_path"] != first["volume_path"]).tolist() == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.real_data
def test_real_brain_overlaps_the_template_and_native_is_refused(real_data):
    from xai_brain.io.nifti import load_img

    path = next((real_data / "ixi" / "sub-IXI012" / "anat").glob("*desc-brain_T1w.nii.gz"))
    prepared = preprocess_t1w(load_img(path), FINE, path=path)
    template = template_brain_mask("t1w_58x70x58")
    assert 2 * (prepared.brain_mask & template).sum() / (prepared.brain_mask.sum() + template.sum()) > 0.9
    native = next((real_data / "ixi_native").glob("sub-*/anat/*T1w.nii.gz"))
    with pytest.raises(ImageError, match="not in MNI152 space"):
        preprocess_t1w(load_img(native), FINE, path=native)


def test_percentiles_of_the_brain_become_0_and_1():
    img = fake_brain(AWKWARD_SHAPE, awkward_affine(), blob_mm=(-40.0, -20.0, 15.0))
    raw = prepare(img, PreprocessingConfig("t1w_4mm", scaling="none"))
    scaled = prepare(img, PreprocessingConfig("t1w_4mm", scaling="percentile"))
    low, high = np.percentile(raw.volume[raw.brain_mask], [1, 99])
    middle = (raw.volume > low) & (raw.volume < high) & raw.brain_mask
    np.testing.assert_allclose(scaled.volume[middle], (raw.volume[middle] - low) / (high - low), atol=1e-5)
    assert scaled.volume[raw.brain_mask & (raw.volume > high)].min() == 1
    assert scaled.volume.min() == 0
    assert not scaled.volume[~scaled.brain_mask].any()


def test_quantiles_of_the_brain_become_those_of_a_normal_distribution_whatever_the_contrast_was():
    img = fake_brain(AWKWARD_SHAPE, awkward_affine(), blob_mm=(-40.0, -20.0, 15.0))
    brain = prepare(img, PreprocessingConfig("t1w_4mm", scaling="none"))
    grid_img = nib.Nifti1Image(brain.volume, brain.affine)
    other = np.where(brain.brain_mask, 50 + 9 * (brain.volume / brain.volume.max()) ** 2.5, 0)
    settings = PreprocessingConfig("t1w_4mm", scaling="quantile", antialias=False)
    scaled = [
        preprocess_t1w(each, settings, space="MNI152", space_check="warn")
        for each in (grid_img, nib.Nifti1Image(other.astype(np.float32), brain.affine))
    ]
    inside = scaled[0].brain_mask
    np.testing.assert_array_equal(inside, scaled[1].brain_mask)
    np.testing.assert_allclose(scaled[0].volume, scaled[1].volume, atol=0.03)  # between percentiles: linear
    for level, expected in ((5, -1.645), (50, 0.0), (90, 1.282)):
        assert np.percentile(scaled[0].volume[inside], level) == pytest.approx(expected, abs=0.02)


def test_raw_intensities_stay_and_can_be_scaled_to_a_median():
    img = fake_brain(AWKWARD_SHAPE, awkward_affine())
    raw = prepare(img, PreprocessingConfig("t1w_4mm", scaling="none"))
    assert np.median(raw.volume[raw.brain_mask]) == pytest.approx(100, abs=1)
    scaled = prepare(img, PreprocessingConfig("t1w_4mm", scaling="none", brain_median=700))
    assert np.median(scaled.volume[scaled.brain_mask]) == pytest.approx(700, rel=1e-5)
    factor = scaled.volume[scaled.brain_mask] / raw.volume[raw.brain_mask]
    np.testing.assert_allclose(factor, factor[0], rtol=1e-5)


def density_map(shape, affine, shift_mm=0.0):
    """Smoothed grey matter: no edge, small numbers everywhere."""
    mm = world_coordinates(shape, affine) - [shift_mm, 0, 0]
    voxels = nib.affines.apply_affine(np.linalg.inv(grey_matter().affine), mm)
    density = ndimage.map_coordinates(grey_matter().dataobj, np.moveaxis(voxels, -1, 0), order=1)
    density += 1e-6 * np.linalg.norm(mm, axis=-1)
    return nib.Nifti1Image(density.astype(np.float32), affine)


@lru_cache(maxsize=1)
def grey_matter():
    """The template's grey matter, smoothed by 8 mm (FWHM)."""
    img = load_mni152_gm_template(resolution=2)
    data = ndimage.gaussian_filter(np.asarray(img.dataobj, dtype=np.float32), 8 / 2.355 / 2)
    return nib.Nifti1Image(data, img.affine)


VBM = PreprocessingConfig("t1w_4mm", scaling="none", brain="template")


def test_a_tissue_map_without_an_edge_passes_with_its_numbers():
    img = density_map(AWKWARD_SHAPE, awkward_affine())
    with pytest.raises(ImageError, match="not skull-stripped"):
        prepare(img)
    prepared = prepare(img, VBM, space=None)
    np.testing.assert_array_equal(prepared.brain_mask, template_brain_mask("t1w_4mm"))
    expected = density_map(GRIDS["t1w_4mm"].shape, GRIDS["t1w_4mm"].affine).get_fdata()
    assert np.abs(prepared.volume - expected)[prepared.brain_mask].mean() < 0.02
    assert not prepared.volume[~prepared.brain_mask].any()


def test_a_tissue_map_elsewhere_is_refused():
    img = density_map(AWKWARD_SHAPE, awkward_affine(), shift_mm=40)
    with pytest.raises(ImageError, match=r"not in MNI152 space \(\d+ % of it lies in the template's brain\)"):
        prepare(img, VBM, space=None)
    with pytest.raises(ImageError, match="space-T1w"):
        prepare(density_map(AWKWARD_SHAPE, awkward_affine()), VBM, space="T1w")


def test_the_published_grid_is_las_over_the_field_of_view():
    """Corners of the outer voxels, in mm, are those of 260x311x260 voxels of 0.7 mm."""
    hcp = np.array([[-0.7, 0, 0, 90], [0, 0.7, 0, -126], [0, 0, 0.7, -72], [0, 0, 0, 1]])
    grid = GRIDS["kan2020_58x70x58"]
    assert nib.aff2axcodes(grid.affine) == ("L", "A", "S")
    for corner in (np.zeros(3), np.ones(3)):
        outer = nib.affines.apply_affine(grid.affine, corner * grid.shape - 0.5)
        expected = nib.affines.apply_affine(hcp, corner * [260, 311, 260] - 0.5)
        np.testing.assert_allclose(outer, expected, atol=1e-9)


def test_left_is_at_the_end_of_the_published_grid():
    img = fake_brain(AWKWARD_SHAPE, awkward_affine(), blob_mm=(-40.0, -20.0, 15.0))
    prepared = prepare(img, PreprocessingConfig("kan2020_58x70x58", scaling="none"))
    bright = np.where(prepared.volume > 250, prepared.volume, 0)
    np.testing.assert_allclose(centre_of_mass_mm(bright, prepared.affine), (-40, -20, 15), atol=1.0)
    assert np.unravel_index(prepared.volume.argmax(), prepared.volume.shape)[0] > 29


def test_infinities_inside_the_brain_mask_are_refused():
    img = fake_brain(AWKWARD_SHAPE, awkward_affine())
    data = img.get_fdata(dtype=np.float32)
    mask_img = nib.Nifti1Image((data > 0).astype(np.uint8), img.affine)
    data[40:60] = np.where(data[40:60] > 0, np.inf, 0)
    with pytest.raises(ImageError, match="voxels in its brain are NaN or infinite"):
        prepare(nib.Nifti1Image(data, img.affine), brain_mask_img=mask_img)


def test_unknown_settings_of_a_checkpoint_are_refused():
    stored = {"grid": "t1w_4mm", "scaling": "none", "antialias": True}
    assert read_preprocessing(stored) == PreprocessingConfig("t1w_4mm", scaling="none")
    with pytest.raises(ConfigError, match=r"preprocessing\.smooth: not a setting"):
        read_preprocessing({**stored, "smooth": 4})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scaling": "z"}, "scaling=z: one of zscore, percentile, quantile, none"),
        ({"brain": "mask"}, "brain=mask: one of image, template"),
        ({"brain_median": 700.0}, "brain_median=700.0"),
        ({"scaling": "none", "brain_median": -1.0}, "brain_median=-1.0"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PreprocessingConfig(**settings)

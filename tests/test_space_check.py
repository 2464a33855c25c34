"""The content of an image against the MNI152 template: what is accepted and what is not."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.affines import from_matvec
from nilearn.datasets import load_mni152_gm_template
from scipy import ndimage
from scipy.spatial.transform import Rotation

from xai_brain.data.planted.synthetic_subject import SyntheticSettings, make_synthetic_subject
from xai_brain.data.spaces.space_check import check_mni152, check_tissue_map
from xai_brain.io.nifti import get_grid, load_img

CENTER_MM = np.array([0.0, -18.0, 6.0])


@pytest.fixture(scope="module")
def brain():
    """A deformed, noisy brain in MNI152 space on 46 x 55 x 46 voxels of 4 mm."""
    t1w, _, _ = make_synthetic_subject(3, SyntheticSettings(noise=0.05, deformation_mm=2.0))
    return nib.Nifti1Image(t1w.astype(np.float32), get_grid("t1w_4mm").affine)


@pytest.fixture(scope="module")
def grey_matter():
    """The template's grey matter, unevenly thinned."""
    img = load_mni152_gm_template(resolution=4)
    data = ndimage.gaussian_filter(np.asarray(img.dataobj, dtype=np.float32), 1)
    fade = np.linspace(0.7, 1.1, data.shape[1], dtype=np.float32)[None, :, None]
    return nib.Nifti1Image(data * fade, img.affine)


def moved(img, matrix):
    return nib.Nifti1Image(img.dataobj, matrix @ img.affine)


def about(linear, point_mm):
    return from_matvec(linear, point_mm - linear @ point_mm)


def shift(*mm):
    return from_matvec(np.eye(3), mm)


def rotation(axis, degrees):
    return about(Rotation.from_euler(axis, degrees, degrees=True).as_matrix(), CENTER_MM)


def with_affine(img, affine):
    return nib.Nifti1Image(img.dataobj, affine)


def cropped(img):
    """The bounding box of the brain with 2 voxels around it; the affine is that of the whole image."""
    data = np.asarray(img.dataobj)
    places = np.argwhere(data > 0.1 * data.max())
    box = tuple(
        slice(max(int(low) - 2, 0), int(high) + 3)
        for low, high in zip(places.min(0), places.max(0), strict=True)
    )
    return nib.Nifti1Image(data[box], img.affine)


def origin_lost(img):
    affine = img.affine.copy()
    affine[:3, 3] = 0
    return with_affine(img, affine)


def centred(img):
    affine = img.affine.copy()
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(img.shape) - 1) / 2)
    return with_affine(img, affine)


def voxel_size_lost(img):
    affine = np.eye(4)
    affine[:3, 3] = CENTER_MM - (np.array(img.shape) - 1) / 2
    return with_affine(img, affine)


BROKEN = {
    "identity": lambda img: with_affine(img, np.eye(4)),
    "origin lost": origin_lost,
    "origin at the centre of the image": centred,
    "voxel size lost": voxel_size_lost,
    "cropped": cropped,
    "anterior-posterior flip": lambda img: moved(img, about(np.diag([1.0, -1, 1]), CENTER_MM)),
    "superior-inferior flip": lambda img: moved(img, about(np.diag([1.0, 1, -1]), CENTER_MM)),
    "sign of y lost": lambda img: moved(img, np.diag([1.0, -1, 1, 1])),
    "axes exchanged": lambda img: moved(img, about(np.eye(3)[[1, 2, 0]], CENTER_MM)),
    "obliquity lost": lambda img: moved(img, rotation("x", 20)),
    "shift of 8 mm along x": lambda img: moved(img, shift(8, 0, 0)),
    "shift of -8 mm along y": lambda img: moved(img, shift(0, -8, 0)),
    "shift of 10 mm along z": lambda img: moved(img, shift(0, 0, 10)),
    "displaced by 60 mm": lambda img: moved(img, shift(0, 60, 0)),
    "outside the field of view": lambda img: moved(img, shift(400, 0, 0)),
}


def test_a_brain_in_mni152_is_accepted(brain):
    check = check_mni152(brain)
    assert check.passed
    assert check.margin > 0.01
    assert check.correlation > 0.95
    assert 0.9 < check.volume_ratio < 1.1
    assert check_mni152(brain, alignment="affine").passed


@pytest.mark.parametrize("name", BROKEN)
def test_a_brain_with_a_broken_affine_is_refused(brain, name):
    check = check_mni152(BROKEN[name](brain))
    assert not check.passed
    assert any(digit in check.reason for digit in "0123456789") or "field of view" in check.reason


@pytest.mark.parametrize("name", BROKEN)
def test_grey_matter_with_a_broken_affine_is_refused(grey_matter, name):
    img = BROKEN[name](grey_matter)
    assert check_tissue_map(grey_matter.get_fdata(dtype=np.float32), grey_matter.affine).passed
    assert not check_tissue_map(np.asarray(img.dataobj), img.affine).passed


def test_a_t1w_image_without_a_mask_is_compared_with_the_t1w_template(brain):
    data = np.asarray(brain.dataobj)
    assert check_tissue_map(data, brain.affine).passed
    assert not check_tissue_map(data, shift(0, 9, 0) @ brain.affine).passed


def test_the_change_that_is_named_brings_the_image_back(brain):
    check = check_mni152(moved(brain, shift(0, 0, -8)))
    assert check.change == "a shift by +8 mm along the superior-inferior axis"
    check = check_mni152(moved(brain, rotation("z", -16)))
    assert check.change == "a rotation by +16 degrees about the superior-inferior axis"
    assert check.changed_correlation == pytest.approx(check_mni152(brain).correlation, abs=0.01)


@pytest.mark.parametrize("point_mm", [CENTER_MM, np.zeros(3)])
def test_a_rigidly_aligned_brain_is_compared_after_removing_its_size(brain, point_mm):
    small = moved(brain, about(0.84 * np.eye(3), point_mm))
    check = check_mni152(small)
    assert check.passed
    assert check.volume_ratio == pytest.approx(0.84**3 * check_mni152(brain).volume_ratio, rel=0.02)
    assert check_mni152(small, alignment="rigid").passed
    assert not check_mni152(moved(small, shift(0, 0, 9))).passed
    refused = check_mni152(small, alignment="affine")
    assert not refused.passed
    assert "0.7 to 1.4" in refused.reason


def test_neither_axes_nor_scaling_nor_a_mask_change_the_answer(brain):
    data = np.asarray(brain.dataobj)
    inside = data > 0
    plain = check_mni152(brain)
    turned = brain.as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    zscored = np.where(inside, (data - data[inside].mean()) / data[inside].std(), 0).astype(np.float32)
    mask_img = nib.Nifti1Image(inside.astype(np.uint8), brain.affine)
    in_noise = nib.Nifti1Image(np.where(inside, data, 500).astype(np.float32), brain.affine)
    for check in (
        check_mni152(turned),
        check_mni152(nib.Nifti1Image(zscored, brain.affine)),
        check_mni152(in_noise, mask_img),
    ):
        assert check.correlation == pytest.approx(plain.correlation, abs=1e-3)
        assert check.change == plain.change


def test_a_head_without_brain_extraction_is_too_large(brain):
    inside = ndimage.binary_dilation(np.asarray(brain.dataobj) > 0, iterations=3)
    noise = np.random.default_rng(0).uniform(0, 800, inside.shape)
    head = np.where(np.asarray(brain.dataobj) > 0, brain.dataobj, noise * inside).astype(np.float32)
    check = check_mni152(nib.Nifti1Image(head, brain.affine))
    assert check.volume_ratio > 1.4
    assert "0.45 to 1.4" in check.reason


def test_left_and_right_cannot_be_told_apart(brain):
    """A limit of the check that its documentation states."""
    assert check_mni152(moved(brain, np.diag([-1.0, 1, 1, 1]))).passed


@pytest.mark.slow
@pytest.mark.real_data
def test_every_real_image_is_accepted_and_its_displaced_copies_are_not(real_data):
    n_accepted = 0
    for folder, n_images in (("ixi", 181), ("second_site", 37)):
        table = pd.read_csv(real_data / folder / "participants.tsv", sep="\t", index_col="participant_id")
        paths = sorted((real_data / folder).glob("sub-*/anat/*_T1w.nii.gz"))
        assert len(paths) == n_images
        for number, path in enumerate(paths):
            img = load_img(path)
            size = table.loc[path.name.split("_")[0], "scale_to_mni"] ** (-1 / 3)
            rigid = moved(img, about(size * np.eye(3), CENTER_MM))
            for check in (check_mni152(img), check_mni152(img, alignment="affine"), check_mni152(rigid)):
                assert check.passed, (path.name, check)
                n_accepted += 1
            for name in list(BROKEN)[number % 3 :: 3]:
                assert not check_mni152(BROKEN[name](img)).passed, (path.name, name)
    assert n_accepted == 3 * 218

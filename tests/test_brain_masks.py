"""Brains in images whose background is a constant other than 0."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from conftest import AWKWARD_SHAPE, awkward_affine, fake_brain

from xai_brain.config.data import PreprocessingConfig
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.data.raw.brain_masks import background_values, find_brain
from xai_brain.io.nifti import ImageError


@pytest.fixture(scope="module")
def brain():
    """Voxels (96, 150, 80), exactly 0 outside an ellipsoid, and where the ellipsoid is."""
    data = np.asarray(fake_brain(AWKWARD_SHAPE, awkward_affine()).dataobj)
    return data, data != 0


def as_int16(data):
    """Integers with a slope and an intercept: 0 is no multiple of the slope above the intercept."""
    slope = np.ptp(data) / 65_000
    return np.round(data / slope) * slope - 0.001


RESCALED = {
    "z-scored as a whole": lambda data: (data - data.mean()) / data.std(),
    "-1 to 1": lambda data: 2 * (data - data.min()) / np.ptp(data) - 1,
    "-0.001 from rounding": as_int16,
    "1000 everywhere else": lambda data: data + 1000,
}


@pytest.mark.parametrize("rescale", RESCALED.values(), ids=RESCALED)
def test_the_brain_is_found_in_a_constant_background(brain, rescale):
    data, inside = brain
    img = nib.Nifti1Image(rescale(data).astype(np.float32), awkward_affine())
    np.testing.assert_array_equal(find_brain(np.asarray(img.dataobj), img, None, "a.nii"), inside)


@pytest.mark.parametrize("rescale", RESCALED.values(), ids=RESCALED)
def test_a_rescaled_image_gives_the_same_volume(brain, rescale):
    data, _ = brain
    plain, rescaled = (
        preprocess_t1w(
            nib.Nifti1Image(values.astype(np.float32), awkward_affine()),
            PreprocessingConfig("t1w_4mm"),
            space="MNI152",
        )
        for values in (data, rescale(data))
    )
    np.testing.assert_array_equal(rescaled.brain_mask, plain.brain_mask)
    np.testing.assert_allclose(rescaled.volume, plain.volume, atol=2e-3)  # z-scores


def test_zeros_around_a_rescaled_image_are_background_too(brain):
    data, inside = brain
    rescaled = np.pad((data - data.mean()) / data.std(), ((0, 54), (3, 7), (70, 0))).astype(np.float32)
    assert background_values(rescaled) == pytest.approx([0, -data.mean() / data.std()], rel=1e-5)
    img = nib.Nifti1Image(rescaled, awkward_affine())
    found = find_brain(rescaled, img, None, "a.nii")
    np.testing.assert_array_equal(found, np.pad(inside, ((0, 54), (3, 7), (70, 0))))


def test_interpolation_of_the_constant_does_not_matter(brain):
    data, inside = brain
    blurred = (data - data.mean()) / data.std()
    outside = np.flatnonzero(~inside)
    blurred.ravel()[outside[::2]] *= np.float32(1 + 2e-7)  # the last digit of float32
    found = find_brain(blurred, nib.Nifti1Image(blurred, awkward_affine()), None, "a.nii")
    np.testing.assert_array_equal(found, inside)


def test_noise_is_no_background(brain):
    data, inside = brain
    noise = np.random.default_rng(0).uniform(0.5, 9, data.shape).astype(np.float32)
    noisy = np.where(inside, data, noise)
    assert background_values(noisy) == []
    with pytest.raises(ImageError, match=r"a\.nii: is not skull-stripped"):
        find_brain(noisy, nib.Nifti1Image(noisy, awkward_affine()), None, "a.nii")


def test_a_constant_object_is_not_taken_for_its_background():
    data = np.zeros((12, 14, 16), np.float32)
    data[3:8, 4:9, 5:12] = 7
    assert background_values(data) == [0.0]
    np.testing.assert_array_equal(find_brain(data, nib.Nifti1Image(data, np.eye(4)), None, "a.nii"), data > 0)

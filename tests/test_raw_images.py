"""When a brain is extracted, how it is aligned, and that the result is compared with the template.

Extraction and alignment are replaced by functions that record their calls; see test_raw_heads.py.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from native_brains import KNOWN, mask_of, native, replace_extraction_and_alignment, template_brain
from nibabel.affines import apply_affine, from_matvec
from scipy import ndimage
from scipy.spatial.transform import Rotation

from xai_brain.config.data import PreprocessingConfig
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.data.raw import images as raw_images
from xai_brain.data.raw.heads import ACPC_MM, rigid_part
from xai_brain.data.raw.images import prepare_raw
from xai_brain.io.nifti import ImageError, template_brain_mask


@pytest.fixture(scope="module")
def brain():
    return native(template_brain())


@pytest.fixture(scope="module")
def head(brain):
    """The same brain with tissue around it, 2.3 times its volume and more, in a background of 0."""
    data = np.asarray(brain.dataobj)
    inside = data > 0
    around = ndimage.binary_dilation(inside, iterations=4) & ~ndimage.binary_dilation(inside, iterations=1)
    return nib.Nifti1Image(np.where(around, np.float32(60), data), brain.affine)


@pytest.fixture
def calls(monkeypatch, brain):
    """Names of the functions that were called."""
    return replace_extraction_and_alignment(monkeypatch, brain)


def volume_ml(img):
    return np.count_nonzero(np.asarray(img.dataobj)) * abs(np.linalg.det(img.affine[:3, :3])) / 1000


def test_a_head_in_a_background_of_0_is_extracted(head, brain, calls):
    assert 0.2 < (np.asarray(head.dataobj) != 0).mean() < 0.8
    found = prepare_raw(head, None, path="sub-01_T1w.nii.gz")
    assert "extract_brain" in calls
    np.testing.assert_array_equal(np.asarray(found.mask_img.dataobj), np.asarray(mask_of(brain).dataobj))
    np.testing.assert_allclose(found.mni_to_native, KNOWN)


def test_a_brain_without_a_name_that_says_so_is_extracted_too(brain, calls):
    prepare_raw(brain, None, path="sub-01_T1w.nii.gz")
    assert "extract_brain" in calls


@pytest.mark.parametrize(
    ("name", "settings"),
    [("sub-01_desc-brain_T1w.nii.gz", {}), ("sub-01_T1w.nii.gz", {"skull_stripped": True})],
)
def test_images_known_to_contain_only_brain_are_not_extracted(brain, calls, name, settings):
    found = prepare_raw(brain, None, path=name, **settings)
    assert "extract_brain" not in calls
    np.testing.assert_array_equal(np.asarray(found.mask_img.dataobj), np.asarray(mask_of(brain).dataobj))


def test_a_brain_mask_is_used(head, brain, calls):
    found = prepare_raw(head, mask_of(brain), path="sub-01_T1w.nii.gz")
    assert "extract_brain" not in calls
    np.testing.assert_array_equal(np.asarray(found.mask_img.dataobj), np.asarray(mask_of(brain).dataobj))


def test_a_head_that_is_named_brain_is_extracted(head, brain, calls):
    found = prepare_raw(head, None, path="sub-01_desc-brain_T1w.nii.gz")
    assert "extract_brain" in calls
    np.testing.assert_array_equal(np.asarray(found.mask_img.dataobj), np.asarray(mask_of(brain).dataobj))


def test_a_head_that_claims_to_be_a_brain_in_mni_is_extracted(head, brain, calls):
    in_mni = nib.Nifti1Image(head.dataobj, np.linalg.inv(KNOWN) @ head.affine)
    found = prepare_raw(in_mni, None, in_mni152=True, path="sub-01_space-MNI152_desc-brain_T1w.nii.gz")
    assert "extract_brain" in calls
    assert "align_to_mni" not in calls
    assert found.mni_to_native is None


def test_a_head_said_to_be_skull_stripped_is_refused_with_its_volume(head, calls):
    with pytest.raises(ImageError, match=r"sub-01_T1w.*brain volume is 1\.5\d times the template's"):
        prepare_raw(head, None, skull_stripped=True, path="sub-01_T1w.nii.gz")


def test_a_wrong_alignment_is_refused(brain, calls, monkeypatch):
    shifted = KNOWN @ from_matvec(np.eye(3), [0, 12, 0])
    monkeypatch.setattr(raw_images, "align_to_mni", lambda img, path: shifted)
    with pytest.raises(ImageError, match=r"sub-01_T1w.*after alignment to MNI152 its correlation"):
        prepare_raw(brain, mask_of(brain), path="sub-01_T1w.nii.gz")


@pytest.mark.parametrize("rescale", [lambda d: (d - d.mean()) / d.std(), lambda d: 2 * d / d.max() - 1])
def test_intensities_are_positive_before_the_bias_field_is_estimated(brain, calls, monkeypatch, rescale):
    seen = []
    monkeypatch.setattr(raw_images, "correct_bias", lambda img, path: seen.append(img) or img)
    data = np.asarray(brain.dataobj)
    prepare_raw(nib.Nifti1Image(rescale(data), brain.affine), mask_of(brain), path="sub-01_T1w.nii.gz")
    values = np.asarray(seen[0].dataobj)
    np.testing.assert_allclose(values / values.max(), data / data.max(), atol=1e-5)


def test_rigid_alignment_keeps_the_size_of_the_brain(brain, calls):
    native_ml, template_ml = volume_ml(brain), volume_ml(brain) / np.linalg.det(KNOWN[:3, :3])
    affine = prepare_raw(brain, mask_of(brain), alignment="affine")
    rigid = prepare_raw(brain, mask_of(brain), alignment="rigid")
    assert volume_ml(affine.mask_img) == pytest.approx(template_ml, rel=1e-6)
    assert volume_ml(rigid.mask_img) == pytest.approx(native_ml, rel=1e-6)
    prepared = preprocess_t1w(
        brain,
        PreprocessingConfig("kan2020_58x70x58", raw=True, alignment="rigid"),
        brain_mask_img=mask_of(brain),
    )
    prepared_ml = prepared.brain_mask.sum() * abs(np.linalg.det(prepared.affine[:3, :3])) / 1000
    assert prepared_ml == pytest.approx(native_ml, rel=0.02)


def test_the_rigid_part_is_a_rotation_that_keeps_the_commissures_in_line():
    shear = np.array([[0.9, 0.05, 0.02], [0.01, 0.85, -0.2], [0, 0.24, 0.8]])
    affine = from_matvec(shear, [4, 7, -9])
    rigid = rigid_part(affine)
    np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rigid[:3, :3]) == pytest.approx(1)
    anterior, posterior, above = apply_affine(np.linalg.inv(rigid), apply_affine(affine, ACPC_MM))
    np.testing.assert_allclose(anterior, ACPC_MM[0], atol=1e-9)
    assert np.cross(posterior - anterior, ACPC_MM[1] - ACPC_MM[0]) == pytest.approx(0, abs=1e-9)
    assert above[0] == pytest.approx(0, abs=1e-9), "in the midsagittal plane"
    assert above[2] > anterior[2]


def test_the_rigid_part_of_a_rigid_alignment_is_itself():
    rigid = from_matvec(Rotation.from_euler("xyz", [20, -9, 4], degrees=True).as_matrix(), [3, -20, 31])
    np.testing.assert_allclose(rigid_part(rigid), rigid, atol=1e-9)


def test_a_native_image_is_on_the_template_after_preparation(head, calls):
    prepared = preprocess_t1w(head, PreprocessingConfig("t1w_4mm", raw=True), path="sub-01_T1w.nii.gz")
    there = template_brain_mask("t1w_4mm")
    both = (prepared.brain_mask & there).sum()
    assert 2 * both / (prepared.brain_mask.sum() + there.sum()) > 0.95

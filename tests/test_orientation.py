"""Files that do not say how their voxels are oriented, or where they begin: refused, or read as stated."""

from __future__ import annotations

import gzip
import struct

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.affines import apply_affine
from nibabel.freesurfer.mghformat import MGHImage

from xai_brain.atlas.atlas import load_atlas
from xai_brain.atlas.label_images import read_labels
from xai_brain.io.nifti import ImageError, load_img
from xai_brain.io.orientation import ORIENTATIONS, stated_affine
from xai_brain.viewer.slice_viewer import SliceViewer

SHAPE = (12, 14, 16)
ZOOMS = (2.0, 1.5, 3.0)
MARKED = (2, 11, 13)
REFUSED = r"contains no orientation .*data\.orientation=LAS"


def data_with_a_marked_voxel():
    data = np.zeros(SHAPE, np.float32)
    data[MARKED] = 7
    return data


def nifti_without_codes(path, data=None, kind=nib.Nifti1Image):
    img = kind(data_with_a_marked_voxel() if data is None else data, None)
    img.header.set_zooms(ZOOMS)
    img.to_filename(path)
    return path


def analyze_pair(path, origin_voxel=None):
    img = nib.Spm99AnalyzeImage(data_with_a_marked_voxel(), None)
    img.header.set_zooms(ZOOMS)
    if origin_voxel is not None:
        img.header["origin"][:3] = np.array(origin_voxel) + 1  # SPM counts from 1
    img.to_filename(path)
    path.with_suffix(".mat").unlink(missing_ok=True)
    return path


def mgh_without_a_valid_orientation(path):
    img = MGHImage(data_with_a_marked_voxel(), np.diag([*ZOOMS, 1.0]))
    img.to_filename(path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[28:30] = b"\0\0"
    path.write_bytes(gzip.compress(bytes(content)))
    return path


FILES = {
    "NIfTI-1": lambda folder: nifti_without_codes(folder / "a.nii.gz"),
    "NIfTI-2": lambda folder: nifti_without_codes(folder / "a.nii", kind=nib.Nifti2Image),
    "NIfTI pair": lambda folder: nifti_without_codes(folder / "a.img", kind=nib.Nifti1Pair),
    "Analyze pair": lambda folder: analyze_pair(folder / "a.img"),
    "header of an Analyze pair": lambda folder: analyze_pair(folder / "a.img").with_suffix(".hdr"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_without_orientation_is_refused(tmp_path, kind):
    with pytest.raises(ImageError, match=REFUSED):
        load_img(FILES[kind](tmp_path))


@pytest.mark.parametrize("orientation", [None, "LAS"])
def test_an_mgz_file_without_orientation_has_no_voxel_sizes_either(tmp_path, orientation):
    path = mgh_without_a_valid_orientation(tmp_path / "a.mgz")
    with pytest.raises(ImageError, match="no orientation and no voxel sizes"):
        load_img(path, orientation)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("orientation", ["LAS", "RAS", "PIR"])
def test_a_stated_orientation_places_the_voxels(tmp_path, kind, orientation):
    img = load_img(FILES[kind](tmp_path), orientation)
    assert "".join(nib.aff2axcodes(img.affine)) == orientation
    np.testing.assert_array_equal(img.get_fdata(), data_with_a_marked_voxel())
    steps_mm = (
        np.array(MARKED) - (np.array(SHAPE) - 1) / 2
    ) * ZOOMS  # from the middle of the image, per axis
    signs = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    wanted = np.zeros(3)
    for step, letter in zip(steps_mm, orientation, strict=True):
        axis, sign = signs[letter]
        wanted[axis] = sign * step
    np.testing.assert_allclose(apply_affine(img.affine, MARKED), wanted, atol=1e-4)


def test_left_and_right_follow_the_stated_orientation(tmp_path):
    path = nifti_without_codes(tmp_path / "a.nii.gz")
    las, ras = load_img(path, "LAS"), load_img(path, "RAS")
    assert apply_affine(las.affine, MARKED)[0] > 0 > apply_affine(ras.affine, MARKED)[0]


def test_the_origin_of_an_spm_header_is_kept(tmp_path):
    path = analyze_pair(tmp_path / "a.img", origin_voxel=(4, 9, 3))
    img = load_img(path, "LAS")
    np.testing.assert_allclose(apply_affine(img.affine, (4, 9, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(apply_affine(img.affine, (5, 9, 3)), [-2, 0, 0], atol=1e-5)


def test_a_file_that_contains_its_orientation_keeps_it(tmp_path):
    affine = np.array([[-2.0, 0, 0, 10], [0, 1.5, 0, -7], [0, 0, 3, 4], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(data_with_a_marked_voxel(), affine), tmp_path / "a.nii.gz")
    nib.save(nib.Spm99AnalyzeImage(data_with_a_marked_voxel(), affine), tmp_path / "b.img")  # with b.mat
    MGHImage(data_with_a_marked_voxel(), affine).to_filename(tmp_path / "c.mgz")
    for name in ("a.nii.gz", "b.img", "c.mgz"):
        for orientation in (None, "RPS"):
            np.testing.assert_allclose(load_img(tmp_path / name, orientation).affine, affine, atol=1e-4)


def test_there_are_48_orientations_and_no_others(tmp_path):
    assert len(set(ORIENTATIONS)) == 48
    img = nib.load(nifti_without_codes(tmp_path / "a.nii"))
    for orientation in ORIENTATIONS:
        assert "".join(nib.aff2axcodes(stated_affine(img, orientation))) == orientation
    for wrong in ("LA", "LRS", "las", "LASX", "neurological"):
        with pytest.raises(ValueError, match="three letters are needed"):
            stated_affine(img, wrong)


def test_an_atlas_without_orientation_is_refused(tmp_path):
    labels = np.zeros(SHAPE, np.int16)
    labels[1:4] = 1
    path = nifti_without_codes(tmp_path / "labels.nii.gz", labels)
    table = pd.DataFrame({"index": [1], "name": ["Lobule"]})
    for given in (path, nib.load(path)):
        with pytest.raises(ImageError, match=REFUSED):
            load_atlas(given, table)
    with pytest.raises(ImageError, match=REFUSED):
        read_labels(path)
    atlas = load_atlas(path, table, orientation="RAS")
    assert "".join(nib.aff2axcodes(atlas.labels_img.affine)) == "RAS"


def test_the_viewer_does_not_show_an_image_without_orientation(tmp_path):
    path = nifti_without_codes(tmp_path / "a.nii.gz")
    for given in (path, nib.load(path)):
        viewer = SliceViewer.from_images(given, {"Mine": given})
        assert viewer._scene is None
        assert any("contains no orientation" in message for message in viewer._problems)
    viewer = SliceViewer.from_images(path, {"Mine": path}, orientation="RAS")
    mm = apply_affine(load_img(path, "RAS").affine, MARKED)
    assert viewer.readout(mm)["values"][0]["value"] == pytest.approx(7)
    with pytest.raises(ValueError, match="three letters"):
        SliceViewer.from_images(path, {}, orientation="left")


@pytest.mark.parametrize("offset", [0.0, 348.0, -352.0, float("nan")])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_voxels_are_never_read_from_the_header(tmp_path, offset, ending):
    """nibabel reads from byte 0 where vox_offset is 0, so that the header becomes the first voxels."""
    path = tmp_path / f"a{ending}"
    nib.save(nib.Nifti1Image(data_with_a_marked_voxel(), np.diag([*ZOOMS, 1.0])), tmp_path / "good.nii")
    content = bytearray((tmp_path / "good.nii").read_bytes())
    struct.pack_into("<f", content, 108, offset)
    path.write_bytes(gzip.compress(bytes(content)) if ending == ".nii.gz" else bytes(content))
    with pytest.raises(ImageError, match=r"places the voxels at byte .*correct vox_offset .*352"):
        load_img(path)
    with pytest.raises(ImageError, match="vox_offset"):
        read_labels(path)


def test_the_header_of_nifti2_ends_later(tmp_path):
    nib.save(nib.Nifti2Image(data_with_a_marked_voxel(), np.diag([*ZOOMS, 1.0])), tmp_path / "a.nii")
    assert load_img(tmp_path / "a.nii").get_fdata()[MARKED] == 7
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<q", content, 168, 352)
    (tmp_path / "a.nii").write_bytes(bytes(content))
    with pytest.raises(ImageError, match=r"correct vox_offset .*544"):
        load_img(tmp_path / "a.nii")

"""The short way of resampling gives the numbers of the long one."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from xai_brain.io import inflate
from xai_brain.io.nifti import Grid, ImageError, load_img, resample_to_grid
from xai_brain.io.separable import parallel_axes, resample

SHAPE = (24, 31, 27)


def affine_of(axes, spacing, offset):
    """Columns of the voxel axes: which world axis each follows, negative for a flip."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel_axis, (world_axis, sign) in enumerate(axes):
        affine[world_axis, voxel_axis] = sign * spacing[voxel_axis]
    affine[:3, 3] = offset
    return affine


LAYOUTS = {
    "RAS": affine_of([(0, 1), (1, 1), (2, 1)], (0.7, 0.9, 1.1), (-8, -14, -13)),
    "LAS": affine_of([(0, -1), (1, 1), (2, 1)], (0.7, 0.9, 1.1), (8, -14, -13)),
    "PSR": affine_of([(1, -1), (2, 1), (0, 1)], (0.7, 0.9, 1.1), (-14, 8, -13)),
    "one axis coarser": affine_of([(0, 1), (1, 1), (2, 1)], (4.0, 0.9, 1.1), (-40, -14, -13)),
}
GRID = Grid("small", (7, 9, 8), affine_of([(0, 1), (1, 1), (2, 1)], (3, 3.2, 2.9), (-9, -12, -11)))


def by_scipy(data, affine, grid, antialias):
    source = nib.affines.voxel_sizes(affine)
    if antialias:
        directions = (
            affine[:3, :3] / source
        )  # of the image's axes; the edges of a voxel of the grid along them
        target = np.sqrt(((directions.T @ grid.affine[:3, :3]) ** 2).sum(1))
        sigma_mm = np.sqrt(2 * np.log(2)) / np.pi * np.sqrt(np.maximum(target**2 - source**2, 0))
        data = ndimage.gaussian_filter(data.astype(np.float64), sigma_mm / source, mode="constant")
    to_img = np.linalg.inv(affine) @ grid.affine
    return ndimage.affine_transform(
        data, to_img[:3, :3], to_img[:3, 3], grid.shape, order=1, mode="grid-constant"
    )


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("order", ["F", "C"])
@pytest.mark.parametrize("affine", LAYOUTS.values(), ids=list(LAYOUTS))
def test_parallel_axes_give_what_scipy_gives(affine, order, antialias):
    data = np.random.default_rng(0).random(SHAPE).astype(np.float32, order=order)
    found = resample_to_grid(nib.Nifti1Image(data, affine), GRID, antialias=antialias)
    expected = by_scipy(data, affine, GRID, antialias)
    assert expected.any()
    np.testing.assert_allclose(found, expected, atol=2e-6)
    to_img = np.linalg.inv(affine) @ GRID.affine
    assert parallel_axes(to_img, SHAPE, GRID.shape, np.zeros(3)) is not None


def test_a_mask_is_resampled_like_the_numbers_0_and_1():
    inside = np.random.default_rng(1).random(SHAPE) > 0.5
    maps = parallel_axes(np.linalg.inv(LAYOUTS["LAS"]) @ GRID.affine, SHAPE, GRID.shape, np.ones(3))
    np.testing.assert_array_equal(resample(inside, maps), resample(inside.astype(np.float32), maps))


def test_a_view_with_reversed_axes_is_read_as_it_is():
    data = np.random.default_rng(2).random(SHAPE).astype(np.float32)
    maps = parallel_axes(np.linalg.inv(LAYOUTS["RAS"]) @ GRID.affine, SHAPE, GRID.shape, np.ones(3))
    view = data[::-1, :, ::-1]
    np.testing.assert_array_equal(resample(view, maps), resample(view.copy(), maps))


def test_a_tilt_of_a_degree_goes_the_general_way():
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(0.02), -np.sin(0.02)], [np.sin(0.02), np.cos(0.02)]]
    tilted = tilt @ LAYOUTS["RAS"]
    assert parallel_axes(np.linalg.inv(tilted) @ GRID.affine, SHAPE, GRID.shape, np.ones(3)) is None
    data = np.random.default_rng(3).random(SHAPE).astype(np.float32)
    found = resample_to_grid(nib.Nifti1Image(data, tilted), GRID)
    np.testing.assert_allclose(found, by_scipy(data, tilted, GRID, True), atol=2e-6)


def test_an_image_elsewhere_leaves_zeros():
    far = LAYOUTS["RAS"].copy()
    far[0, 3] = 500
    img = nib.Nifti1Image(np.ones(SHAPE, np.float32), far)
    assert not resample_to_grid(img, GRID).any()


@pytest.fixture(params=[inflate.igzip, gzip], ids=["isal", "zlib"])
def _inflater(request, monkeypatch):
    monkeypatch.setattr(inflate, "igzip", request.param)


@pytest.mark.usefixtures("_inflater")
@pytest.mark.parametrize("dtype", [np.uint8, ">i2", np.float32, np.float64])
def test_voxels_are_those_that_nibabel_reads(tmp_path, dtype):
    values = (200 * np.random.default_rng(0).random((12, 14, 16))).astype(dtype)
    img = nib.Nifti1Image(values, np.eye(4))
    img.header.set_data_dtype(dtype)
    if np.issubdtype(dtype, np.integer):
        img.header.set_slope_inter(0.5, -3)
    nib.save(img, tmp_path / "x.nii.gz")
    expected = np.asanyarray(nib.load(tmp_path / "x.nii.gz").dataobj).astype(np.float32)
    np.testing.assert_array_equal(inflate.read_voxels(nib.load(tmp_path / "x.nii.gz")), expected)


@pytest.mark.usefixtures("_inflater")
@pytest.mark.parametrize("damage", ["cut", "flipped bit", "checksum"])
def test_damaged_files_are_refused(tmp_path, damage):
    noise = np.random.default_rng(0).random((30, 31, 32)).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, np.eye(4)), tmp_path / "x.nii.gz")
    content = bytearray((tmp_path / "x.nii.gz").read_bytes())
    if damage == "cut":
        content = content[:-2000]
    else:
        content[len(content) // 2 if damage == "flipped bit" else -6] ^= 4
    (tmp_path / "x.nii.gz").write_bytes(content)
    with pytest.raises(ImageError, match=r"x\.nii\.gz: cannot be read"):
        load_img(tmp_path / "x.nii.gz")

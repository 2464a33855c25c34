from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from conftest import AWKWARD_SHAPE, awkward_affine, world_coordinates

from xai_brain.io.atomic import write_atomic
from xai_brain.io.nifti import (
    GRIDS,
    NYQUIST_SIGMA,
    Grid,
    ImageError,
    bids_name,
    load_img,
    parse_entities,
    resample_to_grid,
    save_img,
    template_brain_mask,
)


def centre_of_mass_mm(data, affine):
    weights = np.clip(data, 0, None).astype(float)
    return (world_coordinates(data.shape, affine) * weights[..., None]).sum((0, 1, 2)) / weights.sum()


def test_grids_are_those_of_the_design():
    grid = GRIDS["t1w_58x70x58"]
    assert grid.shape == (58, 70, 58)
    np.testing.assert_allclose(grid.spacing_mm, 3.125)
    np.testing.assert_allclose(grid.affine[:3, 3], [-89.0625, -125.8125, -71.0625])
    np.testing.assert_allclose(GRIDS["t1w_2mm"].affine[:3, 3], [-90, -126, -72])


@pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))
def test_template_brain_lies_in_every_grid(grid):
    mask = template_brain_mask(grid.name)
    volume_ml = mask.sum() * np.prod(grid.spacing_mm) / 1000
    assert 1600 < volume_ml < 2100  # the MNI152 brain, cerebellum and ventricles included
    assert not mask[0].any()
    assert not mask[-1].any()


@pytest.mark.parametrize("landmark_mm", [(-40.0, -20.0, 15.0), (35.0, 30.0, -5.0), (5.0, -70.0, 40.0)])
def test_landmark_keeps_its_place_in_mm(landmark_mm):
    affine = awkward_affine()
    mm = world_coordinates(AWKWARD_SHAPE, affine)
    blob = np.exp(-((mm - landmark_mm) ** 2).sum(-1) / (2 * 6.0**2))
    grid = GRIDS["t1w_58x70x58"]
    data = resample_to_grid(nib.Nifti1Image(blob.astype(np.float32), affine), grid)
    np.testing.assert_allclose(centre_of_mass_mm(data, grid.affine), landmark_mm, atol=0.2)


def test_downsampling_suppresses_what_the_grid_cannot_carry():
    # stripes of 4 mm period: above the Nyquist frequency of a 3.125 mm grid, they would alias
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [-60, -60, -60]
    x = np.arange(120)[:, None, None]
    stripes = np.broadcast_to(np.sin(2 * np.pi * x / 4), (120, 121, 122)).astype(np.float32)
    img = nib.Nifti1Image(stripes, affine)
    grid = Grid(
        "coarse",
        (30, 31, 32),
        np.diag([3.125, 3.125, 3.125, 1]) + np.pad([[-40], [-40], [-40]], ((0, 1), (3, 0))),
    )
    assert resample_to_grid(img, grid, antialias=False).std() > 0.3
    assert resample_to_grid(img, grid)[5:-5, 5:-5, 5:-5].std() < 0.2


def test_response_at_the_new_nyquist_is_one_half():
    sigma, nyquist = NYQUIST_SIGMA * 3.125, 1 / (2 * 3.125)
    assert np.exp(-2 * (np.pi * sigma * nyquist) ** 2) == pytest.approx(0.5)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_same_voxels_in_another_order_of_axes_are_not_smoothed(order):
    data = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    affine = np.array([[1.0, 0, 0, 3], [0, -1.5, 0, 4], [0, 0, 3, -5], [0, 0, 0, 1]])
    turned = nib.Nifti1Image(data.transpose(order), affine[:, [*order, 3]])
    found = resample_to_grid(turned, Grid("own", data.shape, affine))
    assert np.allclose(found, data, atol=1e-6)


def test_same_grid_passes_unchanged():
    grid = GRIDS["t1w_4mm"]
    data = np.random.default_rng(0).random(grid.shape).astype(np.float32)
    np.testing.assert_allclose(resample_to_grid(nib.Nifti1Image(data, grid.affine), grid), data, atol=1e-6)


def test_saved_map_has_its_values_affine_and_space(tmp_path):
    affine = awkward_affine()
    data = np.random.default_rng(0).standard_normal((12, 14, 16)).astype(np.float32)
    path = save_img(data, affine, tmp_path / "a" / "map.nii.gz")
    img = nib.load(path)
    assert img.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asanyarray(img.dataobj), data)
    np.testing.assert_allclose(img.affine, affine, atol=1e-5)
    assert img.header["sform_code"] == 4  # MNI152
    assert nib.load(save_img(data, affine, tmp_path / "b.nii.gz", space="native")).header["sform_code"] == 1


def test_same_data_are_the_same_bytes(tmp_path):
    data = np.ones((12, 14, 16), np.float32)
    a = save_img(data, np.eye(4), tmp_path / "a.nii.gz").read_bytes()
    assert a == save_img(data, np.eye(4), tmp_path / "b.nii.gz").read_bytes()


def test_nothing_is_visible_of_a_write_that_fails(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("before")

    def fails(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fails)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["table.tsv"]


def test_a_trailing_axis_of_one_is_dropped_and_header_scaling_applied(tmp_path):
    img = nib.Nifti1Image(np.arange(12 * 14 * 16, dtype=np.uint8).reshape(12, 14, 16, 1), np.eye(4))
    img.header.set_slope_inter(0.5, 3)
    nib.save(img, tmp_path / "x.nii.gz")
    raw = np.arange(12 * 14 * 16, dtype=np.uint8).reshape(12, 14, 16)
    stored = nib.load(tmp_path / "x.nii.gz")
    loaded = load_img(tmp_path / "x.nii.gz")
    assert loaded.shape == (12, 14, 16)
    np.testing.assert_allclose(loaded.get_fdata(), stored.get_fdata()[..., 0])
    assert raw.shape == loaded.shape


def test_several_volumes_and_broken_files_are_named(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 2), np.float32), np.eye(4)), tmp_path / "four.nii.gz")
    with pytest.raises(ImageError, match=r"four\.nii\.gz: has shape \(4, 5, 6, 2\)"):
        load_img(tmp_path / "four.nii.gz")
    noise = np.random.default_rng(0).random((30, 31, 32)).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, np.eye(4)), tmp_path / "whole.nii.gz")
    content = (tmp_path / "whole.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"cut\.nii\.gz: cannot be read, is it truncated"):
        load_img(tmp_path / "cut.nii.gz")
    with pytest.raises(ImageError, match="does not exist"):
        load_img(tmp_path / "none.nii.gz")


def test_names_and_their_entities():
    name = bids_name("sub-01", "ses-2", space="MNI152", desc="GradCAM", suffix="attribution")
    assert name == "sub-01_ses-2_space-MNI152_desc-GradCAM_attribution"
    assert parse_entities(f"{name}.nii.gz") == {
        "sub": "01",
        "ses": "2",
        "space": "MNI152",
        "desc": "GradCAM",
        "suffix": "attribution",
    }

"""Atlases: labels on the grid of maps, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from conftest import COARSE, COARSE_SHAPE, world_coordinates
from two_sided_atlas import FINE, FINE_SHAPE, GRID, as_table, two_sides

from xai_brain.atlas.atlas import FETCHERS, AtlasError, load_atlas, side_of
from xai_brain.io.nifti import Grid, ImageError, get_grid


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_sparse_labels_above_127_are_read_as_stored(tmp_path, dtype):
    two_sides(dtype=dtype).to_filename(tmp_path / "labels.nii.gz")
    atlas = load_atlas(tmp_path / "labels.nii.gz", as_table())
    assert set(np.unique(atlas.labels_img.dataobj)) == {0, 7, 130, 300}


def test_header_scaling_is_applied(tmp_path):
    img = two_sides()
    img.header.set_slope_inter(2.0, 0.0)
    img.to_filename(tmp_path / "labels.nii")
    assert nib.load(tmp_path / "labels.nii").dataobj.slope == 2
    atlas = load_atlas(tmp_path / "labels.nii", as_table({14: "a", 260: "b", 600: "c"}))
    assert atlas.lut["index"].tolist() == [14, 260, 600]  # stored as 7, 130, 300 with a slope of 2


def test_labels_beyond_single_precision_stay_apart():
    labels = np.zeros((3, 4, 5), np.int64)
    labels[0, 0, 0], labels[1, 1, 1] = 2**24, 2**24 + 1
    atlas = load_atlas(
        nib.Nifti1Image(labels, np.eye(4), dtype=np.int64), as_table({2**24: "a", 2**24 + 1: "b"})
    )
    grid = Grid("same", (3, 4, 5), np.eye(4))
    assert np.argwhere(atlas.region_mask("b", grid)).tolist() == [[1, 1, 1]]


# -- on other grids ----------------------------------------------------------------------------------


def test_fine_atlas_keeps_place_and_volume_on_the_grid_of_maps():
    img = two_sides(FINE_SHAPE, FINE)
    atlas = load_atlas(img, as_table())
    on_grid = atlas.on_grid(GRID)
    assert set(np.unique(on_grid)) == {0, 7, 130, 300}
    mm = world_coordinates(GRID.shape, GRID.affine)
    for label, centre in {7: (-40, 0, 10), 130: (40, 0, 10), 300: (0, -30, -20)}.items():
        np.testing.assert_allclose(mm[on_grid == label].mean(0), centre, atol=0.35)
        volume = (on_grid == label).sum() * 3.125**3
        assert volume == pytest.approx(4 / 3 * np.pi * 17**3, rel=0.04)


def test_coarse_voxel_takes_the_label_of_most_of_its_volume():
    labels = np.zeros((9, 6, 12), np.int16)
    labels[:, :, :] = 5
    labels[4, :, :] = 300  # one of three planes, and the one through the centre of the coarse voxel
    atlas = load_atlas(nib.Nifti1Image(labels, np.eye(4)), as_table({5: "most", 300: "plate"}))
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = 1  # voxel 0 covers the fine voxels 0 to 2
    coarse = atlas.on_grid(Grid("coarse", (3, 2, 4), affine))
    assert (coarse == 5).all()
    assert not atlas.region_mask("plate", Grid("coarse", (3, 2, 4), affine)).any()


def test_on_its_own_grid_flipped_or_shifted_nothing_changes():
    img = two_sides()
    atlas = load_atlas(img, as_table())
    labels = np.asanyarray(img.dataobj)
    np.testing.assert_array_equal(atlas.on_grid(img), labels)
    flipped = COARSE @ np.array([[-1, 0, 0, COARSE_SHAPE[0] - 1], [0, 1, 0, 2], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    moved = atlas.on_grid(Grid("flipped", COARSE_SHAPE, flipped))
    np.testing.assert_array_equal(moved[:, :-2], labels[::-1, 2:])
    assert not moved[:, -2:].any()  # outside of the atlas


def test_atlas_without_background_has_one_outside():
    atlas = load_atlas(nib.Nifti1Image(np.full((3, 4, 5), 9, np.uint8), np.eye(4)), as_table({9: "all"}))
    wide = np.eye(4)
    wide[:3, 3] = -1
    on_grid = atlas.on_grid(Grid("wide", (5, 6, 7), wide))
    assert (on_grid[1:-1, 1:-1, 1:-1] == 9).all()
    assert (on_grid == 9).sum() == 60


# -- what is refused ---------------------------------------------------------------------------------


def test_swapped_names_are_refused_by_name():
    swapped = {7: "Insula_R", 130: "Insula_L", 300: "BrainStem"}
    with pytest.raises(
        AtlasError, match=r"Insula_R \(x = -4\d mm\), Insula_L \(x = \+4\d mm\); left is x < 0"
    ):
        load_atlas(two_sides(), as_table(swapped))


def test_image_with_a_mirrored_affine_is_refused():
    img = two_sides()
    mirrored = np.diag([-1.0, 1, 1, 1]) @ img.affine
    with pytest.raises(AtlasError, match="lie on the opposite side of their names"):
        load_atlas(nib.Nifti1Image(img.dataobj, mirrored), as_table())


@pytest.mark.parametrize(
    ("name", "side"),
    {
        "Left-Amygdala": "left",
        "ctx-rh-precuneus": "right",
        "ctx_lh_G_cuneus": "left",
        "R_V1_ROI": "right",
        "SFG_L_7_1": "left",
        "GM Primary motor cortex BA4a R": "right",
        "7Networks_LH_Vis_1": "left",
        "Amygdala (right)": "right",
        "RightThalamus": "right",
        "thalamusLeft": "left",
        "corticospinal tract r": "right",
        "Rétrosplénial": None,
        "Lobule": None,
        "Brightness": None,
        "Cleft": None,
        "CorpCall": None,
        "left-right junction": None,
    }.items(),
)
def test_side_that_a_name_says(name, side):
    assert side_of(name) == side


def test_medial_region_may_reach_over_the_midline():
    labels = np.zeros((9, 6, 5), np.uint8)
    affine = np.eye(4)
    affine[0, 3] = -4
    labels[3:7] = 2  # x from -1 to 2 mm: centroid at +0.5 mm
    img = nib.Nifti1Image(labels, affine)
    assert load_atlas(img, as_table({2: "Fornix_L"})).lut["name"].tolist() == ["Fornix_L"]


@pytest.mark.parametrize("name", ["tpl-fsaverage_dseg", "atlas-A_space-T1w_dseg", "tpl-MNI305_dseg"])
def test_other_spaces_are_refused(tmp_path, name):
    two_sides().to_filename(tmp_path / f"{name}.nii.gz")
    with pytest.raises(
        AtlasError, match=r"its name states space \w+, the maps are in MNI152; use the atlas in"
    ):
        load_atlas(tmp_path / f"{name}.nii.gz", as_table())


@pytest.mark.parametrize(
    ("voxel", "shape", "message"),
    [
        (0.37, (3, 4, 5), "contains 0.37, which is not a label"),
        (np.inf, (3, 4, 5), "contains inf, which is not a label"),
        (-2, (3, 4, 5), "contains the label -2; labels begin at 1"),
        (1, (3, 4, 5, 2), "is probabilistic"),
        (0, (3, 4, 5), "contains no labels, only 0"),
    ],
)
def test_images_that_are_no_labels_are_refused(tmp_path, voxel, shape, message):
    data = np.zeros(shape, np.float32)
    data[1, 2, 3] = voxel
    nib.Nifti1Image(data, np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    with pytest.raises((AtlasError, ImageError), match=message) as raised:
        load_atlas(tmp_path / "a.nii.gz", as_table())
    assert str(raised.value).startswith(f"{tmp_path / 'a.nii.gz'}: ")
    assert "\n" not in str(raised.value)


def test_regions_are_found_by_name_or_refused():
    atlas = load_atlas(two_sides(), as_table(), "mine")
    with pytest.raises(AtlasError, match=r"mine: has no region 'Insula_X'; did you mean 'Insula_"):
        atlas.index_of("Insula_X")
    with pytest.raises(AtlasError, match="mine: has no label 8"):
        atlas.region_mask(8, GRID)
    same = load_atlas(two_sides(), as_table({7: "a", 130: "a", 300: "b"}))
    with pytest.raises(AtlasError, match=r"labels 7, 130 are all named 'a'"):
        same.index_of("a")


# -- nilearn's atlases -------------------------------------------------------------------------------


def test_without_network_one_line_says_so(monkeypatch):
    import nilearn.datasets

    def fail(**_):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(nilearn.datasets, "fetch_atlas_harvard_oxford", fail)
    with pytest.raises(
        AtlasError, match=r"^harvard_oxford: cannot be downloaded \(no route to host\); give the"
    ):
        load_atlas("harvard_oxford")


@pytest.mark.network
@pytest.mark.parametrize("name", FETCHERS)
def test_fetchers_download_atlases_with_sides_as_named(name):
    try:
        atlas = load_atlas(name)
    except AtlasError as error:
        if "cannot be downloaded" not in str(error):
            raise
        pytest.skip(str(error))
    assert len(atlas.lut) > 10
    assert not atlas.lut["name"].str.startswith("unnamed").any()


@pytest.mark.real_data
def test_dlmuse_atlas_works_from_its_path(real_data):
    (path,) = (real_data / "atlas").glob("*_dseg.nii.gz")
    atlas = load_atlas(path)
    assert len(atlas.lut) == 146
    assert atlas.index_of("Hippocampus_L") == 48
    grid = get_grid("t1w_2mm")
    x_mm = world_coordinates(grid.shape, grid.affine)[..., 0]
    assert x_mm[atlas.region_mask("Hippocampus_L", grid)].max() < 0
    np.testing.assert_array_equal(atlas.on_grid(grid), np.asanyarray(nib.load(path).dataobj))
    fine, coarse = atlas.on_grid(grid), atlas.on_grid(GRID)
    assert (coarse == 48).sum() * 3.125**3 == pytest.approx((fine == 48).sum() * 8, rel=0.1)


def test_atlases_need_no_torch():
    code = "import sys, xai_brain.atlas.atlas; print({'torch', 'nilearn', 'sklearn'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert re.fullmatch(r"set\(\)\s*", said)

"""Regions and doses of the regional benchmark."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from symmetric_grid import AFFINE, SHAPE

from xai_brain.atlas.atlas import load_atlas
from xai_brain.atlas.bilateral import labels_of_regions, numbered_regions, regions_with_rest
from xai_brain.atlas.lookup_tables import AtlasError
from xai_brain.config.planted_effect import PlantedEffect, PlantedError
from xai_brain.data.planted.doses import InnerDeformation, IntensityDoses, VolumeDoses, independent_doses
from xai_brain.data.planted.local_change import jacobian_determinant
from xai_brain.data.planted.placement import place_of_mask, world_mm
from xai_brain.io.nifti import Grid


# -- regions -----------------------------------------------------------------------------------
def small_atlas():
    labels = np.zeros(SHAPE, np.int16)
    labels[2:5, 5:9, 5:9], labels[15:18, 5:9, 5:9] = 1, 2  # x is flipped: low indices are right
    labels[8:12, 12:18, 12:18] = 3
    names = pd.DataFrame({"index": [1, 2, 3], "name": ["Nucleus_R", "Nucleus_L", "Stem"]})
    return load_atlas(nib.Nifti1Image(labels, AFFINE), names, "small")


def test_a_name_without_its_side_is_both_sides():
    atlas = small_atlas()
    assert labels_of_regions(atlas, ["nucleus", "Stem"]) == {"nucleus": (1, 2), "Stem": (3,)}
    assert labels_of_regions(atlas, ["Nucleus_L"]) == {"Nucleus_L": (2,)}
    one_side = regions_with_rest(atlas, labels_of_regions(atlas, ["Nucleus_L"]))
    assert one_side == {"Nucleus_L": (2,), "Nucleus": (1,), "Stem": (3,)}
    with pytest.raises(AtlasError, match="share a label"):
        labels_of_regions(atlas, ["Nucleus", "Nucleus_L"])
    with pytest.raises(AtlasError, match=r"no region 'Nuclus'; did you mean 'Nucleus'\?"):
        labels_of_regions(atlas, ["Nuclus"])


def test_regions_are_numbered_in_their_order():
    atlas = small_atlas()
    numbered = numbered_regions(atlas, {"Stem": (3,), "Nucleus": (1, 2)}, Grid("small", SHAPE, AFFINE))
    assert numbered[9, 14, 14] == 1
    assert numbered[3, 6, 6] == numbered[16, 6, 6] == 2
    assert numbered[0, 0, 0] == 0


# -- doses -------------------------------------------------------------------------------------
IDS = [f"sub-{i:03d}" for i in range(40)]


def test_doses_are_independent_standard_and_those_of_the_id():
    doses = independent_doses(IDS, list("abcdef"))
    np.testing.assert_allclose(np.corrcoef(doses.to_numpy().T), np.eye(6), atol=1e-12)
    np.testing.assert_allclose(doses.mean(), 0, atol=1e-12)
    np.testing.assert_allclose(doses.std(ddof=0), 1)
    pd.testing.assert_frame_equal(independent_doses(IDS[::-1], list("abcdef")), doses[::-1])
    assert not np.allclose(doses, independent_doses(IDS, list("abcdef"), random_state=1))
    with pytest.raises(PlantedError, match="at least 8"):
        independent_doses(IDS[:7], list("abcdef"))


def test_an_intensity_dose_moves_the_mean_of_its_region_only():
    brain = np.ones(SHAPE, bool)
    brain[3, 6, 6] = False
    masks = {"a": np.zeros(SHAPE, bool), "b": np.zeros(SHAPE, bool)}
    masks["a"][2:5, 5:9, 5:9], masks["b"][10:12, 3:5, 3:5] = True, True
    volume = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    changed = IntensityDoses(masks, 3.0, {"a": 0.5, "b": 0.1}).changed(volume, brain, {"a": 2.0, "b": -1.0})
    np.testing.assert_allclose((changed - volume)[masks["a"] & brain], 3.0, atol=1e-5)
    np.testing.assert_allclose((changed - volume)[masks["b"]], -0.3, atol=1e-5)
    outside = ~(masks["a"] & brain) & ~masks["b"]
    assert (changed == volume)[outside].all()


def test_a_volume_dose_enlarges_the_centre_and_changes_nothing_outside_the_label():
    grid = Grid("small", SHAPE, AFFINE)
    mask = np.zeros(SHAPE, bool)
    mask[4:16, 5:17, 6:18] = True
    volume = np.zeros(SHAPE, np.float32)
    volume[8:12, 9:13, 10:14] = 1.0
    doses = VolumeDoses({"a": [mask]}, AFFINE, {"a": mask}, grid, 20.0, 1.5)
    brain = np.ones(SHAPE, bool)
    larger, smaller = (doses.changed(volume, brain, {"a": dose}) for dose in (1.0, -1.0))
    assert larger.sum() > 1.1 * volume.sum()
    assert smaller.sum() < 0.9 * volume.sum()
    assert (larger == volume)[~mask].all()
    np.testing.assert_allclose(doses.changed(volume, brain, {"a": 0.0}), volume)
    with pytest.raises(PlantedError, match="would fold"):
        VolumeDoses({"a": [mask]}, AFFINE, {"a": mask}, grid, 80.0, 2.0)


def test_the_local_volume_of_a_bent_region_changes_by_the_dose():
    grid = Grid("small", SHAPE, AFFINE)
    mask = np.zeros(SHAPE, bool)
    mask[4:16, 4:9, 6:12], mask[4:9, 4:18, 6:12] = True, True  # its centroid lies near the inner corner
    place = place_of_mask(mask, AFFINE, "bent", PlantedEffect(kind="intensity"))
    change = InnerDeformation(place, grid, 0.3, "bent")
    content = jacobian_determinant(lambda x: change.pullback(x, 0.02), world_mm(grid)[change.core])
    assert (1 / content).mean() == pytest.approx(1.02, abs=0.002)
    outside = world_mm(grid)[~change.zone]
    np.testing.assert_array_equal(change.pullback(outside, 0.3), outside)

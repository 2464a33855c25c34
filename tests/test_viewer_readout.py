"""Values, places, clusters and regions that the viewer reads from maps."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import awkward_affine
from viewer_runs import EVIL, METHODS, SHAPE, receive

from xai_brain.config.evaluation import MIN_CLUSTER_VOXELS
from xai_brain.viewer import SliceViewer
from xai_brain.viewer.readout import clusters_of


def test_readout_is_what_nibabel_reads(make_run, sent):
    run = make_run()
    viewer = SliceViewer(run)
    scene, _ = sent[-1]
    voxel = [3, 9, 5]
    receive(viewer, kind="point", voxel=voxel)
    answer, _ = sent[-1]
    mm = nib.affines.apply_affine(scene["affine"], voxel)
    np.testing.assert_allclose(answer["mm"], mm)
    assert answer["intensity"] == 100
    for method, row in zip(METHODS, answer["values"], strict=True):
        img = nib.load(run.attribution("sub-0000", None, method, 0))
        at = np.rint(nib.affines.apply_affine(np.linalg.inv(img.affine), mm)).astype(int)
        assert answer["voxel"] == at.tolist()
        value = img.get_fdata()[tuple(at)]
        assert row["value"] == f"{value:.6g}"
        assert viewer.readout(mm)["values"][METHODS.index(method)]["value"] == value
        inside = np.abs(img.get_fdata()[2:-2, 2:-2, 2:-2])
        assert row["percentile"] == pytest.approx(100 * (inside <= np.abs(value)).mean())


def test_left_is_left(sent):
    """A bright voxel at negative x is drawn in the left half, whatever the axes of the file are."""
    for signs in ([1, 1, 1], [-1, 1, 1], [1, -1, -1]):
        affine = np.diag([*(3.0 * s for s in signs), 1.0])
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
        data = np.zeros(SHAPE, np.float32)
        at = tuple(np.rint(nib.affines.apply_affine(np.linalg.inv(affine), (-12, 9, 15))).astype(int))
        data[at] = 1
        background = nib.Nifti1Image(np.ones(SHAPE, np.float32), affine)
        SliceViewer.from_images(background, {"map": nib.Nifti1Image(data, affine)})
        content, buffers = sent[-1]
        codes = np.frombuffer(buffers[1], np.uint8).reshape(SHAPE, order="F")
        (peak,) = np.argwhere(codes == 255)
        assert peak.tolist() == content["start"]
        assert peak[0] < SHAPE[0] / 2
        mm = nib.affines.apply_affine(content["affine"], peak)
        assert np.abs(mm - (-12, 9, 15)).max() <= 1.5 + 1e-6
        assert np.diag(content["affine"])[:3].min() > 0


def test_top_percent_keeps_that_share_of_the_brain(make_run, sent):
    viewer = SliceViewer(make_run())
    layer = viewer._scene.layers["GradCAM"]
    for percent in (1, 5, 25):
        threshold = layer.quantiles()[round(1000 - 10 * percent)]
        share = 100 * (np.abs(layer.shown[viewer._scene.brain]) >= threshold).mean()
        assert share == pytest.approx(percent, abs=0.2)


def test_clusters_have_their_peak_place_and_volume(sent):
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    data = np.zeros(SHAPE, np.float32)
    data[2:5, 2:4, 2], data[3, 3, 2] = 1.0, 5.0
    data[8, 9, 10:12], data[8, 9, 11] = -2.0, -3.0
    background = nib.Nifti1Image(np.ones(SHAPE, np.float32), affine)
    labels = np.ones(SHAPE, np.int16)
    labels[6:] = 2
    viewer = SliceViewer.from_images(
        background,
        {"m": nib.Nifti1Image(data, affine)},
        labels_img=nib.Nifti1Image(labels, affine),
        lut=pd.DataFrame({"index": [1, 2], "name": ["here", EVIL]}),
    )
    rows = clusters_of(viewer._scene, viewer._scene.layers["m"], 0.5, min_voxels=2)
    assert [(row["peak"], row["voxel"], row["region"]) for row in rows] == [
        (5.0, [3, 3, 2], "here"),
        (-3.0, [8, 9, 11], EVIL),
    ]
    assert [row["volume_ml"] for row in rows] == pytest.approx([6 * 0.024, 2 * 0.024])
    assert rows[1]["mm"] == [16.0, 27.0, 44.0]
    receive(viewer, kind="ready")
    assert sent[-1][0]["least"] == MIN_CLUSTER_VOXELS  # is stated above the list
    receive(viewer, kind="clusters", method="m", threshold=0.5, sign="both", inside=True)
    assert [row["peak"] for row in sent[-1][0]["rows"]] == [5.0]  # the other one has 2 voxels
    receive(viewer, kind="clusters", method="m", threshold=0.5, sign="negative", inside=True)
    assert sent[-1][0]["rows"] == []


def test_a_map_of_another_grid_is_drawn_and_read_from_its_own_voxels(sent):
    background = nib.Nifti1Image(np.ones(SHAPE, np.float32), np.diag([2.0, 2, 2, 1]))
    coarse = np.arange(6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8)
    far = np.diag([2.0, 2, 2, 1])
    far[:3, 3] = 500
    maps = {
        "coarse": nib.Nifti1Image(coarse, np.diag([4.0, 4, 4, 1])),
        "far": nib.Nifti1Image(coarse, far),
        "empty": nib.Nifti1Image(np.zeros(SHAPE, np.float32), background.affine),
        "four": nib.Nifti1Image(np.zeros((*SHAPE, 2), np.float32), background.affine),
    }
    viewer = SliceViewer.from_images(background, maps)
    messages = " | ".join(sent[-1][0]["messages"])
    for text in (
        "coarse: is on another grid",
        "far: lies outside",
        "empty: the map is empty",
        "four: has shape",
    ):
        assert text in messages
    values = {row["name"]: row["value"] for row in viewer.readout((8, 12, 16))["values"]}
    assert values == {"coarse": coarse[2, 3, 4], "far": None, "empty": 0.0}


def write_atlas(folder):
    """Labels 1 and 2 on the grid of the maps, with names in the table beside the image."""
    labels = np.zeros(SHAPE, np.int16)
    labels[2:6, 2:-2, 2:-2], labels[6:-2, 2:-2, 2:-2] = 1, 2
    path = folder / "tpl-MNI152_atlas-Two_dseg.nii.gz"
    nib.save(nib.Nifti1Image(labels, awkward_affine()), path)
    (folder / "tpl-MNI152_atlas-Two_dseg.tsv").write_text("index\tname\n1\tfirst\n2\tsecond\n")
    return path


def region_at(viewer, voxel):
    mm = nib.affines.apply_affine(awkward_affine(), voxel)
    return viewer.readout(mm)["region"]


@pytest.mark.parametrize("how", ["positional", "run"])
def test_regions_have_the_names_of_the_table_beside_the_atlas(how, make_run, sent, tmp_path):
    run, path = make_run(), write_atlas(tmp_path)
    if how == "run":
        run.config.write_text(f"evaluation: {{atlas: {path}}}\n")
    viewer = SliceViewer(run, path) if how == "positional" else SliceViewer(run)
    assert region_at(viewer, (3, 5, 5)) == "first"
    assert region_at(viewer, (8, 5, 5)) == "second"
    assert viewer.controls["atlas"].layout.display == ""

"""The viewer without a browser: which volumes and layers are sent."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd
from conftest import awkward_affine
from viewer_runs import METHODS, SHAPE, first, receive, values_of

from xai_brain.runs.directory import read_tsv
from xai_brain.runs.group_maps import write_group_map
from xai_brain.viewer import SliceViewer, loading
from xai_brain.viewer.canvas import COLOURS
from xai_brain.viewer.scene import WHITE, scale_to_uint8


def test_1000_subjects_open_with_the_images_of_one(make_run, monkeypatch, sent):
    run = make_run(1000, n_written=1)
    read = []
    load_img = loading.load_img
    monkeypatch.setattr(
        loading, "load_img", lambda path, *more: (read.append(path), load_img(path, *more))[1]
    )
    viewer = SliceViewer(run)
    assert len(viewer.chooser.list.options) == 1000
    assert len(read) == 1 + len(METHODS)
    assert {path.name.split("_")[0] for path in read} == {"sub-0000"}
    receive(viewer, kind="ready")  # asked for again: sent, not read
    assert len(read) == 1 + len(METHODS)
    assert [content["kind"] for content, _ in sent] == ["scene", "scene"]


def test_volumes_are_messages_not_state(make_run, sent):
    viewer = SliceViewer(make_run())
    content, buffers = sent[-1]
    n = int(np.prod(SHAPE))
    assert [len(buffer) for buffer in buffers] == [n] * 4 + [384 * 3 * len(COLOURS)]
    assert [panel["name"] for panel in content["panels"]] == list(METHODS)
    assert [panel["signed"] for panel in content["panels"]] == [True, True, False]
    # the background: x fastest, axes RAS
    background = nib.as_closest_canonical(nib.load(viewer._catalogue.images_of(first(viewer)).background[0]))
    shown = np.frombuffer(buffers[0], np.uint8).reshape(SHAPE, order="F")
    np.testing.assert_array_equal(shown > 0, background.get_fdata() > 0)
    np.testing.assert_allclose(content["affine"], background.affine)
    state = viewer.canvas.get_state()
    size = sum(len(str(value)) for value in state.values())
    assert size < 60_000
    json.dumps(content)


def test_the_brightest_tissue_is_light_grey_and_not_white():
    """The window is that of percentiles in the brain; one bright voxel does not change it."""
    rng = np.random.default_rng(0)
    data = np.zeros((20, 22, 24), np.float32)
    data[4:-4, 4:-4, 4:-4] = rng.uniform(200, 1000, (12, 14, 16))
    data[5, 5, 5] = 1e6
    shown = scale_to_uint8(data)
    low, high = np.percentile(data[data > 0], [1, 99.5])
    assert (shown[data == 0] == 0).all()
    assert shown[data > 0].min() == 1
    assert shown.max() == shown[5, 5, 5] == WHITE < 230
    middle = np.abs(data - (low + high) / 2) < 2
    np.testing.assert_allclose(shown[middle], (1 + WHITE) / 2, atol=1)
    constant = scale_to_uint8(np.where(data > 0, 7, 0))
    assert set(np.unique(constant)) == {0, round((1 + WHITE) / 2)}


def test_outlines_of_an_atlas_are_off_at_first(sent):
    image = nib.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4))
    labels = nib.Nifti1Image(np.full(SHAPE, 3, np.int16), np.eye(4))
    lut = pd.DataFrame({"index": [3], "name": ["insula"]})
    viewer = SliceViewer.from_images(image, {"m": image}, labels_img=labels, lut=lut)
    assert not viewer.canvas.atlas
    assert not viewer.controls["atlas"].value
    assert viewer.controls["atlas"].layout.display == ""  # they can be drawn
    assert viewer.readout((3, 4, 5))["region"] == "insula"


def test_codes_decode_to_the_values(make_run, sent):
    SliceViewer(make_run())
    content, buffers = sent[-1]
    values = nib.as_closest_canonical(nib.Nifti1Image(values_of(0, 0), awkward_affine())).get_fdata()
    code = np.frombuffer(buffers[1], np.uint8).reshape(SHAPE, order="F").astype(int) - 128
    maximum = content["panels"][0]["maximum"]
    decoded = code * np.abs(code) * maximum / 127**2  # as in slices.js
    assert np.abs(decoded - values).max() <= maximum / 127 + 1e-6
    assert ((code == 0) | (np.sign(code) == np.sign(values))).all()


def test_group_maps(make_run, sent):
    run = make_run()
    for k, method in enumerate(METHODS):
        write_group_map(run, method, "class-f", "mean", values_of(7, k), awkward_affine(), {})
    viewer = SliceViewer(run)
    viewer.show("mean class f")
    assert sent[-1][0]["title"] == "group · mean class f"
    assert [panel["name"] for panel in sent[-1][0]["panels"]] == list(METHODS)


def test_a_real_run(small_run, sent):
    viewer = SliceViewer(small_run)
    content, _ = sent[-1]
    assert content["outlines"] == ["truth"]
    assert len(content["panels"]) == 3
    assert (
        len(viewer._catalogue.entries) == len(read_tsv(small_run.predictions)) + 6
    )  # mean, sd and median of two classes

"""Controls of the viewer: choices of participants and methods, scales, and what is hidden."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
from conftest import awkward_affine
from viewer_runs import SHAPE, first

from xai_brain.io.nifti import save_img
from xai_brain.runs.directory import read_tsv, write_tsv
from xai_brain.runs.group_maps import write_group_map
from xai_brain.viewer import SliceViewer
from xai_brain.viewer.layers import Layer


def test_a_layer_of_few_values_has_a_limit():
    shown = np.zeros(SHAPE, np.float32)
    shown[3, 4, 5] = 2
    layer = Layer("m", nib.Nifti1Image(shown, np.eye(4)), shown, np.sort(shown.ravel()))
    assert layer.limit == 2
    assert not layer.signed
    assert layer.percentile(2) == 100


def test_choosing_subjects(make_run, sent):
    viewer = SliceViewer(make_run(6))
    chooser = viewer.chooser
    texts = lambda: [text.split(" · ")[0] for text, _ in chooser.list.options]  # noqa: E731
    assert first(viewer).text == "sub-0000 · f → f 0.80 ✓ · fold 1"
    chooser.search.value = "03"
    assert texts() == ["sub-0003"]
    chooser.search.value = ""
    chooser.correct.value = "wrong"
    assert texts() == ["sub-0001", "sub-0003", "sub-0005"]
    chooser.fold.value = "1"
    assert texts() == []
    viewer.show("sub-0004")
    assert chooser.list.value == 4
    assert sent[-1][0]["title"].startswith("sub-0004")


def test_at_most_four_methods_side_by_side(sent, tmp_path):
    affine = np.eye(4)
    maps = {f"m{k}": nib.Nifti1Image(np.full(SHAPE, k + 1.0, np.float32), affine) for k in range(6)}
    viewer = SliceViewer.from_images(nib.Nifti1Image(np.ones(SHAPE, np.float32), affine), maps)
    assert [panel["name"] for panel in sent[-1][0]["panels"]] == ["m0", "m1", "m2", "m3"]
    hint = viewer.methods.children[-1]
    assert hint.value == "4 of 6 maps are shown; at most 4 fit"
    viewer.methods.children[5].value = True
    assert [panel["name"] for panel in sent[-1][0]["panels"]] == ["m1", "m2", "m3", "m5"]
    viewer.controls["scale"].value = "common"
    assert set(sent[-1][0]["limits"].values()) == {6.0}
    assert len(viewer.readout((1, 1, 1))["values"]) == 6
    viewer.methods.children[2].value = False
    assert hint.value == "3 of 6 maps are shown; at most 4 fit"
    page = viewer.save_html(tmp_path / "view.html").read_text(encoding="utf-8")
    assert "3 of 6 maps are drawn; the table lists the others at the position of the saved view only." in page


def test_all_maps_of_a_run_need_no_hint(make_run, sent, tmp_path):
    viewer = SliceViewer(make_run())
    assert viewer.methods.children[-1].value == ""
    assert "maps are drawn" not in viewer.save_html(tmp_path / "view.html").read_text(encoding="utf-8")


def test_the_seed_is_at_the_beginning_of_an_entry(make_run, sent):
    run = make_run(2)
    table = read_tsv(run.predictions)
    write_tsv(pd.concat([table, table.assign(seed=7)]), run.predictions)
    run.config.write_text("seeds: [0, 7]\n")
    viewer = SliceViewer(run)
    assert [entry.text.split(" · ")[1] for entry in viewer._catalogue.entries] == ["seed 0", "seed 7"] * 2
    assert viewer.chooser.seed.options == ("any", "0", "7")
    viewer.chooser.seed.value = "7"
    assert [text.split(" · ")[:2] for text, _ in viewer.chooser.list.options] == [
        ["sub-0000", "seed 7"], ["sub-0001", "seed 7"]
    ]  # fmt: skip
    assert viewer.chooser.list.layout.width == "auto"  # as wide as the longest text


def test_common_scale_of_a_run(make_run, sent):
    viewer = SliceViewer(make_run(4))
    own = sent[-1][0]["panels"][0]["limit"]
    viewer.controls["scale"].value = "common"
    content, _ = sent[-1]
    assert content["kind"] == "limits"
    assert 0 < content["limits"]["GradCAM"] != own


def test_controls_of_things_that_do_not_exist_are_hidden(make_run, sent):
    run = make_run()
    viewer = SliceViewer(run)
    assert {name: viewer.controls[name].layout.display for name in ("truth", "atlas")} == {
        "truth": "none",
        "atlas": "none",
    }
    assert viewer.controls["inside"].layout.display != "none"
    truth = np.zeros(SHAPE, np.uint8)
    truth[4:6, 4:6, 4:6] = 1
    save_img(truth, awkward_affine(), run.image("sub-0001", None, "mask"))
    viewer = SliceViewer(run)
    assert viewer.controls["truth"].layout.display == "none"  # of the first participant
    viewer.show("sub-0001")
    assert viewer.controls["truth"].layout.display == ""


def test_controls_that_change_nothing_are_hidden(sent):
    affine = np.eye(4)
    everywhere = nib.Nifti1Image(np.ones(SHAPE, np.float32), affine)
    viewer = SliceViewer.from_images(everywhere, {"m": everywhere})
    hidden = [name for name, control in viewer.controls.items() if control.layout.display == "none"]
    assert hidden == ["sign", "scale", "truth", "atlas", "inside"]  # one map, without negative values
    assert viewer.methods.layout.display == "none"
    brain = np.ones(SHAPE, np.float32)
    brain[0] = 0
    maps = {"m": everywhere, "n": nib.Nifti1Image(-brain, affine)}
    viewer = SliceViewer.from_images(nib.Nifti1Image(brain, affine), maps)
    hidden = [name for name, control in viewer.controls.items() if control.layout.display == "none"]
    assert hidden == ["truth", "atlas"]
    assert viewer.methods.layout.display == ""


def test_a_filter_offers_what_occurs(make_run, sent):
    viewer = SliceViewer(make_run(4))
    assert viewer.chooser.correct.options == ("any", "correct", "wrong")
    viewer = SliceViewer.from_images(nib.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4)), {})
    assert viewer.chooser.correct.options == ("any",)
    shown = [name for name, control in viewer.controls.items() if control.layout.display != "none"]
    assert shown == ["planes", "smooth"]  # there is no map


def test_the_comparison_of_images_is_no_method(make_run, sent):
    run = make_run()
    for method in ("GradCAM", "image"):
        volume = np.ones(SHAPE, np.float32)
        write_group_map(run, method, "m-minus-f", "t", volume, awkward_affine(), {})
    viewer = SliceViewer(run)
    assert "image" not in viewer._catalogue.methods
    viewer.show("t m minus f")
    assert list(viewer._scene.layers) == ["GradCAM"]

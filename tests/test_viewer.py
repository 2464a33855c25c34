"""The viewer without a browser: what is sent, what is read out, what is said when something is missing."""

from __future__ import annotations

import json
from base64 import b64encode

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import awkward_affine

from xai_brain.config.evaluation import MIN_CLUSTER_VOXELS
from xai_brain.io.nifti import save_img
from xai_brain.runs.directory import RunDirectory, read_tsv, sidecar, write_json, write_tsv
from xai_brain.runs.group_maps import write_group_map
from xai_brain.tools.view import ViewError, view, write_notebook
from xai_brain.viewer import SliceViewer, loading, slice_viewer
from xai_brain.viewer.canvas import COLOURS, HERE, SCRIPTS, SliceCanvas
from xai_brain.viewer.layers import Layer
from xai_brain.viewer.meaning import explained_text, explained_text_of_group, value_text
from xai_brain.viewer.readout import clusters_of
from xai_brain.viewer.scene import WHITE, scale_to_uint8

SHAPE = (12, 14, 16)
METHODS = ("GradCAM", "GuidedBackprop", "Mask")
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def make_run(tmp_path):
    def make(n_subjects=3, n_written=None):
        run = RunDirectory(tmp_path / "run")
        run.path.mkdir()
        ids = [f"sub-{i:04d}" for i in range(n_subjects)]
        target = np.arange(n_subjects) % 2
        table = pd.DataFrame({"participant_id": ids, "session_id": "", "seed": 0, "fold": target})
        table = table.assign(target=target, prob_f=0.8 - 0.2 * target, prob_m=0.2 + 0.2 * target)
        write_tsv(table, run.predictions)
        for i, name in enumerate(ids[:n_written]):
            brain = np.zeros(SHAPE, np.uint8)
            brain[2:-2, 2:-2, 2:-2] = 100 + i
            save_img(brain, awkward_affine(), run.image(name, None))
            for k, method in enumerate(METHODS):
                save_img(values_of(i, k), awkward_affine(), run.attribution(name, None, method, 0))
        return run

    return make


def values_of(subject, method):
    rng = np.random.default_rng([subject, method])
    values = rng.standard_normal(SHAPE).astype(np.float32)
    return np.abs(values) if method == 2 else values


def receive(viewer, **content):
    viewer.canvas._handle_custom_msg(content, [])


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


def test_the_explained_class_and_the_signs_are_stated(make_run, tmp_path, sent):
    run = make_run()
    about = {"TargetName": "m", "TargetProbability": 0.8, "TargetRule": "predicted", "Kind": "method"}
    meanings = {
        "GradCAM": {**about, "MultipliesByInputs": True, "ValueMeaning": "signed"},
        "GuidedBackprop": {**about, "MultipliesByInputs": False, "ValueMeaning": "gradient"},
        "Mask": {**about, "ValueMeaning": "1 - mask"},  # without negative values
    }
    for method, content in meanings.items():
        write_json(content, sidecar(run.attribution("sub-0000", None, method, 0)))
    viewer = SliceViewer(run)
    content, _ = sent[-1]
    assert content["explained"] == "The maps explain the class m, which the network predicts."
    assert content["meanings"] == {
        "positive: raises the score of m; negative: lowers it": ["GradCAM"],
        "positive: higher intensity raises the score of m; negative: lowers it": ["GuidedBackprop"],
        "1 - mask": ["Mask"],
    }
    saved = content_of(viewer.save_html(tmp_path / "view.html").read_text(encoding="utf-8"))["scene"]
    assert {name: saved[name] for name in ("explained", "meanings")} == {
        name: content[name] for name in ("explained", "meanings")
    }
    viewer.show("sub-0001")  # it has no sidecars
    assert (sent[-1][0]["explained"], sent[-1][0]["meanings"]) == ("", {})


def test_sentences_about_what_maps_explain():
    male = {"TargetName": "male", "TargetProbability": 0.9, "TargetRule": "male"}
    baseline = {"TargetName": "female", "Kind": "baseline", "ValueMeaning": "random numbers"}
    assert explained_text({"a": male, "random": baseline}) == "The maps explain the class male."
    true = {**male, "TargetRule": "true"}
    assert (
        explained_text({"a": true}) == "The maps explain the class male, the true class of the participant."
    )
    other = {**male, "TargetName": "female"}
    assert explained_text({"a": male, "b": other}) == (
        "The maps explain different outputs: male (a); female (b)."
    )
    assert (
        explained_text({"a": {"TargetName": "age", "TargetRule": "age"}})
        == "The maps explain the output age."
    )
    assert explained_text({"a": {}}) == explained_text({}) == ""
    assert value_text(baseline, signed=True) == "random numbers"
    positive = {**male, "ValueMeaning": "raw and signed: positive values support the class"}
    assert value_text(positive, signed=False) == "positive: raises the score of male; negative: lowers it"
    foreign = {**male, "Adopted": True, "ValueMeaning": "as defined elsewhere"}
    assert value_text(foreign, signed=True) == "as defined elsewhere"
    assert explained_text_of_group("t male minus female", "male") == (
        "The maps explain male. Positive values: higher in male than in female."
    )
    assert explained_text_of_group("mean class male", "predicted") == (
        "The map of each participant explains the class that the network predicts for it."
    )


def test_outlines_of_an_atlas_are_off_at_first(sent):
    image = nib.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4))
    labels = nib.Nifti1Image(np.full(SHAPE, 3, np.int16), np.eye(4))
    lut = pd.DataFrame({"index": [3], "name": ["insula"]})
    viewer = SliceViewer.from_images(image, {"m": image}, labels_img=labels, lut=lut)
    assert not viewer.canvas.atlas
    assert not viewer.controls["atlas"].value
    assert viewer.controls["atlas"].layout.display == ""  # they can be drawn
    assert viewer.readout((3, 4, 5))["region"] == "insula"


def first(viewer):
    return viewer._catalogue.entries[0]


def test_codes_decode_to_the_values(make_run, sent):
    SliceViewer(make_run())
    content, buffers = sent[-1]
    values = nib.as_closest_canonical(nib.Nifti1Image(values_of(0, 0), awkward_affine())).get_fdata()
    code = np.frombuffer(buffers[1], np.uint8).reshape(SHAPE, order="F").astype(int) - 128
    maximum = content["panels"][0]["maximum"]
    decoded = code * np.abs(code) * maximum / 127**2  # as in slices.js
    assert np.abs(decoded - values).max() <= maximum / 127 + 1e-6
    assert ((code == 0) | (np.sign(code) == np.sign(values))).all()


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


def test_a_layer_of_few_values_has_a_limit():
    shown = np.zeros(SHAPE, np.float32)
    shown[3, 4, 5] = 2
    layer = Layer("m", nib.Nifti1Image(shown, np.eye(4)), shown, np.sort(shown.ravel()))
    assert layer.limit == 2
    assert not layer.signed
    assert layer.percentile(2) == 100


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


def test_what_is_missing_is_said(make_run, sent):
    run = make_run()
    run.attribution("sub-0000", None, "Mask", 0).write_bytes(b"broken")
    run.attribution("sub-0001", None, "GradCAM", 0).unlink()
    run.image("sub-0002", None).unlink()
    viewer = SliceViewer(run)
    assert "Mask: sub-0000" in sent[-1][0]["messages"][0]
    viewer.show("sub-0001")
    assert sent[-1][0]["title"].startswith("sub-0001")
    assert any("GradCAM" in text and "does not exist" in text for text in sent[-1][0]["messages"])
    viewer.show("sub-0002")
    assert any("shown on black" in text for text in sent[-1][0]["messages"])
    for method in METHODS:
        run.attribution("sub-0002", None, method, 0).unlink()
    viewer.show("sub-0000")
    viewer.show("sub-0002")
    assert "shape" not in sent[-1][0]
    receive(viewer, kind="point", voxel=[1, 2, 3])  # the browser may still ask
    assert sent[-1][0] == {"kind": "readout", "mm": None}
    with pytest.raises(KeyError, match="sub-9"):
        viewer.show("sub-9")


def test_no_run_at_all(tmp_path, sent):
    viewer = SliceViewer(tmp_path / "nothing")
    receive(viewer, kind="ready")
    assert "there is no run with maps here" in sent[-1][0]["messages"][0]


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


def test_an_error_in_an_answer_is_a_note(make_run, sent, monkeypatch):
    viewer = SliceViewer(make_run())
    monkeypatch.setattr(slice_viewer, "readout_at", lambda *_: 1 / 0)
    receive(viewer, kind="point", voxel=[1, 2, 3])
    assert [content["kind"] for content, _ in sent[-2:]] == ["note", "readout"]
    assert "division by zero" in sent[-2][0]["text"]


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


@pytest.mark.parametrize(
    ("kind", "value"),
    [("top %", 5.0), ("top %", 3.3), ("percentile", 97.5), ("% of scale", 40.0), ("value", 1.25)],
)
def test_a_page_of_a_viewer_that_was_not_displayed_lists_the_clusters(make_run, sent, tmp_path, kind, value):
    """The page asks for the clusters at the threshold that it computes itself."""
    viewer = SliceViewer(make_run())
    viewer.controls["threshold_kind"].value = kind
    setattr(viewer.canvas, "threshold_value" if kind == "value" else "threshold", value)
    content = content_of(viewer.save_html(tmp_path / "view.html").read_text(encoding="utf-8"))
    assert [kept["method"] for kept in content["clusters"]] == list(METHODS)
    for kept, panel in zip(content["clusters"], content["scene"]["panels"], strict=True):
        n, q = len(panel["quantiles"]), panel["quantiles"]
        share = {"top %": (100 - value) / 100, "percentile": value / 100}.get(kind)
        at = None if share is None else share * (n - 1)  # as in common.js
        expected = {"% of scale": panel["limit"] * value / 100, "value": value}.get(kind)
        if at is not None:
            i = int(at)
            expected = q[i] + (at - i) * (q[min(i + 1, n - 1)] - q[i])
        assert kept["threshold"] == expected  # to the last digit
        layer = viewer._scene.layers[kept["method"]]
        assert kept["rows"] == clusters_of(viewer._scene, layer, expected)
    assert content["clusters"][0]["rows"] or kind != "value"  # the maps are noise


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


def test_page_is_self_contained_and_names_are_text(tmp_path, sent):
    affine = np.eye(4)
    image = nib.Nifti1Image(np.ones(SHAPE, np.float32), affine)
    viewer = SliceViewer.from_images(image, {EVIL: image, "</script>": image}, title=EVIL)
    viewer.controls["sign"].value = "positive"
    viewer.go_to((3, 4, 5))
    text = viewer.save_html(tmp_path / "view.html").read_text(encoding="utf-8")
    assert EVIL not in text
    assert text.count("</script>") == 2
    assert "http" not in text.replace("http-equiv", "")
    content = content_of(text)
    assert content["settings"]["sign"] == 1
    assert content["scene"]["panels"][0]["name"] == EVIL
    assert content["scene"]["view"]["mm"] == [3, 4, 5]


def content_of(page):
    start = page.index('type="application/json">') + len('type="application/json">')
    return json.loads(page[start : page.index("</script>")])


def test_a_saved_page_is_a_download_of_the_view_of_the_browser(make_run, sent):
    run = make_run()
    before = sorted(run.path.rglob("*"))
    viewer = SliceViewer(run)
    scene, _ = sent[-1]
    settings = {"sign": 2, "inside": False, "threshold": 1.0, "planes": 4}
    mm = nib.affines.apply_affine(scene["affine"], [3, 9, 5]).tolist()
    view = {"mm": mm, "zoom": 2, "centre": [4, 5, 6], "turn": [10, 20], "active": 1, "row": 0}
    view |= {"settings": settings, "thresholds": {"GradCAM": 1.0, "Mask": 0.5}}
    receive(viewer, kind="save_html", view=view)
    answer, (page,) = sent[-1]
    assert answer == {"kind": "page"}
    assert sorted(run.path.rglob("*")) == before  # nothing is written
    content = content_of(page.decode())
    assert content["scene"]["view"] == view
    assert settings.items() <= content["settings"].items()
    assert content["checks"].keys() == {"inside", "smooth"}  # this run has neither truth nor atlas
    assert content["readout"]["at"] == [3, 9, 5]
    receive(viewer, kind="point", voxel=[3, 9, 5])
    assert sent[-1][0]["values"] == content["readout"]["values"]
    for method, kept in zip(("GradCAM", "Mask"), content["clusters"], strict=True):
        asked = {"method": method, "threshold": view["thresholds"][method], "sign": "negative"}
        receive(viewer, kind="clusters", inside=False, **asked)
        assert kept == {**asked, "inside": False, "rows": sent[-1][0]["rows"]}
    assert len(content["clusters"][0]["rows"]) > 1
    assert content["clusters"][1]["rows"] == []  # a map without negative values


def test_a_viewer_is_displayed_where_it_was_sent_before(make_run, sent):
    viewer = SliceViewer(make_run())
    receive(viewer, kind="ready")
    assert sent[-1][0]["view"] is None  # the browser begins at the start of the scene
    viewer.go_to((1, 2, 3))
    receive(viewer, kind="ready")
    assert sent[-1][0]["view"] == {"mm": [1.0, 2.0, 3.0]}
    moved = {"mm": [5.0, 6.0, 7.0], "zoom": 2, "settings": {}}
    viewer.canvas._handle_custom_msg({"kind": "picture", "view": moved}, [b""])
    receive(viewer, kind="ready")  # a second output of the same viewer
    assert sent[-1][0]["view"] == moved


def test_scripts_are_short_and_write_text_only():
    for name in SCRIPTS:
        source = (HERE / name).read_text(encoding="utf-8")
        assert source in SliceCanvas._esm
        assert len(source.splitlines()) <= 300
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http"):
            assert word not in source


def test_group_maps(make_run, sent):
    run = make_run()
    for k, method in enumerate(METHODS):
        write_group_map(run, method, "class-f", "mean", values_of(7, k), awkward_affine(), {})
    viewer = SliceViewer(run)
    viewer.show("mean class f")
    assert sent[-1][0]["title"] == "group · mean class f"
    assert [panel["name"] for panel in sent[-1][0]["panels"]] == list(METHODS)


def test_view_writes_a_notebook_beside_the_run(make_run, tmp_path, monkeypatch):
    run = make_run()
    path = write_notebook(run.path)
    notebook = json.loads(path.read_text())
    assert 'SliceViewer(".")' in notebook["cells"][0]["source"]
    assert ".ipynb" not in path.read_text()  # the folder of a run contains no other notebook
    assert str(tmp_path) not in path.read_text()
    path.write_text("mine")
    assert write_notebook(run.path).read_text() == "mine"
    started = []

    def become(program, command):  # it does not come back
        started.extend(command)
        raise SystemExit(0)

    monkeypatch.setattr("xai_brain.tools.view.os.execv", become)
    with pytest.raises(SystemExit):
        view([str(run.path), "--no-browser"])
    opened = "--LabApp.default_url=/lab/tree/view.ipynb"  # also the address that is printed
    assert started[1:] == ["-m", "jupyterlab", str(path), opened, "--no-browser"]
    started.clear()
    with pytest.raises(SystemExit):
        view([str(run.path), f"--ServerApp.root_dir={run.path.parent}"])
    assert started[4] == "--LabApp.default_url=/lab/tree/run/view.ipynb"
    started.clear()
    with pytest.raises(SystemExit):
        view([str(run.path), "--no-browser", "--port", "8917", "--allow-root"])
    assert started[5:] == ["--no-browser", "--port", "8917", "--allow-root"]
    with pytest.raises(ViewError, match="usage: xai-brain view"):
        view([])
    with pytest.raises(ViewError, match="contains no run"):
        view([str(tmp_path)])


def test_a_real_run(small_run, sent):
    viewer = SliceViewer(small_run)
    content, _ = sent[-1]
    assert content["outlines"] == ["truth"]
    assert len(content["panels"]) == 3
    assert (
        len(viewer._catalogue.entries) == len(read_tsv(small_run.predictions)) + 6
    )  # mean, sd and median of two classes


class Shell:
    """What a cell publishes."""

    def __init__(self, monkeypatch):
        self.outputs, self.updates = [], []
        monkeypatch.setattr("IPython.display.display", lambda data, **more: self.outputs.append((data, more)))
        monkeypatch.setattr(
            "IPython.display.update_display", lambda data, **more: self.updates.append((data, more))
        )


def test_a_notebook_keeps_the_last_view_as_a_picture(make_run, sent, monkeypatch):
    shell = Shell(monkeypatch)
    viewer = SliceViewer(make_run())
    viewer._ipython_display_()
    (widget, _), (kept, about) = shell.outputs
    assert widget["application/vnd.jupyter.widget-view+json"]["model_id"] == viewer.model_id
    assert widget["text/plain"] == ""  # no repr where widgets cannot be shown
    sentence = "Static picture of the last view; run this cell again to restore the interactive viewer."
    assert kept["text/plain"] == sentence
    assert sentence in kept["text/html"]
    assert "<img" not in kept["text/html"]
    assert f"xai-view-{viewer.canvas.view_id}" in kept["text/html"]  # by which the browser hides it
    picture = b"\xff\xd8\xff\xe0" + bytes(range(256))
    viewer.canvas._handle_custom_msg({"kind": "picture"}, [memoryview(picture)])
    ((shown, where),) = shell.updates
    assert where["display_id"] == about["display_id"]
    assert f'src="data:image/jpeg;base64,{b64encode(picture).decode()}"' in shown["text/html"]


@pytest.mark.parametrize("content", [b"", b"<script>alert(1)</script>", b"\xff\xd8\xff" + bytes(2**20)])
def test_what_is_no_picture_of_moderate_size_is_not_kept(make_run, sent, monkeypatch, content):
    shell = Shell(monkeypatch)
    viewer = SliceViewer(make_run())
    viewer._ipython_display_()
    viewer.canvas._handle_custom_msg({"kind": "picture"}, [content])
    assert shell.updates == []


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

"""Texts of the viewer: what maps explain, and what is missing."""

from __future__ import annotations

import pytest
from viewer_runs import METHODS, content_of, receive

from xai_brain.runs.directory import sidecar, write_json
from xai_brain.viewer import SliceViewer, slice_viewer
from xai_brain.viewer.meaning import explained_text, explained_text_of_group, value_text


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


def test_an_error_in_an_answer_is_a_note(make_run, sent, monkeypatch):
    viewer = SliceViewer(make_run())
    monkeypatch.setattr(slice_viewer, "readout_at", lambda *_: 1 / 0)
    receive(viewer, kind="point", voxel=[1, 2, 3])
    assert [content["kind"] for content, _ in sent[-2:]] == ["note", "readout"]
    assert "division by zero" in sent[-2][0]["text"]

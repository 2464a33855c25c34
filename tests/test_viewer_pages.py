"""Pages and notebooks of the viewer."""

from __future__ import annotations

import json
from base64 import b64encode

import nibabel as nib
import numpy as np
import pytest
from viewer_runs import EVIL, METHODS, SHAPE, content_of, receive

from xai_brain.tools.view import ViewError, view, write_notebook
from xai_brain.viewer import SliceViewer
from xai_brain.viewer.canvas import HERE, SCRIPTS, SliceCanvas
from xai_brain.viewer.readout import clusters_of


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

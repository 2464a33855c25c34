"""Slices, 3-D view, saved page and saved picture show the same position, colours and threshold."""

from __future__ import annotations

import io
import shutil
from base64 import b64decode
from itertools import product
from pathlib import Path

import lab
import numpy as np
import pytest
from PIL import Image

from xai_brain.viewer.canvas import colour_tables, script

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]
SHAPE = (12, 14, 16)
AT = (5, 6, 9)
# what the functions of the canvas draw for a given scene: the three planes, and the 3-D view
DRAW = """([source, { panel, settings, tables, back, map, shape, at, turn, size }]) => {
  const parts = new Function(source.replace("export default { render };", "") +
    "return { PLANES, lookup, drawVoxels, cast, cameraOf, fogOf, reachOf };")();
  const get = (name) => settings[name], colours = Uint8Array.from(tables);
  const rgb = (share, signed) => {
    const i = 3 * Math.round(signed ? 127.5 + 127.5 * share : 256 + 127 * share);
    return colours.subarray(i, i + 3);
  };
  const scene = { shape, box: shape.map((n) => [0, n]), spacing: [2, 3, 2.5] };
  scene.volumes = [Uint8Array.from(back)];
  Object.assign(scene, { fog: parts.fogOf(scene), reach: parts.reachOf(scene) });
  const looks = parts.lookup(panel, rgb, get), codes = Uint8Array.from(map);
  const planes = parts.PLANES.map((plane) => {
    const page = document.createElement("canvas");
    parts.drawVoxels(page, scene, plane, at, codes, looks, true);
    return [...page.getContext("2d").getImageData(0, 0, page.width, page.height).data];
  });
  const view = { at, centre: shape.map((n) => n / 2), camera: parts.cameraOf(turn), inside: true, perMm: 4 };
  const { image, hits } = parts.cast(scene, codes, looks, view, size);
  return { planes, out: view.camera.out, image: [...image.data], hits: [...hits] };
}"""
SET_THRESHOLD = """value => {
  const input = document.querySelectorAll(".xai-dials input[type=range]")[1];
  input.value = value;
  for (const kind of ["input", "change"]) input.dispatchEvent(new Event(kind));
}"""


@pytest.fixture(scope="module")
def codes():
    """A brain without corners, and a map: positive on the left, negative on the right, weak elsewhere."""
    x, y, z = np.indices(SHAPE)
    brain = ((x - 5.5) / 5.5) ** 2 + ((y - 6.5) / 6.5) ** 2 + ((z - 7.5) / 7.5) ** 2 < 1.4
    back = np.where(brain, 60 + 9 * ((x + 2 * y + 3 * z) % 11), 0)
    code = 128 + ((x * y + z) % 21 - 10)
    code = np.where(x < 4, 170 + 7 * (y % 12), np.where(x > 7, 90 - 7 * (z % 12), code))
    return back, code


@pytest.fixture
def page():
    with lab.chromium() as watched:
        yield watched.page
        assert watched.errors == []


def draw(page, codes, *, signed=True, sign=0, turn=(-35, 30), size=(150, 140)):
    back, code = codes
    code = code if signed else np.maximum(code, 128)
    quantiles = np.linspace(0, 1, 101).tolist()
    panel = {"maximum": 1.0, "limit": 0.9, "signed": signed, "quantiles": quantiles}
    settings = {"threshold_kind": 3, "threshold_value": 0.05, "threshold": 5, "sign": sign, "opacity": 0.8}
    given = {"panel": panel, "settings": settings, "tables": colour_tables()[0].ravel().tolist()}
    given |= {"back": back.ravel(order="F").tolist(), "map": code.ravel(order="F").tolist()}
    given |= {"shape": SHAPE, "at": AT, "turn": turn, "size": size}
    drawn = page.evaluate(DRAW, [script(), given])
    hits = np.array(drawn["hits"]).reshape(size[::-1])
    pixels = np.array(drawn["image"]).reshape(*size[::-1], 4)[..., :3]
    planes = {}
    for axis, plane in zip((2, 1, 0), drawn["planes"], strict=True):
        right, up = (k for k in range(3) if k != axis)
        shown = np.array(plane).reshape(SHAPE[up], SHAPE[right], 4)[::-1, :, :3]
        planes[axis] = shown.swapaxes(0, 1)  # (right, up, colour)
    voxels = np.stack(np.unravel_index(np.maximum(hits, 0), SHAPE, order="F"), -1)
    return planes, pixels, hits, voxels, np.array(drawn["out"]), code


def test_the_cut_faces_of_the_3d_view_are_the_slices(page, codes):
    for turn, signed in product([(-35, 30), (20, -50), (140, 10)], [True, False]):
        check_cut_faces(codes, *draw(page, codes, turn=turn, signed=signed)[:-1])


def check_cut_faces(codes, planes, pixels, hits, voxels, out):
    nearer = (voxels - AT) * np.sign(out) > 0
    assert not nearer[hits >= 0].all(-1).any()  # the corner between the viewer and the crosshair is cut away
    n_compared, brain = 0, np.pad(codes[0] > 0, 1)
    for axis, plane in planes.items():
        others = [k for k in range(3) if k != axis]
        face = (hits >= 0) & (voxels[..., axis] == AT[axis]) & nearer[..., others].all(-1)
        for k in range(3):  # anatomy in front of it, which was cut away; the rim of the brain is shaded
            front = voxels + np.sign(out).astype(int) * (np.arange(3) == k)
            face &= brain[tuple(np.moveaxis(front + 1, -1, 0))]
        at = voxels[face][:, others]
        np.testing.assert_array_equal(pixels[face], plane[at[:, 0], at[:, 1]])
        n_compared += face.sum()
    assert n_compared > 500


def test_signs_have_their_colours_and_weak_values_none(page, codes):
    _, pixels, hits, voxels, _, code = draw(page, codes)
    there = hits >= 0
    shown = code[tuple(voxels[there].T)] - 128
    red, green, blue = pixels[there].T
    strong = np.abs(shown) >= np.sqrt(0.05) * 127
    assert (red - blue)[strong & (shown > 0)].min() > 10
    assert (blue - red)[strong & (shown < 0)].min() > 10
    assert (red == blue)[~strong].all()
    assert (red == green)[~strong].all()
    assert min((strong & (shown > 0)).sum(), (strong & (shown < 0)).sum(), (~strong).sum()) > 200
    _, pixels, hits, voxels, _, code = draw(page, codes, sign=1)  # positive values only
    negative = (hits >= 0) & (code[tuple(np.moveaxis(voxels, -1, 0))] < 128)
    assert negative.sum() > 200
    assert (pixels[negative][:, 0] == pixels[negative][:, 2]).all()


def test_left_is_left_in_the_3d_view(page, codes):
    _, _, hits, voxels, _, _ = draw(page, codes, turn=(0, 0))  # from behind
    rows, columns = np.nonzero(hits >= 0)
    x, z = voxels[rows, columns][:, 0], voxels[rows, columns][:, 2]
    assert np.corrcoef(columns, x)[0, 1] > 0.99
    assert np.corrcoef(-rows, z)[0, 1] > 0.99


def picture_of(page):
    page.wait_for_timeout(600)  # the 3-D view has its full resolution
    return page.locator(".xai-slices canvas").evaluate("canvas => canvas.toDataURL()")


def texts_of(page):
    """Position, captions, readout and clusters, as they are shown."""
    page.wait_for_selector(".xai-readout.exact")
    parts = [page.locator(f".xai-{name}").inner_text() for name in ("readout", "clusters")]
    return [page.locator(".xai-slices canvas").get_attribute("aria-label"), *parts]


def test_a_run_looks_the_same_in_slices_3d_page_and_picture(small_run, tmp_path):
    run = tmp_path / "work" / "run"
    shutil.copytree(small_run.path, run)
    before = sorted(run.rglob("*"))
    cell = "from xai_brain import SliceViewer\nSliceViewer('run')"
    lab.write_notebook(tmp_path / "work" / "run.ipynb", cell)
    with lab.jupyterlab(tmp_path / "work", tmp_path) as address, lab.chromium() as watched:
        page = watched.page
        lab.open_notebook(watched, address, "run.ipynb")
        assert lab.run_all(watched) == []
        page.wait_for_selector(".xai-readout.exact")
        output = page.locator(".jp-OutputArea-output:has(.xai-slices)").bounding_box()
        canvas = page.locator(".xai-slices canvas").bounding_box()
        assert canvas["width"] > 0.97 * output["width"]  # it fills the cell
        page.evaluate(lab.CHOOSE, ["Threshold by", "percentile"])
        page.evaluate(SET_THRESHOLD, 97.5)
        page.evaluate(lab.CHOOSE, ["Colours", "hot–cool"])
        page.wait_for_function("() => document.querySelectorAll('.xai-clusters td').length > 0")
        page.wait_for_timeout(1000)  # the clusters are those of this threshold
        page.get_by_role("button", name="Next cluster").click()
        slices = texts_of(page)
        assert "(percentile 97.5)" in slices[0]
        page.evaluate(lab.CHOOSE, ["Show", "3-D"])
        page.wait_for_timeout(600)
        assert texts_of(page) == slices
        page.evaluate(lab.CHOOSE, ["Show", "planes and 3-D"])
        page.locator(".xai-slices").focus()
        for key in ("+", "Shift+ArrowLeft", "ArrowUp"):
            page.keyboard.press(key)
        shown, texts = picture_of(page), texts_of(page)
        with page.expect_download() as png:
            page.get_by_role("button", name="Save PNG").click()
        page.get_by_text(".png (").wait_for()  # it is said what happened
        assert "was saved as a download" in page.locator(".xai-status").inner_text()
        with page.expect_download() as html:
            page.get_by_role("button", name="Save HTML").click()
        page.get_by_text(".html (").wait_for()
        html.value.save_as(tmp_path / "saved.html")
        width = page.locator(".xai-slices").bounding_box()["width"]
        size = page.locator(".xai-slices canvas").evaluate("canvas => [canvas.width, canvas.height]")
        assert sorted(run.rglob("*")) == before  # nothing is written beside the run
        picture = Image.open(io.BytesIO(Path(png.value.path()).read_bytes()))
        with page.context.browser.new_context(offline=True) as context:
            context.set_default_timeout(60_000)
            alone = lab.Watched(context.new_page())
            alone.page.set_viewport_size({"width": round(width) + 32, "height": 1300})
            alone.page.goto((tmp_path / "saved.html").as_uri())
            alone.page.wait_for_function("() => document.querySelectorAll('.xai-clusters td').length > 0")
            assert texts_of(alone.page) == texts
            assert picture_of(alone.page) == shown
            alone.page.evaluate(SET_THRESHOLD, 50)  # clusters of another threshold need Python
            alone.page.get_by_text("not in this page for this threshold").wait_for()
            assert alone.external == alone.errors == []
    assert watched.external == watched.errors == []
    check_picture(picture, shown, size)


def check_picture(picture, shown, size):
    """The saved picture contains the canvas, with twice as many pixels in each direction."""
    assert picture.width >= 2 * size[0]
    assert picture.height > 2 * size[1]
    on_screen = Image.open(io.BytesIO(b64decode(shown.partition(",")[2]))).convert("L")
    assert on_screen.size == tuple(size)
    dark = np.asarray(picture.convert("L")).mean(1) < 128
    top = int(np.argmax(dark))  # title and caption are on white
    part = picture.convert("L").crop((0, top, 2 * size[0], top + 2 * size[1]))
    part = part.resize(size, Image.Resampling.BOX)
    assert np.corrcoef(np.ravel(on_screen), np.ravel(part))[0, 1] > 0.97

"""The viewer as a user meets it: JupyterLab in a real browser, no network, no Python in the way of the mouse.

What it measures is printed last, as one line of JSON; times depend on the machine and are not asserted.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import cohort
import lab
import nibabel as nib
import numpy as np
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]
SENTENCE = "Static picture of the last view; run this cell again to restore the interactive viewer."
EVIL = "<img src=x onerror=alert(1)>"
HERE = Path(__file__).parent
NOTEBOOKS = HERE.parents[1] / "notebooks"
DRAWN = """canvas => { // share of the pixels that are not black: crosshairs and letters alone are few
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let n = 0;
  for (let i = 1; i < data.length; i += 4) n += data[i] > 20;
  return n / (canvas.width * canvas.height); }"""
PIXELS = """picture => { // of a canvas or an image, 40 x 40 means of its colours
  const small = Object.assign(document.createElement('canvas'), {width: 40, height: 40});
  const pen = small.getContext('2d');
  pen.imageSmoothingQuality = 'high', pen.drawImage(picture, 0, 0, 40, 40);
  return [...pen.getImageData(0, 0, 40, 40).data].filter((_, i) => i % 4 < 3); }"""
COLLECT = """() => {
  window.seen = {};
  new PerformanceObserver((list) => list.getEntries().forEach((entry) =>
    (window.seen[entry.name] = window.seen[entry.name] || []).push(
      {ms: entry.duration, end: entry.startTime + entry.duration, ...entry.detail})
  )).observe({type: 'measure'});
}"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    run = cohort.write_run(folder / "work" / "run", n_subjects=4)
    setup = f"import sys\nsys.path.insert(0, {str(HERE)!r})\nimport cohort\nfrom xai_brain import SliceViewer"
    look = "labels_img, lut = cohort.atlas()\n"
    look += "viewer = SliceViewer('run', labels_img=labels_img, lut=lut)\nviewer"
    lab.write_notebook(folder / "work" / "run.ipynb", setup, look)
    image = f"run/images/{run.image('sub-0001', None).name}"
    evil = (
        f"maps = {{{EVIL!r}: 'run/{EVIL.replace('<', '').replace('>', '')}.nii.gz', 'second': {image!r}}}\n"
    )
    evil += f"SliceViewer.from_images({image!r}, maps, title={EVIL!r})"
    lab.write_notebook(folder / "work" / "evil.ipynb", setup, evil)
    with lab.jupyterlab(folder / "work", folder) as address:
        yield folder / "work", run, address


def seen(page, name, at_least=0, seconds=10):
    """Measures of a name, when there are enough of them."""
    page.wait_for_function(
        "([name, n]) => (window.seen[name] || []).length >= n", arg=[name, at_least], timeout=seconds * 1000
    )
    return page.evaluate("name => window.seen[name] || []", name)


def forget(page):
    page.wait_for_timeout(400)  # what is under way is finished
    page.evaluate("() => (window.seen = {})")


def drag(page, start, end, moves):
    page.mouse.move(*start)
    page.mouse.down()
    for k in range(1, moves + 1):
        page.mouse.move(*(a + (b - a) * k / moves for a, b in zip(start, end, strict=True)))
    page.mouse.up()


def plane_middles(page):
    """Middle of the first panel's axial plane, in page pixels; panels are columns of planes."""
    box = page.locator(".xai-slices canvas").bounding_box()
    return box["x"] + box["width"] / 8, box["y"] + 54 + (box["height"] - 54) / 6


def test_the_viewer_in_jupyterlab(place):
    folder, run, address = place
    with lab.chromium() as watched:
        page = watched.page
        lab.open_notebook(watched, address, "run.ipynb")
        assert lab.run_all(watched) == []
        page.wait_for_selector(".xai-readout.exact")
        page.evaluate(COLLECT)
        page.wait_for_timeout(800)
        forget(page)

        # the crosshair begins in the truth: what is shown there is what nibabel reads
        shown = page.locator(".xai-readout").inner_text()
        check_readout(shown, run, "sub-0001")
        assert page.locator(".xai-slices canvas").evaluate(DRAWN) > 0.2

        # a drag: four linked panels follow the pointer
        x, y = plane_middles(page)
        drag(page, (x - 70, y - 90), (x + 70, y + 90), 60)
        draws = seen(page, "xai-brain-draw", 60)
        distinct = {tuple(entry["at"]) for entry in draws}
        assert len(distinct) >= 55
        readouts = seen(page, "xai-brain-readout", 1)  # positions passed meanwhile have none

        # clicks, opacity and threshold
        for k in range(20):
            page.mouse.click(x - 40 + 4 * k, y + 30 - 3 * k)
        for k, at in enumerate((0.8, 0.05)):  # of opacity, of threshold
            box = page.locator(".xai-dials input[type=range]").nth(k).bounding_box()
            left, middle = box["x"] + 8 + at * (box["width"] - 16), box["y"] + box["height"] / 2
            drag(page, (left, middle), (left + (-60 if k == 0 else 60), middle), 30)
        page.wait_for_timeout(500)
        draws += seen(page, "xai-brain-draw")[len(draws) :]
        assert len(draws) > 100
        for k in range(30):  # one at a time: from the event to the value shown
            before = len(seen(page, "xai-brain-readout"))
            page.mouse.click(x - 40 + 2 * k, y + 30 - 2 * k)
            readouts += seen(page, "xai-brain-readout", before + 1)[before:]

        subject_ms = [change_subject(page, k) for k in (1, 2, 3, 1)]
        check_jump(page, run)
        check_controls(page)
        turn_ms = turn_solid(page)
        notebook_kb = save(page, folder / "run.ipynb")

    redraw, readout = ([entry["ms"] for entry in entries] for entries in (draws, readouts))
    measured = {
        "redraw_ms_median": np.median(redraw),
        "redraw_ms_p95": np.percentile(redraw, 95),
        "readout_ms_median": np.median(readout),
        "readout_ms_p95": np.percentile(readout, 95),
        "subject_ms": np.median(subject_ms),
        "turn_3d_ms_median": np.median(turn_ms),
    }
    measured = {name: round(float(value), 1) for name, value in measured.items()}
    measured |= {"external_requests": len(watched.external), "console_errors": len(watched.errors)}
    measured |= {"notebook_kb": round(notebook_kb, 1), "drag_positions": len(distinct), "draws": len(draws)}
    (HERE / "measured.json").write_text(json.dumps(measured) + "\n")
    assert watched.external == []
    assert watched.errors == []
    assert notebook_kb < 300


def check_readout(shown, run, participant_id):
    mm = [float(x.replace("−", "-")) for x in shown.splitlines()[0].split(" mm")[0].split(",")]
    assert np.abs(np.subtract(mm, cohort.PLANTED_MM)).max() <= 2
    _, lut = cohort.atlas()
    assert any(name in shown for name in lut["name"])
    for method in cohort.METHODS:
        img = nib.load(run.attribution(participant_id, None, method, 0))
        i, j, k = np.rint(nib.affines.apply_affine(np.linalg.inv(img.affine), mm)).astype(int)
        assert f"{method}\t{img.get_fdata()[i, j, k]:.6g}".replace("-", "−") in shown


def change_subject(page, k):
    """Milliseconds from the choice in the list to the end of drawing."""
    forget(page)
    begun = page.evaluate(
        """k => { const list = document.querySelector('.xai-entries select');
        const begun = performance.now();
        list.selectedIndex = k; list.dispatchEvent(new Event('change', {bubbles: true})); return begun; }""",
        k,
    )
    (entry, *_) = seen(page, "xai-brain-scene", 1)
    assert entry["title"].startswith(f"sub-{k + 1:04d}")
    return entry["end"] - begun


def check_jump(page, run):
    """The peak of a map without noise lies where it was planted."""
    x, y = plane_middles(page)
    box = page.locator(".xai-slices canvas").bounding_box()
    page.mouse.click(x + box["width"] / 2, y)  # the third panel's clusters
    page.wait_for_function(
        "() => document.querySelector('.xai-clusters').textContent.includes('MeaningfulPerturbation')"
    )
    page.wait_for_function("() => document.querySelectorAll('.xai-clusters td').length > 0")
    page.get_by_role("button", name="Peak").click()
    page.wait_for_selector(".xai-readout.exact")
    check_readout(page.locator(".xai-readout").inner_text(), run, "sub-0002")
    before = page.locator(".xai-place").first.inner_text()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "before => document.querySelector('.xai-place').textContent !== before", arg=before
    )
    assert page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCellIndex") == 1


def check_controls(page):
    """Choosing one method draws one panel; the search narrows the list."""
    for name in cohort.METHODS[1:]:
        forget(page)
        page.get_by_role("button", name=name).click()
        seen(page, "xai-brain-scene", 1)
    assert page.locator(".xai-readout tr").count() == 1 + len(cohort.METHODS)  # every method is read out
    page.get_by_placeholder("search by id").fill("0003")
    page.wait_for_function("() => document.querySelector('.xai-entries select').options.length === 1")


def turn_solid(page):
    """Milliseconds from the move of the mouse to the 3-D view of one method, while it turns."""
    page.evaluate(lab.CHOOSE, ["Show", "3-D"])
    seen(page, "xai-brain-solid", 1)  # the view in full resolution
    forget(page)
    box = page.locator(".xai-slices canvas").bounding_box()
    start = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    drag(page, start, (start[0] + 150, start[1] + 40), 30)
    turned = seen(page, "xai-brain-draw", 10)
    # half a degree per pixel; where the mouse rested on its way, earlier positions were drawn, too
    is_there = "turn => (window.seen['xai-brain-solid'] || []).some(each => `${each.turn}` === `${turn}`)"
    page.wait_for_function(is_there, arg=[-35 - 75, 30 + 20])
    return [entry["ms"] for entry in turned]


def save(page, path):
    before = path.stat().st_mtime_ns
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    for _ in range(50):
        if path.stat().st_mtime_ns != before:
            break
        time.sleep(0.1)
    assert "outputs" in path.read_text()
    return path.stat().st_size / 1000


@pytest.mark.parametrize("save_state", [False, True])
def test_a_reopened_notebook_shows_the_last_view(place, tmp_path, save_state):
    folder, _, _ = place
    lab.write_notebook(folder / "last.ipynb", "from xai_brain import SliceViewer\nSliceViewer('run')")
    with lab.jupyterlab(folder, tmp_path, save_state=save_state) as address:
        with lab.chromium() as watched:
            page = watched.page
            lab.open_notebook(watched, address, "last.ipynb")
            assert lab.run_all(watched) == []
            page.wait_for_selector(".xai-readout.exact")
            x, y = plane_middles(page)
            page.mouse.click(x - 60, y + 50)  # the last view is another than the first
            page.wait_for_function("() => document.querySelector('.xai-last-view img')")
            page.wait_for_timeout(3000)
            assert not page.locator(".xai-last-view").is_visible()
            drawn = page.locator(".xai-slices canvas").evaluate(PIXELS)
            save(page, folder / "last.ipynb")
        lab.stop_kernels(address)
        with lab.chromium() as watched:
            lab.open_notebook(watched, address, "last.ipynb")
            picture = watched.page.locator(".xai-last-view img")
            picture.wait_for()
            watched.page.wait_for_timeout(3000)
            shown = picture.evaluate(PIXELS)
            assert watched.page.locator(".xai-slices canvas:visible").count() == 0
            text = watched.page.locator(".jp-Notebook .jp-OutputArea").inner_text().strip()
    assert len(drawn) == len(shown) == 3 * 40 * 40
    assert np.corrcoef(drawn, shown)[0, 1] > 0.97
    assert text.endswith(SENTENCE)
    assert "VBox(" not in text
    if not save_state:  # the default of JupyterLab: no control of the viewer is left
        assert text == SENTENCE


def test_names_are_text_and_a_missing_map_is_a_message(place):
    _, _, address = place
    with lab.chromium() as watched:
        lab.open_notebook(watched, address, "evil.ipynb")
        assert lab.run_all(watched) == []
        watched.page.wait_for_selector(".xai-readout.exact")
        note = watched.page.locator(".xai-notes").inner_text()
        assert EVIL in note
        assert "does not exist" in note
        assert watched.page.locator("img[src=x]").count() == 0
        assert "Traceback" not in watched.page.locator(".jp-Notebook").inner_text()
    assert watched.external == []
    assert watched.errors == []


def test_view_opens_a_ready_notebook(place):
    _, run, _ = place
    home = run.path.parent / "view_home"
    with (
        lab.jupyterlab(run.path.parent, home, ("-m", "xai_brain", "view", "run")) as address,
        lab.chromium() as watched,
    ):
        lab.open_notebook(watched, address, "run/view.ipynb")
        assert lab.run_all(watched) == []
        watched.page.wait_for_selector(".xai-readout.exact")
        assert watched.page.locator(".xai-slices canvas").evaluate(DRAWN) > 0.2
    assert watched.external == []
    assert watched.errors == []


def test_report_from_disk(small_run):
    with lab.chromium() as watched:
        requests = []
        watched.page.on("request", lambda request: requests.append(request.url))
        watched.page.goto(small_run.report.as_uri())
        watched.page.wait_for_load_state("load")
        widths = watched.page.evaluate("() => [...document.images].map((image) => image.naturalWidth)")
    assert widths
    assert all(widths)
    # whether the figures lie beside the page, so that their names become links
    beside = (small_run.path / "figures" / "verdict.png").as_uri()
    assert {url for url in requests if not url.startswith("data:")} == {small_run.report.as_uri(), beside}
    assert watched.errors == []


@pytest.mark.parametrize(
    ("name", "n_viewers", "n_pictures"), [("00_start_here", 0, 3), ("04_looking_at_maps", 5, 0)]
)
def test_a_notebook_runs_in_the_browser(name, n_viewers, n_pictures, tmp_path):
    (tmp_path / "work").mkdir()
    shutil.copytree(NOTEBOOKS / "images", tmp_path / "work" / "images")
    shutil.copy(NOTEBOOKS / f"{name}.ipynb", tmp_path / "work")
    with lab.jupyterlab(tmp_path / "work", tmp_path) as address, lab.chromium() as watched:
        lab.open_notebook(watched, address, f"{name}.ipynb")
        assert lab.run_all(watched) == []
        viewers = watched.page.locator(".xai-slices canvas")
        assert viewers.count() == n_viewers
        for k in range(n_viewers):
            viewers.nth(k).scroll_into_view_if_needed()
            assert viewers.nth(k).bounding_box()["width"] > 300
            assert viewers.nth(k).evaluate(DRAWN) > 0.2, "no brain is drawn"
        if name.startswith("04"):
            check_that_viewers_show_what_the_text_says(watched.page)
        pictures = watched.page.locator(".jp-OutputArea img:visible")
        assert pictures.count() == n_pictures
        for k in range(n_pictures):
            pictures.nth(k).scroll_into_view_if_needed()
            assert pictures.nth(k).evaluate("image => image.naturalWidth") > 100
    assert watched.external == []
    assert watched.errors == []


def check_that_viewers_show_what_the_text_says(page):
    """Notebook 04: the place that is read by hand, the threshold, the other participant, the peak."""
    output = page.locator(".jp-OutputArea-output pre").filter(has_text="array([")
    text = output.text_content()  # of the cell that reads by hand, which may be out of sight
    by_hand = [float(x) for x in text.split("array([")[1].split("]")[0].split(",")]
    labels = [each.get_attribute("aria-label") for each in page.locator(".xai-slices canvas").all()]
    for label, participant in zip(labels, ("sub-0001", "sub-0001", "sub-0002"), strict=False):
        assert label.startswith(participant)
        mm = [float(x.replace("−", "-")) for x in label.split(" mm")[0].split(", ")[-3:]]
        assert np.abs(np.subtract(mm, by_hand)).max() <= 2.6  # half of a voxel of 4 mm, and rounding
    assert labels[1].count(" v ≥ ") == labels[1].count("(top 2 %)") == 3
    assert " v ≥ " not in labels[0]
    peak = page.locator(".xai-readout").nth(3)
    assert "100.0" in peak.text_content()
    assert "half" in peak.text_content()

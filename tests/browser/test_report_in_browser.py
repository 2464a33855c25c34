"""The report in a real browser, opened as a file: first screen, figures, tables, copying, links, print."""

from __future__ import annotations

import re
import shutil

import lab
import pytest
from report_runs import set_differences, set_scores, set_size_difference

from xai_brain.reporting.html_report import write_report
from xai_brain.runs.directory import RunDirectory

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]
PHONE, DESKTOP = (390, 844), (1280, 800)
BOTTOM = "selector => document.querySelector(selector).getBoundingClientRect().bottom"
CLIPPED = """() => [...document.querySelectorAll('main *')].filter((each) => {
  if (each.closest('.scroll') || each.closest('pre')) return false;
  const box = each.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
}).map((each) => each.outerHTML.slice(0, 80))"""
LINKS = "() => [...document.querySelectorAll('[data-file] a')].map((each) => each.href)"


@pytest.fixture
def opened(small_run):
    """Open the report of the run, or a copy of the page, on a screen of some size."""

    def on_screen(watched, path=small_run.report):
        watched.page.goto(path.as_uri())
        return watched.page

    return on_screen


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_verdict_and_figure_are_on_the_first_screen_and_nothing_is_clipped(opened, size):
    with lab.chromium(*size) as watched:
        page = opened(watched)
        assert page.evaluate(BOTTOM, ".verdict figure img") <= size[1]
        assert page.evaluate(BOTTOM, ".verdict dl") < page.evaluate(BOTTOM, ".verdict figure img")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate(CLIPPED) == []
        assert watched.errors == []
        assert watched.external == []


@pytest.mark.parametrize(
    ("balanced", "warning"),
    [((0.61, 0.52, 0.7), "The network is above chance, but"), ((0.6, 0.4, 0.7), "The evidence is weak")],
)
def test_verdict_of_five_methods_with_warnings_is_on_the_first_screen_of_a_phone(
    opened, changed, balanced, warning
):
    set_scores(changed, auroc=(0.66, 0.55, 0.77), balanced_accuracy=balanced)
    set_size_difference(changed, -0.2, 0.1)
    path = write_report(changed)
    with lab.chromium(*PHONE) as watched:
        page = opened(watched, path)
        text = page.locator(".verdict dl").inner_text()
        assert warning in text
        assert "Brain size may explain the performance" in text
        assert "5 methods are above chance" in text
        assert page.evaluate(BOTTOM, ".verdict figure img") <= PHONE[1]
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert page.evaluate(CLIPPED) == []


def test_verdict_with_differences_and_warnings_is_on_the_first_screen(opened, compared, tmp_path):
    shutil.copytree(compared[0].path, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    set_differences(run)
    set_scores(run, auroc=(0.66, 0.55, 0.77), balanced_accuracy=(0.61, 0.52, 0.7))
    set_size_difference(run, -0.2, 0.1)
    path = write_report(run)
    for size in (PHONE, DESKTOP):
        with lab.chromium(*size) as watched:
            page = opened(watched, path)
            text = page.locator(".verdict dl").inner_text()
            assert "GradCAM: insula, cuneus and (0, 0, 0) mm" in text
            assert "LRP: half_L" in text
            assert "not over the 5 methods" in text
            assert page.evaluate(BOTTOM, ".verdict figure img") <= size[1]
            assert page.evaluate(CLIPPED) == []


def test_t_maps_and_bars_are_large_on_a_phone(opened, compared, tmp_path):
    shutil.copytree(compared[0].path, tmp_path / "run")
    path = write_report(RunDirectory(tmp_path / "run"))  # with pictures
    with lab.chromium(*PHONE) as watched:
        page = opened(watched, path)
        narrow = page.locator("figure:has(source)")
        for k in range(narrow.count()):
            img = narrow.nth(k).locator("img")
            assert img.evaluate("img => img.currentSrc.startsWith('data:image')")
            assert img.evaluate("img => img.naturalWidth / img.getBoundingClientRect().width < 2.6")
        assert page.locator("#regions figure:not(:has(source))").count() == 0
        assert page.locator("#localization figure:not(:has(source))").count() == 0
        img = page.locator("#groups figure img").first
        assert img.evaluate("img => img.currentSrc === img.parentElement.querySelector('source').srcset")
        box = img.bounding_box()
        assert box["height"] > box["width"]  # three slices in a line instead of seven


@pytest.mark.parametrize("key", ["Enter", "Space", None])
def test_figures_enlarge_by_tap_and_by_keyboard(opened, key):
    with lab.chromium(*PHONE) as watched:
        page = opened(watched)
        figure = page.locator("#performance figure .enlarge").first
        small = figure.bounding_box()["width"]
        if key:
            figure.focus()
            page.keyboard.press(key)
        else:
            figure.click()
        dialog = page.locator("dialog.enlarged")
        assert dialog.is_visible()
        large = dialog.locator("img")
        assert large.bounding_box()["width"] > 2 * small
        assert large.evaluate("img => img.naturalWidth") > 0
        at = dialog.evaluate("dialog => (dialog.scrollLeft = 1e6, dialog.scrollLeft)")
        assert at > 0
        assert at + PHONE[0] >= large.bounding_box()["width"] - 1  # its right end can be reached
        if key:
            page.keyboard.press("Escape")
            assert page.evaluate("document.activeElement.className") == "enlarge"
        else:
            dialog.locator("button").click()
        assert not dialog.is_visible()


def test_wide_tables_scroll_and_say_so(opened):
    with lab.chromium(*PHONE) as watched:
        page = opened(watched)
        wide = page.locator("#agreement .scroll.wide").first
        assert wide.evaluate("box => box.previousElementSibling.textContent") == (
            "More columns: scroll sideways →"
        )
        wide.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("box => box.scrollLeft > 0", arg=wide.element_handle())
        narrow = page.locator("#performance .scroll:not(.wide)")
        assert narrow.count() == 1
        assert not narrow.evaluate("box => box.previousElementSibling.matches('.hint')")
        page.set_viewport_size({"width": 1280, "height": 800})
        page.wait_for_function("!document.querySelector('#agreement .wide')")
        assert page.locator("#agreement .hint").count() == 0


@pytest.mark.parametrize("clipboard", ["as it is", "refused"])
def test_methods_text_is_copied_from_a_file(opened, clipboard):
    with lab.chromium(*DESKTOP) as watched:
        if clipboard == "refused":
            watched.page.add_init_script(
                "navigator.clipboard.writeText = () => Promise.reject(new Error('refused'))"
            )
        page = opened(watched)
        page.evaluate("document.addEventListener('copy', () => (window.copied = getSelection().toString()))")
        button = page.locator("button[data-copy]")
        button.click()
        page.wait_for_function("document.querySelector('button[data-copy]').textContent === 'Copied'")
        if clipboard == "refused":
            text = page.evaluate("window.copied")
        else:
            page.evaluate(
                "document.body.append(Object.assign(document.createElement('textarea'), {id: 'paste'}))"
            )
            page.locator("#paste").focus()
            page.keyboard.press("Control+V")
            text = page.locator("#paste").input_value()
        assert text.strip().startswith("Participants and images. Synthetic cohort with a planted effect")
        assert "Cross-validation. " in text
        assert re.search(r"Kokhlikyan 2020\)\.\s*$", text)


def test_names_are_links_only_where_the_files_are(opened, small_run, tmp_path):
    with lab.chromium(*DESKTOP) as watched:
        page = opened(watched)
        page.wait_for_selector("[data-file] a")
        found = page.evaluate(LINKS)
        assert len(found) == page.locator("[data-file]").count() > 20
        assert f"{small_run.path.as_uri()}/evaluation/summary.tsv" in found
    shutil.copy(small_run.report, tmp_path / "mailed.html")
    with lab.chromium(*DESKTOP) as watched:
        page = opened(watched, tmp_path / "mailed.html")
        page.wait_for_timeout(1000)
        assert page.evaluate(LINKS) == []
        assert page.locator("[data-file]").count() == len(found)


def test_print_shows_all_settings_last_and_cuts_no_figure(opened):
    with lab.chromium(680, 980) as watched:  # the width of A4 without margins
        page = opened(watched)
        page.emulate_media(media="print")
        top = {
            each: page.evaluate("id => document.getElementById(id).getBoundingClientRect().top", each)
            for each in ("limits", "methods", "references", "settings")
        }
        assert list(top.values()) == sorted(top.values())
        assert page.locator("#settings details pre").first.is_visible()
        assert not page.locator(".enlarged, .hint, .tools").first.is_visible()
        heights = page.evaluate(
            "[...document.querySelectorAll('figure:not(.mosaic)')].map((each) => each.offsetHeight)"
        )
        assert max(heights) < 263 / 25.4 * 96  # all fit on a page, and are not divided
        kept = """[...document.querySelectorAll('figure:not(.mosaic)')].every(
          (each) => getComputedStyle(each).breakInside === 'avoid')"""
        assert page.evaluate(kept)
        assert page.evaluate("document.documentElement.scrollWidth") <= 680

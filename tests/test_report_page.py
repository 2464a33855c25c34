"""The page of a report: order, links to files, quality control, text for the methods section."""

from __future__ import annotations

import re

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from xai_brain.io.nifti import load_img, save_img
from xai_brain.reporting import gallery
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import mosaic
from xai_brain.reporting.html_report import write_report
from xai_brain.reporting.sections import quality
from xai_brain.reporting.wording import count_networks, fixed, listed
from xai_brain.runs.directory import RunDirectory, read_tsv

FIELD = ((-76.0, 76.0), (-108.0, 76.0), (-70.0, 84.0))


@pytest.fixture(scope="module")
def page(small_run):
    return small_run.report.read_text()


def links(html):
    return re.findall(r'data-file="([^"]+)"', html)


def test_settings_are_last(page):
    ids = re.findall(r'<section id="([^"]+)"', page)
    assert ids[0] == "verdict"
    assert ids[-4:] == ["limits", "methods", "references", "settings"]
    shown = re.findall(r'<li><a href="#([^"]+)">', page)
    assert shown == ["summary", *ids[1:]]


def test_links_lead_to_files_of_the_run(small_run, page):
    names = links(page)
    assert all((small_run.path / name).exists() and not name.startswith("/") for name in names)
    figures = {f"figures/{path.name}" for path in (small_run.path / "figures").glob("*.png")}
    assert figures <= set(names)
    tables = {f"evaluation/{path.name}" for path in (small_run.path / "evaluation").glob("*.tsv")}
    assert tables <= set(names)
    assert {"predictions.tsv", "participants.tsv", "folds.tsv", "metrics.json", "config.yaml"} <= set(names)
    for section in re.split(r"<section ", page)[1:]:
        tables_of = section.count("<table>") - section.count("<tbody>\n<tr><th>xai-brain")
        assert tables_of == 0 or "data-file=" in section or section.startswith('id="settings"')
    assert not re.search(r'href="(?!#)', page)  # without the folder of the run there is no broken link


def test_every_figure_has_its_file(page):
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) > 8
    numbers = [int(re.search(r"<b>Figure (\d+)\.</b>", figure)[1]) for figure in figures]
    assert numbers == list(range(1, len(figures) + 1))
    own = [links(figure)[0] for figure in figures]
    assert len(set(own)) == len(own)
    assert all(name.startswith("figures/") and name.endswith(".png") for name in own)


# -- quality control -------------------------------------------------------------------------------


@pytest.fixture
def displaced(copied):
    """A run in which one image is shifted by 8 voxels."""
    path = copied.image("sub-0007", "")
    img = load_img(path)
    save_img(np.roll(np.asanyarray(img.dataobj), 8, axis=1), img.affine, path, space="MNI152")
    return copied


def captions(found):
    return [caption for _, caption, _ in found["items"]]


def test_outliers_come_first_and_are_marked(displaced):
    found = quality.section(ReportContents(displaced), gallery.Gallery(displaced.path / "figures"))
    assert found["n"] == found["n_shown"] == found["n_participants"] == 24
    assert captions(found)[0].startswith("sub-0007 ")
    values = [float(caption.split()[-1]) for caption in captions(found)]
    assert values == sorted(values)
    assert values[0] < found["limit"] < values[-1]
    assert found["items"][0][2]
    assert found["n_marked"] == sum(is_marked for *_, is_marked in found["items"]) < 5
    assert {caption.split()[0] for caption in captions(found)} == set(
        read_tsv(displaced.participants)["participant_id"]
    )


def test_a_large_cohort_shows_the_lowest_correlations(displaced, monkeypatch):
    monkeypatch.setattr(gallery, "_rendered", lambda fig, kind, **options: b"")
    monkeypatch.setattr(gallery, "_palette", lambda png: b"")
    every = quality.section(ReportContents(displaced), gallery.Gallery(displaced.path / "figures"))
    monkeypatch.setattr(quality, "MOST", 7)
    monkeypatch.setattr(quality, "FIRST", 3)
    html = write_report(displaced).read_text()
    shown = re.findall(r'alt="Slices of ([^"]+)"', html)
    assert shown == captions(every)[:7]
    assert "Of 24 images, the 7 with the lowest correlation are shown." in html
    assert "<summary>The other 4 images</summary>" in html


def test_the_mosaic_is_small(page, small_run):
    sizes = [3 * len(data) / 4 for data in re.findall(r"data:image/webp;base64,([^\"]+)", page)]
    assert len(sizes) == 24
    assert quality.MOST * max(sizes) < 1e6
    with Image.open(small_run.path / "figures" / "quality-control.png") as picture:
        assert picture.width > 6 * 200


def test_left_is_left_in_the_mosaic_and_the_brain_of_the_template_is_outlined():
    affine = np.diag([-4.0, 5.0, 3.0, 1])  # the first axis runs from right to left
    affine[:3, 3] = (84, -115, -75)
    world = nib.affines.apply_affine(affine, np.moveaxis(np.indices((42, 40, 55)), 0, -1))
    head = (np.abs(world - (0, -16, 7)) < (60, 80, 60)).all(-1)
    blob = np.exp(-(((world - (-40, -20, 10)) / 12) ** 2).sum(-1)) * head
    img = nib.Nifti1Image((0.2 * head + blob).astype(np.float32), affine)
    [tile] = mosaic.draw_tiles([img], FIELD)
    assert tile.dtype == np.uint8
    axial = tile[:, : int(152 / mosaic.STEP_MM) + 1, 0].copy()
    axial[: mosaic.LETTER + 4] = 0  # the letters of the sides
    row, column = np.argwhere(axial == axial.max()).mean(0)  # the brightest values are clipped
    assert abs(FIELD[0][0] + column * mosaic.STEP_MM + 40) <= 4
    assert abs(FIELD[1][1] - row * mosaic.STEP_MM + 20) <= 4
    [outlined] = mosaic.draw_tiles([img], FIELD, nib.Nifti1Image(head.astype(np.float32), affine))
    changed = (outlined != tile).any(-1)
    assert (outlined[changed][:, 0] > outlined[changed][:, 2]).all()
    assert 0.01 < changed.mean() < 0.1


def test_images_in_another_space_are_ordered_by_name(copied):
    for path in list((copied.path / "images").glob("*_space-MNI152_*")):
        path.rename(path.with_name(path.name.replace("space-MNI152", "space-native")))
    found = quality.section(ReportContents(copied), gallery.Gallery(copied.path / "figures"))
    assert found["limit"] is None
    assert captions(found) == sorted(read_tsv(copied.participants)["participant_id"])


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b, c", "d, e"], "a, b, c and d, e")],
)
def test_lists_of_names(names, text):
    assert listed(iter(names)) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.735, 2, "0.74"), (0.7349, 2, "0.73"), (-0.0004, 3, "0.000"), (-2.5, 0, "−3"), (None, 3, "–")],
)
def test_decimal_digits_are_rounded(value, digits, text):
    assert fixed(value, digits) == text


@pytest.mark.parametrize(
    ("n_folds", "n_seeds", "text"),
    [(5, 2, "10 networks: 5 folds × 2 seeds"), (5, 1, "5 networks: 5 folds"), (1, 1, "1 network")],
)
def test_networks_are_counted(n_folds, n_seeds, text):
    assert count_networks(n_folds, n_seeds) == text


def test_only_paths_are_replaced_in_texts(small_run):
    contents = ReportContents(RunDirectory("two"))
    assert contents.clean("the network") == "the network"
    folder = small_run.path
    text = f"{folder}/config.yaml of {folder}, not {folder}2"
    assert ReportContents(small_run).clean(text) == f"<run_dir>/config.yaml of <run_dir>, not {folder}2"


def test_the_copy_button_names_the_whole_text(page):
    [target] = re.findall(r'<button type="button" data-copy="([^"]+)" hidden>', page)
    block = page.split(f'id="{target}"')[1].split("</div>")[0]
    assert block.count("<p><b>") == len(re.findall(r"<p>", block)) > 6
    assert "Participants and images" in block
    assert "Software" in block

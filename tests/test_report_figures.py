"""Figures of the report: left stays left, the shown participants, curves."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import without_rendering

from xai_brain.io.nifti import load_img, save_img
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures import mosaic, slices
from xai_brain.reporting.figures import scores as figures
from xai_brain.reporting.html_report import write_report
from xai_brain.runs.directory import read_tsv
from xai_brain.statistics.colour_scale import ColourScale

BOUNDS = ((-80.0, 80.0), (-110.0, 80.0), (-70.0, 90.0))


@pytest.fixture
def left_blob():
    """An anisotropic image with a blob at (-30, -50, 20) mm."""
    affine = np.diag([4.0, 5.0, 3.0, 1])
    affine[:3, 3] = (-82, -115, -71)
    world = nib.affines.apply_affine(affine, np.moveaxis(np.indices((42, 40, 55)), 0, -1))
    data = np.exp(-(((world - (-30, -50, 20)) / 15) ** 2).sum(-1))
    return nib.Nifti1Image(data.astype(np.float32), affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("cut", [("x", -28.0), ("y", -47.0), ("z", 21.0)])
def test_slices_do_not_depend_on_the_axes_of_the_file(left_blob, axis, cut):
    affine = left_blob.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (left_blob.shape[axis] - 1)
    affine[:3, axis] *= -1
    flipped = nib.Nifti1Image(np.flip(left_blob.get_fdata(), axis).astype(np.float32), affine)
    same = slices.world_slice(left_blob, *cut, BOUNDS)
    np.testing.assert_allclose(slices.world_slice(flipped, *cut, BOUNDS), same, atol=1e-6)
    assert same.max() > 0.9


def test_left_is_on_the_left_side(left_blob):
    for cut, peak in ((("z", 20.0), (-30, -50)), (("y", -50.0), (-30, 20)), (("x", -30.0), (-50, 20))):
        picture = slices.world_slice(left_blob, *cut, BOUNDS)
        row, column = np.unravel_index(picture.argmax(), picture.shape)
        right, up = slices.IN_PLANE[cut[0]]
        assert abs(BOUNDS[right][0] + column - peak[0]) <= 2
        assert abs(BOUNDS[up][0] + row - peak[1]) <= 2
    head = nib.Nifti1Image(np.ones(left_blob.shape, np.float32), left_blob.affine)
    scale = ColourScale(1, False)
    fig = brain_figures.slice_figure(head, {"a": left_blob}, [("z", 20.0)], scale, label="a")
    (board,) = fig.axes
    x0, x1, bottom, top = board.images[0].get_extent()
    assert x0 < x1
    assert bottom > top  # inches from above
    assert board.images[0].origin == "lower"
    letters = {text.get_text(): text.get_position()[0] for text in board.texts}
    assert letters["L"] == x0
    assert letters["R"] == x1
    green = np.asarray(board.images[0].get_array())[..., 1]  # least where the map is strongest
    row, column = np.unravel_index(green.argmin(), green.shape)
    (left, _), (back, _), _ = slices.world_bounds(head)
    assert abs(left + column + 30) <= 4
    assert abs(back + row + 50) <= 4


def test_roc_matches_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    target = rng.random(80) < 0.4
    score = (target + rng.normal(0, 1, 80)).round(1)  # with ties
    weights = rng.integers(0, 3, 80)
    grid = np.linspace(0, 1, 4001)
    area = np.trapezoid(figures.roc(target, score, weights, grid), grid)
    assert area == pytest.approx(roc_auc_score(target, score, sample_weight=weights), abs=2e-3)


def test_shown_participants_are_the_most_confident(complete):
    table = read_tsv(complete.predictions)
    names = ["female", "male"]
    prob = table[[f"prob_{name}" for name in names]].to_numpy()
    right = prob.argmax(1) == table["target"]
    shown = ReportContents(complete).shown_subjects()
    assert [s.correct for s in shown] == sorted([s.correct for s in shown], reverse=True)
    for subject in shown:
        same = (right == subject.correct) & (table["target"] == names.index(subject.label))
        assert subject.probability == prob[same].max()


def test_empty_and_nan_maps_are_drawn(changed, monkeypatch):
    without_rendering(monkeypatch, slices=True)
    for file in (changed.path / "attributions").rglob("*_desc-LRP_attribution.nii.gz"):
        img = load_img(file)
        save_img(np.zeros(img.shape, np.float32), img.affine, file)
    for name, value in (("female", np.nan), ("male", 0)):
        path = changed.group_map("LRP", f"class-{name}", "mean")
        img = load_img(path)
        save_img(np.full(img.shape, value, np.float32), img.affine, path)
    assert "All values are zero" in write_report(changed).read_text()


def test_maps_in_another_space_are_shown_on_the_images(changed, undrawn):
    for file in list(changed.path.rglob("*_space-MNI152_*")):
        file.rename(file.with_name(file.name.replace("space-MNI152", "space-native")))
    html = write_report(changed).read_text()
    assert "not in MNI152" in html
    assert "MNI152 template" not in html
    assert 'id="subjects"' in html


def test_plotting_needs_no_torch():
    code = (
        "import sys, xai_brain.reporting.html_report\n"
        "bad = {'torch', 'captum', 'pytorch_lightning', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_narrow_figure_has_three_slices_in_a_line(left_blob):
    head = nib.Nifti1Image(np.ones(left_blob.shape, np.float32), left_blob.affine)
    cuts = [("x", -30.0), ("y", -50.0), *(("z", z) for z in (-20.0, 0.0, 20.0, 30.0, 40.0))]
    options = {"scale": ColourScale(1, True), "label": "values", "note": "No voxel is significant."}
    both = brain_figures.slice_figures(head, {"a": left_blob, "b": left_blob}, cuts, **options)
    for fig, per_line in ((both["fig"], 7), (both["narrow"], 3)):
        (board,) = fig.axes
        slices_drawn = [img.get_extent() for img in board.images[:14]]  # the last image is the colour bar
        lines = {}
        for x0, x1, bottom, top in slices_drawn:
            lines.setdefault(round((bottom + top) / 2, 3), []).append((x0, x1))
            assert 0 <= x0 < x1 <= fig.get_figwidth() + 1e-6
            assert 0 <= top < bottom <= fig.get_figheight()
        assert [len(line) for line in lines.values()] == ([7] * 2 if per_line == 7 else [3, 3, 1] * 2)
        for line in lines.values():
            assert all(left[1] < right[0] for left, right in pairwise(line))
        notes = [text for text in board.texts if text.get_text() == "No voxel is significant."]
        assert [text.get_fontweight() for text in notes] == ["bold"]


def test_epochs_are_counted_from_one():
    curves = pd.DataFrame(
        {"run": "fold-0", "epoch": [0, 1, 2], "metric": "val/loss", "value": [3.0, 2.0, 1.0]}
    )
    (ax,) = figures.training_figure(curves).axes
    assert all(line.get_xdata().tolist() == [1, 2, 3] for line in ax.lines)


def test_sides_are_written_on_the_mosaic():
    black = nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.diag([40.0, 40.0, 40.0, 1]))
    bounds = ((-76.0, 76.0), (-108.0, 76.0), (-70.0, 84.0))
    [tile] = mosaic.draw_tiles([black], bounds)
    wide = [int((bounds[axis][1] - bounds[axis][0]) / mosaic.STEP_MM) + 1 for axis in (0, 0, 1)]
    assert tile.shape[1] == sum(wide)
    ends = np.cumsum([0, *wide])
    written = tile[..., 0] > 100
    assert not written[mosaic.LETTER + 4 :].any()
    for start, end in pairwise(ends):  # a letter at both ends of every slice
        columns = np.flatnonzero(written[:, start:end].any(0))
        assert columns.min() < 12
        assert columns.max() > end - start - 12
        assert not ((columns > 14) & (columns < end - start - 14)).any()

"""Figures of the report: texts can be read, legends hide nothing, colours have one meaning.

Overlays of maps are transparent at 0 and outside the brain.
"""

from __future__ import annotations

import doctest
from io import BytesIO
from itertools import combinations
from types import SimpleNamespace

import matplotlib as mpl
import nibabel as nib
import numpy as np
import pytest
from colour_vision import DEFICIENCIES, seen_colours
from drawn_text import cut_off, drawn, legends, legends_over_axes, overlapping, smallest_font, texts
from figure_examples import CHARTS, CLASSES, METHODS, NARROW
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from xai_brain.reporting import anatomy, gallery
from xai_brain.reporting.figures import brain, regions, slices
from xai_brain.reporting.figures.style import (
    CLASS_COLOURS,
    METHOD_COLOURS,
    SMALLEST,
    class_colours,
    method_styles,
    style,
)
from xai_brain.reporting.figures.style import NARROW as NARROW_INCHES
from xai_brain.statistics import colour_scale
from xai_brain.statistics.colour_scale import PERCENTILE, ColourScale
from xai_brain.viewer.canvas import colour_tables
from xai_brain.viewer.layers import Layer


def assert_legible(fig):
    assert overlapping(fig) == []
    assert cut_off(fig) == []
    assert legends_over_axes(fig) == []
    assert smallest_font(fig) >= SMALLEST
    assert all(legend.get_texts() for legend in legends(fig))


@pytest.mark.parametrize(("n_methods", "n_classes", "n_seeds"), [(3, 2, 1), (14, 3, 5)])
@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.__name__)
def test_texts_can_be_read_and_legends_hide_nothing(chart, n_methods, n_classes, n_seeds):
    with style():
        assert_legible(drawn(chart(METHODS[n_methods], CLASSES[n_classes], n_seeds)))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("chart", NARROW, ids=lambda chart: chart.__name__)
def test_texts_can_be_read_on_a_phone(chart, n_classes):
    with style():
        fig = drawn(chart(METHODS[3], CLASSES[n_classes], 2, narrow=True))
        assert_legible(fig)
    assert fig.get_figwidth() == NARROW_INCHES


def test_figures_do_not_depend_on_the_settings_of_the_user():
    def picture():
        with style():
            fig = Figure(layout="constrained")
            axes = fig.subplots()
            axes.plot([0, 1, 4], marker="o", label="a line")
            axes.set_title("title")
            axes.legend()
            buffer = BytesIO()
            fig.savefig(buffer, format="svg", metadata={"Date": None})
        return buffer.getvalue()

    plain = picture()
    with mpl.rc_context({"axes.facecolor": "black", "axes.xmargin": 0.4, "xtick.minor.visible": True}):
        assert picture() == plain


def test_figures_have_the_same_bytes_although_the_last_digits_of_a_position_differ():
    def picture(shift):
        with style():
            fig = Figure()
            for left in (0.1234, 0.6171):
                axes = fig.add_axes((left + shift, 0.1311, 0.3077, 0.8013))
                axes.plot([0, 1, 4])
            return gallery._rendered(fig, "svg")

    first = picture(0.0)
    assert picture(1e-12) == first
    assert picture(1e-3) != first


# -- colours of methods and classes ----------------------------------------------------------------


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
@pytest.mark.parametrize("palette", [CLASS_COLOURS, METHOD_COLOURS])
def test_colours_can_be_distinguished_with_a_colour_vision_deficiency(palette, deficiency):
    seen = seen_colours([list(bytes.fromhex(colour[1:])) for colour in palette], deficiency)
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 15


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_signs_of_a_map_can_be_distinguished_with_a_colour_vision_deficiency(deficiency):
    shares = np.linspace(0.05, 1, 20)
    positive, negative = (
        seen_colours(255 * ColourScale(1.0, True).rgba(sign * shares)[:, :3], deficiency) for sign in (1, -1)
    )
    assert np.linalg.norm(positive - negative, axis=1).min() > 25


def test_every_method_has_its_own_colour_and_marker():
    styles = method_styles(METHODS[14])
    assert len({(own["color"], own["marker"]) for own in styles.values()}) == 14
    assert len({(own["color"], own["linestyle"]) for own in styles.values()}) == 14


@pytest.mark.parametrize("name", ["dice", "overlap", "random_weights"])
def test_a_method_looks_the_same_in_all_figures(name):
    [chart] = [chart for chart in CHARTS if chart.__name__ == name]
    styles = method_styles(METHODS[3])
    lines = {
        (line.get_color(), line.get_marker(), line.get_linestyle())
        for ax in drawn(chart(METHODS[3], CLASSES[2], 1)).axes
        for line in ax.lines
    }
    for own in styles.values():
        assert (own["color"], own["marker"], own["linestyle"]) in lines


@pytest.mark.parametrize(("name", "shown"), [("top_regions", 3), ("channels", 2)])
def test_a_class_has_the_same_colour_in_all_figures(name, shown):
    """Also if the figure does not show the first class."""
    [chart] = [chart for chart in CHARTS if chart.__name__ == name]
    expected = class_colours(CLASSES[3])
    bars = {
        to_hex(patch.get_facecolor()) for ax in chart(METHODS[3], CLASSES[3], 1).axes for patch in ax.patches
    }
    assert bars - {"#ffffff"} == set(list(expected.values())[-shown:])


def test_two_methods_are_one_pair():
    [chart] = [chart for chart in CHARTS if chart.__name__ == "dice"]
    with style():
        fig = drawn(chart(METHODS[2], CLASSES[2], 1))
    assert [ax.get_title(loc="left") for ax in fig.axes] == [" × ".join(METHODS[2])]
    assert len(fig.axes[0].lines) == 2  # the pair and chance


# -- the colour scale of maps ----------------------------------------------------------------------


def is_blue(colours):
    return colours[..., 2] > colours[..., 0]


@pytest.mark.parametrize("limit", [1e-7, 1.0, 300.0])
def test_weak_positive_values_are_not_blue(limit):
    for signed in (False, True):
        scale = ColourScale(limit, signed)
        positive = scale.rgba(limit * np.geomspace(1e-6, 3, 200))
        assert not is_blue(positive).any()
    assert is_blue(scale.rgba(-limit * np.geomspace(1e-6, 3, 200))).all()


def test_maps_without_negative_values_have_a_sequential_scale():
    rng = np.random.default_rng(0)
    mask = rng.uniform(0, 1, 5000)  # as 1 - perturbation mask
    scale = ColourScale.of(mask)
    assert not scale.signed
    assert scale.lowest == 0
    lightness = seen_colours(255 * scale.rgba(np.linspace(0, scale.limit, 50))[:, :3])[:, 0]
    assert (np.diff(lightness) < 0).all()
    assert not ColourScale.of(mask - 1e-4).signed  # rounding errors are not a sign
    assert ColourScale.of(rng.standard_normal(5000)).signed


def test_signed_scales_are_symmetric():
    values = np.random.default_rng(0).standard_normal(5000) + 1
    scale = ColourScale.of(values)
    assert scale.lowest == -scale.limit
    shares = np.linspace(0, 1.5 * scale.limit, 30)
    np.testing.assert_allclose(scale.rgba(shares)[:, 3], scale.rgba(-shares)[:, 3])


def test_single_strong_voxels_do_not_determine_the_scale():
    """Maps of guided backpropagation have few extreme values; all others would be next to white."""
    values = np.random.default_rng(0).standard_normal(100_000)
    with_peaks = np.append(values, np.full(50, 1e4))
    assert ColourScale.of(with_peaks).limit < 1.3 * ColourScale.of(values).limit
    few = np.zeros(1000)
    few[3] = 2.0
    assert ColourScale.of(few).limit == 2
    assert ColourScale.of(np.zeros(10)).limit == ColourScale.of(np.array([np.nan])).limit == 0


def test_zero_and_missing_values_are_transparent():
    scale = ColourScale(2.0, True)
    np.testing.assert_array_equal(scale.rgba(np.array([0, np.nan, np.inf]))[:, 3], 0)
    assert scale.rgba(np.array([0.02]))[0, 3] < 0.03
    assert scale.rgba(np.array([1.0]))[0, 3] == scale.rgba(np.array([9.0]))[0, 3] > 0.9
    colours = scale.matplotlib()
    assert colours["cmap"](0.5)[3] == 0
    assert (colours["vmin"], colours["vmax"]) == (-2, 2)


def test_examples_of_the_colour_scale():
    found = doctest.testmod(colour_scale)
    assert (found.failed, found.attempted) == (0, 2)


def test_report_and_viewer_have_the_same_scale():
    shown = np.random.default_rng(0).standard_normal((12, 14, 16)).astype(np.float32)
    layer = Layer("m", nib.Nifti1Image(shown, np.eye(4)), shown, np.sort(np.abs(shown), axis=None))
    scale = ColourScale.of(shown)
    assert layer.limit == scale.limit
    assert layer.signed == scale.signed
    table = colour_tables()[0].astype(float) / 255
    for share in (-1, -0.4, -0.05, 0.05, 0.4, 1):
        expected = scale.rgba(np.array([share * scale.limit]))[0, :3]
        np.testing.assert_allclose(table[round(127.5 + 127.5 * share)], expected, atol=0.02)


# -- maps on slices --------------------------------------------------------------------------------

AFFINE = np.diag([4.0, 5.0, 3.0, 1])
AFFINE[:3, 3] = (-82, -115, -71)
SHAPE = (42, 40, 55)


def blob(at, size, height=1.0):
    world = nib.affines.apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1))
    return height * (np.linalg.norm((world - at) / size, axis=-1) <= 1)


@pytest.fixture
def head():
    """Anatomy with a dark voxel inside the brain; 0 outside."""
    data = 100 * blob((0, -18, 8), (65, 80, 60)).astype(np.float32)
    data[data > 0] += np.arange(int((data > 0).sum())) % 7
    data[20, 20, 27] = 1
    return nib.Nifti1Image(data.astype(np.float32), AFFINE)


@pytest.fixture
def everywhere():
    """A map with values in the whole field of view, but 0 in the right half."""
    data = np.random.default_rng(0).uniform(0.5, 1, SHAPE).astype(np.float32)
    data[SHAPE[0] // 2 :] = 0
    return nib.Nifti1Image(data, AFFINE)


@pytest.mark.parametrize("cut", [("x", -20.0), ("y", -18.0), ("z", 10.0)])
def test_nothing_is_drawn_outside_the_brain_or_where_the_map_is_zero(head, everywhere, cut):
    bounds, mask = slices.world_bounds(head), slices.brain_mask_of(head)
    scale = ColourScale.of(slices.brain_values(everywhere, head))
    alpha = slices.overlay_rgba(everywhere, mask, scale, *cut, bounds)[..., 3]
    inside = slices.world_slice(mask, *cut, bounds, order=0) > 0
    values = slices.world_slice(everywhere, *cut, bounds)
    assert (alpha[~inside] == 0).all()
    assert (alpha[values == 0] == 0).all()
    assert (alpha[inside & (values > 0.6)] > 0.9).all()
    fig = brain.slice_figure(head, {"map": everywhere}, [cut], scale, label="values")
    picture = np.asarray(fig.axes[0].images[0].get_array())
    far = slices.world_slice(head, *cut, bounds) == 0
    np.testing.assert_array_equal(picture[far & ~inside], 1)
    grey = np.ptp(picture, axis=-1) < 1e-9
    assert grey[values == 0].all()
    solid = slices.world_slice(head, *cut, bounds) > 50
    assert picture[solid].min(-1).max() < 0.9  # no part of the brain is white
    assert not grey[inside & (values > 0.6)].any()


def test_the_template_is_zero_outside_the_brain():
    contents = SimpleNamespace(run=SimpleNamespace(space="MNI152"))
    template = anatomy.underlay_of(contents, None)
    share = float((template.get_fdata() != 0).mean())
    volume_ml = share * np.prod(template.shape) * 8 / 1000
    assert 1500 < volume_ml < 2100  # of the brain, not of the field of view


@pytest.mark.parametrize("n_methods", [1, 3, 5, 6, 14])
def test_figures_of_a_participant_are_legible(head, everywhere, n_methods):
    signed = nib.Nifti1Image((everywhere.get_fdata().astype(np.float32) - 0.7) * 1.7e-5, AFFINE)
    names = METHODS[14][-n_methods:]
    maps = {name: signed if i % 2 else everywhere for i, name in enumerate(names)}
    with style():
        fig, _ = brain.subject_figure(head, maps)
        assert_legible(drawn(fig))
    found = [text.get_text() for text in texts(fig)]
    assert found.count("L") == found.count("R") == 2 * (n_methods + 1)
    assert any(f"{PERCENTILE:g}th percentile of |value|" in text.replace("\n", " ") for text in found)
    places = [text for text in texts(fig) if text.get_text().endswith(" mm")]
    assert {text.get_text()[:3] for text in places} == {"x =", "y =", "z ="}
    first = min(image.get_extent()[0] for image in fig.axes[0].images) * fig.dpi
    assert max(text.get_window_extent().x1 for text in places) < first


@pytest.mark.parametrize("n_rows", [1, 2, 14])
def test_figures_of_slices_are_legible_and_state_their_scale(head, everywhere, n_rows):
    cuts = [("x", -20.0), ("y", -18.0), *(("z", z) for z in (-28.0, -8.0, 10.0, 30.0, 50.0))]
    names = METHODS[14][-n_rows:] if n_rows != 2 else CLASSES[3][:2]
    scale = ColourScale(0.00035, True)
    label = "Mean of the maps of each true class; values: raw and signed: positive values support the class"
    with style():
        rows = dict.fromkeys(names, everywhere)
        fig = drawn(brain.slice_figure(head, rows, cuts, scale, label=label))
    assert_legible(fig)
    found = [text.get_text().replace("\n", " ") for text in texts(fig)]
    assert {"−0.00035", "0", "0.00035"} <= set(found)
    [legend] = [text for text in found if text.startswith(label)]
    assert "99.5th percentile of |value| in the brain; 0 is transparent; no threshold" in legend


def test_the_background_of_embedded_pictures_remains_white():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (120, 140, 3), dtype=np.uint8)
    picture[:, 70:] = 255
    picture[::9, ::9] = 255
    stream = BytesIO()
    Image.fromarray(picture).save(stream, "png")
    embedded = np.asarray(Image.open(BytesIO(gallery._palette(stream.getvalue()))).convert("RGB")).astype(int)
    white = (picture == 255).all(-1)
    np.testing.assert_array_equal(embedded[white], 255)
    assert np.abs(embedded - picture)[~white].mean() < 25


def test_glass_brains_are_legible():
    values = np.zeros(SHAPE, np.float32)
    values[blob((-30, -20, 10), 15) > 0] = 1e-6
    values[blob((30, -20, 10), 15) > 0] = -3e-6
    with style():
        img = nib.Nifti1Image(values, AFFINE)
        names = METHODS[14][-3:]
        shown, found = {name: [1e-6, -3e-6] for name in names}, {name: [-3e-6] for name in names}
        fig = drawn(regions.glass_brain_figure(dict.fromkeys(names, img), shown, found))
    assert_legible(fig)

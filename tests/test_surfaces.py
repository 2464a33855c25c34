"""Maps on the cortical surface: position, hemisphere, and what is refused."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from conftest import ToyNet, fake_brain
from matplotlib.backends.backend_agg import FigureCanvasAgg

import xai_brain as xb
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid
from xai_brain.reporting.figures.surface import HEMISPHERES, meshes, on_surface, surface_figure
from xai_brain.statistics.colour_scale import ColourScale


def middle_of_cortex(side):
    """Position of every vertex in MNI152 mm, in the middle of the cortex."""
    pial, white, _ = meshes()
    return (pial.parts[side].coordinates + white.parts[side].coordinates) / 2


def sphere(centre_mm, grid, radius_mm=8):
    voxels = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    distances = np.linalg.norm(nib.affines.apply_affine(grid.affine, voxels) - centre_mm, axis=-1)
    return nib.Nifti1Image((distances < radius_mm).astype(np.float32), grid.affine)


@pytest.mark.parametrize("grid", ["t1w_2mm", "t1w_4mm"])
@pytest.mark.parametrize("side", HEMISPHERES)
@pytest.mark.parametrize("vertex", [500, 3000, 9000])
def test_a_sphere_below_a_vertex_appears_there(side, vertex, grid):
    places = middle_of_cortex(side)
    values = on_surface(sphere(places[vertex], get_grid(grid))).data.parts
    centre = np.average(places, axis=0, weights=values[side])
    assert np.linalg.norm(centre - places[vertex]) < 10
    assert values[side][vertex] > 0.9
    far = np.linalg.norm(places - places[vertex], axis=1) > 20
    assert not values[side][far].any()
    other = next(name for name in HEMISPHERES if name != side)
    if abs(places[vertex][0]) > 20:
        assert not values[other].any()


def test_the_surface_lies_in_mni152_and_not_in_mni305():
    """The example of FreeSurfer's page on coordinate systems: (10, -20, 35) in MNI305."""
    from nilearn.datasets import load_fsaverage

    before = load_fsaverage("fsaverage5")["pial"].parts["left"].coordinates
    after = meshes()[0].parts["left"].coordinates
    matrix, *_ = np.linalg.lstsq(np.c_[before, np.ones(len(before))], after, rcond=None)
    np.testing.assert_allclose([10, -20, 35, 1] @ matrix, [10.695, -18.409, 36.137], atol=0.01)


def test_left_is_left():
    assert np.mean(middle_of_cortex("left")[:, 0] < 0) > 0.99
    assert np.mean(middle_of_cortex("right")[:, 0] > 0) > 0.99


def drawn(fig):
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def test_strong_values_are_drawn_in_their_colour_and_zero_in_grey():
    grid = get_grid("t1w_4mm")
    places = middle_of_cortex("left")
    img = sphere(places[places[:, 0].argmin()], grid, 25)  # lateral: in the first view
    pixels = drawn(surface_figure({"map": img}, ColourScale(1.0, True)))
    red = (pixels[..., 0] - pixels[..., 2]) > 80
    quarter = pixels.shape[1] // 4
    shares = [red[:, i * quarter : (i + 1) * quarter].mean() for i in range(4)]
    assert shares[0] > 0.005
    assert max(shares[2:]) == 0  # the right hemisphere
    pixels = drawn(surface_figure({"map": img}, ColourScale(0.0, False)))  # an empty map
    assert np.ptp(pixels, axis=-1).max() < 10


def test_maps_of_a_study_are_shown(small_run):
    maps = xb.open_maps(small_run.path)
    fig = maps.plot_surface("GuidedBackprop", label="male")
    assert fig.subfigs[0].get_suptitle() == "GuidedBackprop, mean of male"
    page = maps.view_surface("GuidedBackprop", "sub-0001").html
    assert "GuidedBackprop, sub-0001" in page
    assert 'src="http' not in page


def test_images_of_other_spaces_are_refused():
    maps = xb.explain(ToyNet(), [fake_brain((12, 14, 16), np.eye(4))], ["Saliency"], target=1)
    with pytest.raises(ConfigError, match="surface views: the maps are in the space of each participant"):
        maps.plot_surface("Saliency")

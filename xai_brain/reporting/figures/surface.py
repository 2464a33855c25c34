"""Maps on the cortical surface fsaverage: values at its vertices, and views of the inflated hemispheres."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from nilearn import plotting
from nilearn.datasets import load_fsaverage, load_fsaverage_data
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage

from xai_brain.reporting.figures.style import NARROW, WIDTH
from xai_brain.statistics.colour_scale import ColourScale

MESH = "fsaverage5"
GREY = 0.92  # of the cortex where the map is 0, before its shading
HEMISPHERES = ("left", "right")
VIEWS = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))
# fsaverage lies in MNI305 (FreeSurfer, CoordinateSystems: the matrix of average/mni152.register.dat)
TO_MNI152 = np.array(
    [
        [0.9975, -0.0073, 0.0176, -0.0429],
        [0.0146, 1.0009, -0.0024, 1.5496],
        [-0.0130, -0.0093, 0.9971, 1.1840],
    ]
)


@cache
def meshes() -> tuple[PolyMesh, PolyMesh, PolyMesh]:
    """Pial surface and border of the white matter in MNI152 mm, and the inflated surface for display."""
    found = load_fsaverage(MESH)
    return _in_mni152(found["pial"]), _in_mni152(found["white_matter"]), found["inflated"]


def _in_mni152(mesh: PolyMesh) -> PolyMesh:
    parts = {
        side: InMemoryMesh(nib.affines.apply_affine(np.vstack([TO_MNI152, [0, 0, 0, 1]]), part.coordinates),
                           part.faces)
        for side, part in mesh.parts.items()
    }  # fmt: skip
    return PolyMesh(**parts)


def on_surface(img: nib.Nifti1Image) -> SurfaceImage:
    """Mean over the thickness of the cortex at every vertex of fsaverage5.

    Parameters
    ----------
    img : nibabel.Nifti1Image
        Map in MNI152. Voxels outside of its grid count as 0.

    Returns
    -------
    nilearn.surface.SurfaceImage
        10242 vertices per hemisphere, on the inflated mesh.
    """
    pial, white, inflated = meshes()
    sampled = SurfaceImage.from_volume(pial, img, inner_mesh=white, kind="line", interpolation="linear")
    parts = {side: np.nan_to_num(values) for side, values in sampled.data.parts.items()}
    return SurfaceImage(inflated, parts)


@cache
def _sulci() -> SurfaceImage:
    return load_fsaverage_data(MESH, mesh_type="inflated", data_type="sulcal")


def _colours(scale: ColourScale) -> dict[str, Any]:
    """The scale as arguments of nilearn; 0 is the grey of the cortex."""
    rgba = scale.rgba(np.linspace(scale.lowest, scale.limit, 511))
    colours = ListedColormap(rgba[:, :3] * rgba[:, 3:] + GREY * (1 - rgba[:, 3:]), "xai_brain")
    limits = {"vmin": scale.lowest, "vmax": scale.limit or 1.0}
    return {"cmap": colours, **limits, "bg_map": _sulci(), "bg_on_data": True}


def surface_figure(
    maps: Mapping[str, nib.Nifti1Image], scale: ColourScale, *, narrow: bool = False
) -> Figure:
    """Lateral and medial views of both inflated hemispheres, one row for each map.

    Parameters
    ----------
    maps : mapping of name to nibabel.Nifti1Image
        In MNI152.
    scale : ColourScale
    narrow : bool, default False
        Two views in a line, for phones.
    """
    width, columns = (NARROW, 2) if narrow else (WIDTH, 4)
    lines = len(VIEWS) // columns
    height = width / columns * 0.78
    fig = Figure(figsize=(width, len(maps) * (lines * height + 0.25)), layout="constrained")
    parts = fig.subfigures(len(maps), 1, squeeze=False)[:, 0]
    for part, (name, img) in zip(parts, maps.items(), strict=True):
        part.suptitle(name, fontsize=9.5, x=0.01, ha="left")
        values = on_surface(img)
        axes = part.subplots(lines, columns, subplot_kw={"projection": "3d"}).ravel()
        for ax, (side, view) in zip(axes, VIEWS, strict=True):
            plotting.plot_surf(
                surf_map=values, hemi=side, view=view, axes=ax, figure=fig, colorbar=False, **_colours(scale)
            )
            ax.set_title(f"{side}, {view}", fontsize=8.5, fontweight="normal", y=0.98)
            ax.set_box_aspect(None, zoom=1.55)
    return fig


def surface_view(img: nib.Nifti1Image, scale: ColourScale, title: str) -> Any:
    """Interactive view of both inflated hemispheres, which works without a network connection."""
    return plotting.view_surf(
        surf_map=on_surface(img),
        hemi="both",
        title=title,
        symmetric_cmap=scale.signed,
        engine="niivue",
        **_colours(scale),
    )

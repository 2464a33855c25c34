"""Maps on brain slices. Slices are picked in world millimetres, so that left is left for any affine.

No pyplot: every function returns a ``matplotlib.figure.Figure`` that nobody else holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage

from xai_brain.volumes import Grid, resample_to_grid

PERCENTILE = 99.5  # of |value| inside the brain: where the colour scale ends
IN_PLANE = {"x": (1, 2), "y": (0, 2), "z": (0, 1)}  # world axes to the right and upwards
SIDES = {"x": ("P", "A"), "y": ("L", "R"), "z": ("L", "R")}
SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#08306b", "#2171b5", "#6baed6", "#fb8a5c", "#d7301f", "#7f0000"]
)
POSITIVE = LinearSegmentedColormap.from_list("positive", ["#fed976", "#fd8d3c", "#e31a1c", "#800026"])
GREY = 0.72  # what the colour bar lies on: about the grey of the anatomy
HALO = [withStroke(linewidth=2.6, foreground="white")]

Bounds = tuple[tuple[float, float], ...]
Cut = tuple[str, float]


@dataclass(frozen=True)
class Scale:
    """Colours of raw values: diverging and symmetric when values are signed, else from zero.

    Parameters
    ----------
    limit : float
        Value of the strongest colour; 0 for an empty map, of which nothing is drawn.
    signed : bool
    """

    limit: float
    signed: bool

    @classmethod
    def of(cls, values: np.ndarray) -> Scale:
        values = values[np.isfinite(values)]
        limit = float(np.percentile(np.abs(values), PERCENTILE)) if values.size else 0.0
        if limit == 0 and values.size:  # fewer than one voxel in 200 is not zero
            limit = float(np.abs(values).max())
        return cls(limit, bool((values < -1e-6 * limit).any()))

    def rgba(self, values: np.ndarray) -> np.ndarray:
        """Colour and opacity; opacity grows with |value| and is full from half of the limit on."""
        relative = np.clip(np.nan_to_num(values) / (self.limit or np.inf), -1 if self.signed else 0, 1)
        colours = SIGNED(0.5 + relative / 2) if self.signed else POSITIVE(relative)
        colours[..., 3] = 0.92 * np.clip(2 * np.abs(relative), 0, 1)
        return colours


def world_bounds(img: nib.Nifti1Image, margin_mm: float = 4.0) -> Bounds:
    """Box in world mm around what is not background, ((x0, x1), (y0, y1), (z0, z1))."""
    data = np.asanyarray(img.dataobj)
    world = nib.affines.apply_affine(img.affine, np.argwhere(data > 0.05 * data.max()))
    low, high = np.floor(world.min(0) - margin_mm), np.ceil(world.max(0) + margin_mm)
    return tuple((float(a), float(b)) for a, b in zip(low, high, strict=True))


def world_slice(
    img: nib.Nifti1Image, axis: str, at_mm: float, bounds: Bounds, *, step_mm: float = 1.0, order: int = 1
) -> np.ndarray:
    """Sample a plane of an image in world space.

    Parameters
    ----------
    img : nibabel.Nifti1Image
        Any axes, spacing and obliquity.
    axis : {"x", "y", "z"}
        Normal of the plane: sagittal, coronal, axial.
    at_mm : float
    bounds : ((x0, x1), (y0, y1), (z0, z1)) in mm
    step_mm : float, default 1.0
    order : int, default 1
        1 interpolates linearly, 0 takes the nearest voxel.

    Returns
    -------
    ndarray, 2-D
        Columns go rightwards (from L to R, for sagittal planes from P to A), rows upwards.
    """
    right, up = IN_PLANE[axis]
    columns = np.arange(bounds[right][0], bounds[right][1] + step_mm / 2, step_mm)
    rows = np.arange(bounds[up][0], bounds[up][1] + step_mm / 2, step_mm)
    world = np.full((len(rows), len(columns), 3), float(at_mm))
    world[..., right], world[..., up] = columns, rows[:, None]
    voxels = nib.affines.apply_affine(np.linalg.inv(img.affine), world)
    data = np.asanyarray(img.dataobj, dtype=np.float32)
    return ndimage.map_coordinates(data, np.moveaxis(voxels, -1, 0), order=order, mode="grid-constant")


def brain_values(map_img: nib.Nifti1Image, underlay: nib.Nifti1Image) -> np.ndarray:
    """Values of a map at the voxels where the underlay shows brain."""
    grid = Grid("map", map_img.shape, map_img.affine)
    anatomy = resample_to_grid(underlay, grid, antialias=False)
    return np.asanyarray(map_img.dataobj)[anatomy > 0.05 * anatomy.max()]


def centre_mm(img: nib.Nifti1Image) -> np.ndarray | None:
    """World mm of the voxel in the middle of the largest blob above half of the maximum."""
    data = np.nan_to_num(np.asanyarray(img.dataobj))
    if data.max() <= 0:
        return None
    blobs, _ = ndimage.label(data >= data.max() / 2)
    inside = np.argwhere(blobs == np.bincount(blobs[blobs > 0]).argmax())
    middle = inside[np.linalg.norm(inside - inside.mean(0), axis=1).argmin()]
    return nib.affines.apply_affine(img.affine, middle)


def strongest_mm(maps: Sequence[nib.Nifti1Image], underlay: nib.Nifti1Image) -> np.ndarray:
    """World mm where the maps together are strongest, each counted by its own scale."""
    total = np.zeros(maps[0].shape)
    for img in maps:
        limit = Scale.of(brain_values(img, underlay)).limit
        if img.shape == total.shape and limit > 0:
            total += np.clip(np.abs(np.nan_to_num(np.asanyarray(img.dataobj))) / limit, 0, 1)
    peak = np.unravel_index(ndimage.gaussian_filter(total, 1.5).argmax(), total.shape)
    return nib.affines.apply_affine(maps[0].affine, peak)


def slice_figure(
    underlay: nib.Nifti1Image,
    maps: Mapping[str, nib.Nifti1Image],
    cuts: Sequence[Cut],
    scale: Scale,
    truth: nib.Nifti1Image | None = None,
    *,
    width_inches: float = 9.0,
) -> Figure:
    """One row of slices for every map, all on one colour scale.

    Parameters
    ----------
    underlay : nibabel.Nifti1Image
        Anatomy, 0 outside the brain.
    maps : mapping of row label to image
    cuts : sequence of (axis, mm)
    scale : Scale
    truth : nibabel.Nifti1Image, optional
        Outlined at half of its maximum.
    width_inches : float, default 9.0
    """
    bounds = world_bounds(underlay)
    extents = [[bounds[a][1] - bounds[a][0] for a in IN_PLANE[axis]] for axis, _ in cuts]
    left, right, gap, head = 0.45, 0.75, 0.04, 0.24
    inches_per_mm = (width_inches - left - right - gap * len(cuts)) / sum(wide for wide, _ in extents)
    row_height = max(tall for _, tall in extents) * inches_per_mm + 0.06
    fig = Figure(figsize=(width_inches, head + row_height * len(maps)))
    place = _placer(fig)
    for row, (label, img) in enumerate(maps.items()):
        top, at = head + row * row_height, left
        fig.text(0.2 / width_inches, 1 - (top + row_height / 2) / fig.get_figheight(), label,
                 rotation=90, ha="center", va="center", fontsize=9.5, fontweight="bold")  # fmt: skip
        for cut, (wide, tall) in zip(cuts, extents, strict=True):
            size = wide * inches_per_mm, tall * inches_per_mm
            ax = place(at, top + (row_height - size[1]) / 2, *size)
            _panel(ax, underlay, img, scale, truth, cut, bounds)
            if row == 0:
                fig.text((at + size[0] / 2) / width_inches, 1 - 0.09 / fig.get_figheight(), _cut_name(cut),
                         ha="center", va="center", fontsize=8.5, color="#444")  # fmt: skip
            at += size[0] + gap
    bar_height = min(1.3, 0.8 * row_height * len(maps))
    bar_top = head + (row_height * len(maps) - bar_height) / 2
    _colour_bar(place(width_inches - right + 0.12, bar_top, 0.12, bar_height), scale, vertical=True)
    return fig


def subject_figure(
    t1w_img: nib.Nifti1Image,
    maps: Mapping[str, nib.Nifti1Image],
    truth: nib.Nifti1Image | None = None,
    *,
    max_columns: int = 9,
) -> tuple[Figure, np.ndarray]:
    """The T1 of one subject and every method's map on it, through one point.

    Parameters
    ----------
    t1w_img : nibabel.Nifti1Image
        0 outside the brain.
    maps : mapping of method to image
        Each has a colour scale of its own, shown below it.
    truth : nibabel.Nifti1Image, optional
    max_columns : int, default 9
        More methods continue below.

    Returns
    -------
    Figure, ndarray of shape (3,) with the point in mm
    """
    point = centre_mm(truth) if truth is not None else None
    if point is None:
        point = strongest_mm(list(maps.values()), t1w_img) if maps else centre_mm(t1w_img)
    bounds = world_bounds(t1w_img)
    span = [high - low for low, high in bounds]
    cuts: list[Cut] = [("z", point[2]), ("y", point[1]), ("x", point[0])]
    columns: list[tuple[str, nib.Nifti1Image | None]] = [("T1", None), *maps.items()]
    blocks = [columns[i : i + max_columns] for i in range(0, len(columns), max_columns)]

    left, head, foot, gap = 0.62, 0.26, 0.42, 0.06
    width = float(np.clip((9.0 - left) / len(blocks[0]), 0.9, 1.75))
    inches_per_mm = (width - gap) / max(span[0], span[1])
    heights = [span[1] * inches_per_mm, span[2] * inches_per_mm, span[2] * inches_per_mm]
    block_height = head + sum(heights) + 3 * gap + foot
    fig = Figure(figsize=(left + width * len(blocks[0]), block_height * len(blocks)))
    place = _placer(fig)
    total = fig.get_figheight()
    for number, block in enumerate(blocks):
        top = number * block_height
        for column, (name, img) in enumerate(block):
            at = left + column * width
            middle = (at + width / 2) / fig.get_figwidth()
            fig.text(middle, 1 - (top + 0.12) / total, name, ha="center", va="center",
                     fontsize=min(9.5, 12.5 * width / max(len(name), 1) * 8.5), fontweight="bold")  # fmt: skip
            scale = Scale(0, False) if img is None else Scale.of(brain_values(img, t1w_img))
            down = top + head
            for cut, height in zip(cuts, heights, strict=True):
                wide = span[IN_PLANE[cut[0]][0]] * inches_per_mm
                ax = place(at + (width - wide) / 2, down, wide, height)
                _panel(ax, t1w_img, img, scale, truth, cut, bounds)
                if column == 0:
                    fig.text(0.04 / fig.get_figwidth(), 1 - (down + height / 2) / total, _cut_name(cut),
                             ha="left", va="center", fontsize=8, color="#444")  # fmt: skip
                down += height + gap
            if scale.limit > 0:
                _colour_bar(place(at + 0.16 * width, down + 0.06, 0.68 * width, 0.09), scale)
            elif img is not None:
                fig.text(
                    middle, 1 - (down + 0.14) / total, "empty map", ha="center", fontsize=8, color="#a33"
                )
    return fig, point


def _panel(ax, underlay, img, scale, truth, cut, bounds) -> None:
    axis, at_mm = cut
    right, up = IN_PLANE[axis]
    show = {"origin": "lower", "extent": (*bounds[right], *bounds[up]), "interpolation": "bilinear"}
    anatomy = world_slice(underlay, axis, at_mm, bounds)
    anatomy = anatomy / _white(underlay)
    grey = np.repeat((0.22 + 0.76 * np.clip(anatomy, 0, 1))[..., None], 4, axis=-1)
    grey[..., 3] = np.clip(anatomy * 12, 0, 1)
    ax.imshow(grey, **show)
    if img is not None and scale.limit > 0:
        ax.imshow(scale.rgba(world_slice(img, axis, at_mm, bounds)), **show)
    if truth is not None:
        level = float(np.max(truth.dataobj)) / 2
        inside = world_slice(truth, axis, at_mm, bounds)
        if inside.min() < level < inside.max():
            outline = ax.contour(inside, levels=[level], colors="black", linewidths=1.1,
                                 extent=show["extent"])  # fmt: skip
            outline.set_path_effects(HALO)
    ax.set_xlim(*bounds[right])
    ax.set_ylim(*bounds[up])
    ax.axis("off")
    for x, letter, align in zip((0.0, 1.0), SIDES[axis], ("left", "right"), strict=True):
        ax.text(x, 0.99, letter, transform=ax.transAxes, fontsize=7.5, color="#333", va="top", ha=align,
                path_effects=HALO)  # fmt: skip


def _white(underlay: nib.Nifti1Image) -> float:
    data = np.asanyarray(underlay.dataobj)
    return float(np.percentile(data[data > 0], 99.5)) if (data > 0).any() else 1.0


def _cut_name(cut: Cut) -> str:
    return f"{cut[0]} = {round(float(cut[1])):d} mm".replace("-", "−")


def _placer(fig: Figure):
    """Axes by inches from the top left corner."""
    width, height = fig.get_size_inches()
    return lambda x, y, wide, tall: fig.add_axes(
        (x / width, 1 - (y + tall) / height, wide / width, tall / height)
    )


def _colour_bar(ax, scale: Scale, *, vertical: bool = False) -> None:
    values = np.linspace(-scale.limit if scale.signed else 0, scale.limit, 128)
    colours = scale.rgba(values)
    opaque = colours[:, :3] * colours[:, 3:] + GREY * (1 - colours[:, 3:])
    image = opaque[:, None] if vertical else opaque[None]
    ends = (values[0], values[-1])
    extent = (0, 1, *ends) if vertical else (*ends, 0, 1)
    ax.imshow(image, origin="lower", aspect="auto", extent=extent)
    ticks = sorted({values[0], 0.0, values[-1]})
    names = [f"{tick:.2g}".replace("-", "−") for tick in ticks]
    ax.tick_params(length=2, labelsize=8 if vertical else 7, pad=2)
    if vertical:
        ax.yaxis.tick_right()
        ax.set_yticks(ticks, names)
        ax.set_xticks([])
    else:
        ax.set_xticks(ticks, names)
        ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=0.5, color="#888")

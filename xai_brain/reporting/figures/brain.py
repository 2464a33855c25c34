"""Maps on brain slices. Slices are selected in world millimetres, so that left is left for any affine.

The functions return ``matplotlib.figure.Figure`` objects without pyplot.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from xai_brain.reporting.figures.slices import (
    IN_PLANE,
    Bounds,
    brain_mask_of,
    brain_values,
    centre_mm,
    overlay_rgba,
    strongest_mm,
    world_bounds,
    world_slice,
)
from xai_brain.reporting.figures.style import CHARACTER, NARROW, SMALLEST, WIDTH, heading
from xai_brain.reporting.wording import significant
from xai_brain.statistics.colour_scale import PERCENTILE, ColourScale

SIDES = {"x": ("P", "A"), "y": ("L", "R"), "z": ("L", "R")}
DARKEST, BRIGHTEST = 0.18, 0.86  # grey of the anatomy: white is outside the brain only
GREY = 0.66  # what the colour bar lies on: about the grey of the anatomy
HALO: list[AbstractPathEffect] = [withStroke(linewidth=2.2, foreground="white")]
CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}
ENDS = f"ends at the {PERCENTILE:g}th percentile of |value| in the brain"
TRANSPARENT = "0 is transparent; no threshold"
NARROW_COLUMNS = 3  # slices in a line on a narrow screen

Cut = tuple[str, float]


def slice_figures(
    underlay: nib.Nifti1Image,
    maps: Mapping[str, nib.Nifti1Image],
    cuts: Sequence[Cut],
    *args: Any,
    **options: Any,
) -> dict[str, Figure]:
    """`slice_figure` for the page and for narrow screens, as arguments of `Gallery.add`."""
    narrow = slice_figure(underlay, maps, cuts, *args, columns=NARROW_COLUMNS, width_inches=NARROW, **options)
    return {"fig": slice_figure(underlay, maps, cuts, *args, **options), "narrow": narrow}


def slice_figure(
    underlay: nib.Nifti1Image,
    maps: Mapping[str, nib.Nifti1Image],
    cuts: Sequence[Cut],
    scale: ColourScale,
    truth: nib.Nifti1Image | None = None,
    *,
    label: str,
    ends: str = ENDS,
    note: str = "",
    columns: int | None = None,
    width_inches: float = WIDTH,
) -> Figure:
    """One row of slices for every map, all on one colour scale.

    Parameters
    ----------
    underlay : nibabel.Nifti1Image
        Anatomy, 0 outside the brain.
    maps : mapping of row label to image
    cuts : sequence of (axis, mm)
    scale : ColourScale
    truth : nibabel.Nifti1Image, optional
        Outlined at half of its maximum.
    label : str
        What the colours show, with the unit.
    ends : str, optional
        Where the colour scale ends.
    note : str, default ""
        Written in bold above the slices.
    columns : int, optional
        Slices in a line; default: all slices of a map.
    width_inches : float, default 9.0
    """
    bounds, brain, underlay = world_bounds(underlay), brain_mask_of(underlay), _brightened(underlay)
    per_line = columns or len(cuts)
    lines = [cuts[i : i + per_line] for i in range(0, len(cuts), per_line)]
    span = {axis: [bounds[a][1] - bounds[a][0] for a in plane] for axis, plane in IN_PLANE.items()}
    left, gap, head = 0.3, 0.09, 0.24
    inches_per_mm = min(
        (width_inches - left - gap * len(line)) / sum(span[axis][0] for axis, _ in line) for line in lines
    )
    heights = [max(span[axis][1] for axis, _ in line) * inches_per_mm + 0.06 for line in lines]
    map_height = sum(heights) + head * (len(lines) - 1)
    note = textwrap.fill(note, int(72 * (width_inches - left) / (1.1 * CHARACTER * 9)))
    top = 0.19 * len(note.split("\n")) * bool(note)
    down = top + head + (map_height + head * (len(lines) > 1)) * len(maps) - head * (len(lines) > 1) + 0.1
    bar = left + 0.25, down, 2.1, 0.12
    beside = width_inches - (bar[0] + bar[2] + 0.35) > 3
    x, y = (bar[0] + bar[2] + 0.35, down - 0.04) if beside else (left, down + 0.36)
    text = _wrapped(f"{label}. The scale {ends}; {TRANSPARENT}.", width_inches - x)
    fig, board = _board(width_inches, max(down + 0.4, y + 0.16 * len(text.split("\n"))))
    if note:
        board.text(left, 0.03, note, fontsize=9, fontweight="bold", va="top", linespacing=1.2)
    at_y = top + head
    for row, (name, img) in enumerate(maps.items()):
        board.text(0.15, at_y + map_height / 2, rotation=90, **heading(name, map_height), **CENTRED)
        for line, height in zip(lines, heights, strict=True):
            at = left
            for cut in line:
                wide, tall = (length * inches_per_mm for length in span[cut[0]])
                box = at, at_y + (height - tall) / 2, wide, tall
                _draw_slice(board, box, (underlay, brain), img, scale, truth, cut, bounds)
                if row == 0 or len(lines) > 1:
                    middle, above = at + wide / 2, at_y - 0.15
                    board.text(middle, above, _cut_name(cut), fontsize=8.5, color="#444", **CENTRED)
                at += wide + gap
            at_y += height + head * (len(lines) > 1)
    if scale.limit > 0:
        _colour_bar(board, bar, scale)
        board.text(x, y, text, fontsize=8.5, va="top", linespacing=1.2)
    return fig


def subject_figure(
    t1w_img: nib.Nifti1Image,
    maps: Mapping[str, nib.Nifti1Image],
    truth: nib.Nifti1Image | None = None,
    *,
    max_columns: int = 6,
    width_inches: float = WIDTH,
) -> tuple[Figure, np.ndarray]:
    """The T1 image of a participant with the map of each method, through one point.

    Parameters
    ----------
    t1w_img : nibabel.Nifti1Image
        0 outside the brain.
    maps : mapping of method to image
        Each map has its own colour scale, which is shown below it.
    truth : nibabel.Nifti1Image, optional
    max_columns : int, default 6
        More images are divided into rows of similar lengths.
    width_inches : float, default 9.0
        At most.

    Returns
    -------
    Figure, ndarray of shape (3,) with the point in mm
    """
    point = centre_mm(truth) if truth is not None else None
    if point is None:
        point = strongest_mm(list(maps.values()) or [t1w_img], t1w_img)
    bounds, anatomy = world_bounds(t1w_img), (_brightened(t1w_img), brain_mask_of(t1w_img))
    span = [high - low for low, high in bounds]
    cuts: list[Cut] = [("z", point[2]), ("y", point[1]), ("x", point[0])]
    columns: list[tuple[str, nib.Nifti1Image | None]] = [("T1", None), *maps.items()]
    n_columns = -(-len(columns) // -(-len(columns) // max_columns))
    blocks = [columns[i : i + n_columns] for i in range(0, len(columns), n_columns)]

    left, head, foot, gap = 0.8, 0.4, 0.42, 0.06
    width = float(np.clip((width_inches - left) / len(blocks[0]), 0.9, 1.75))
    inches_per_mm = (width - gap) / max(span[0], span[1])
    sizes = [[span[a] * inches_per_mm for a in IN_PLANE[axis]] for axis, _ in cuts]
    block_height = head + sum(tall + gap for _, tall in sizes) + foot
    total = left + width * len(blocks[0])
    note = _wrapped(f"Colours: raw values; each scale {ENDS}; {TRANSPARENT}.", total - 0.1) if maps else ""
    fig, board = _board(total, block_height * len(blocks) + 0.16 * len(note.split("\n")))
    board.text(0.04, block_height * len(blocks), note, fontsize=8.5, va="top", linespacing=1.2)
    for number, column in ((n, c) for n, block in enumerate(blocks) for c in range(len(block))):
        name, img = blocks[number][column]
        middle, down = left + (column + 0.5) * width, number * block_height + head
        board.text(middle, down - 0.2, **heading(name, width), **CENTRED)
        scale = ColourScale(0, False) if img is None else ColourScale.of(brain_values(img, t1w_img))
        for cut, (wide, tall) in zip(cuts, sizes, strict=True):
            box = middle - wide / 2, down, wide, tall
            _draw_slice(board, box, anatomy, img, scale, truth, cut, bounds)
            if column == 0:
                board.text(0.04, down + tall / 2, _cut_name(cut), fontsize=8, color="#444", va="center")
            down += tall + gap
        if scale.limit > 0:
            _colour_bar(board, (middle - 0.43 * width, down + 0.06, 0.86 * width, 0.09), scale)
        elif img is not None:
            board.text(middle, down + 0.14, "empty map", fontsize=8, color="#a33b3b", **CENTRED)
    return fig, point


def _wrapped(text: str, inches: float) -> str:
    """Text in lines of a width, for a font of 8.5 points."""
    return textwrap.fill(text, max(20, int(72 * inches / (CHARACTER * 8.5))))


def _board(width: float, height: float) -> tuple[Figure, Axes]:
    """One axes over a whole figure, in inches from the top left corner; many small axes are slow."""
    fig = Figure(figsize=(width, height))
    board = fig.add_axes((0, 0, 1, 1))
    board.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    board.axis("off")
    return fig, board


def _draw_slice(
    board: Axes,
    box: tuple[float, float, float, float],
    anatomy: tuple[nib.Nifti1Image, nib.Nifti1Image],
    img: nib.Nifti1Image | None,
    scale: ColourScale,
    truth: nib.Nifti1Image | None,
    cut: Cut,
    bounds: Bounds,
) -> None:
    """A slice in a box (x, y, width, height): anatomy, map, outline of the truth, letters of the sides.

    The anatomy consists of the brightened image and the brain mask.
    """
    x, y, wide, tall = box
    underlay, brain = anatomy
    brightness = world_slice(underlay, *cut, bounds)
    opacity = np.clip(brightness * 12, 0, 1)[..., None]
    picture = 1 - opacity * (1 - (DARKEST + (BRIGHTEST - DARKEST) * np.clip(brightness, 0, 1))[..., None])
    if img is not None and scale.limit > 0:
        colours = overlay_rgba(img, brain, scale, *cut, bounds)
        picture = picture * (1 - colours[..., 3:]) + colours[..., :3] * colours[..., 3:]
    picture = np.broadcast_to(picture, (*brightness.shape, 3))
    board.imshow(picture, origin="lower", extent=(x, x + wide, y + tall, y), aspect="auto")
    if truth is not None:
        level = float(np.max(truth.dataobj)) / 2
        inside = world_slice(truth, *cut, bounds)
        if inside.min() < level < inside.max():
            rows, columns = inside.shape
            across = x + (np.arange(columns) + 0.5) * wide / columns
            upwards = y + tall - (np.arange(rows) + 0.5) * tall / rows
            outline = board.contour(across, upwards, inside, levels=[level], colors="black", linewidths=0.9)
            outline.set_path_effects(HALO)
    for at, letter, align in zip((x, x + wide), SIDES[cut[0]], ("left", "right"), strict=True):
        board.text(at, y, letter, fontsize=SMALLEST, color="#333", va="top", ha=align, path_effects=HALO)


def _brightened(underlay: nib.Nifti1Image) -> nib.Nifti1Image:
    """Anatomy from 0 to 1, where 1 is about the brightest tissue."""
    data = np.asanyarray(underlay.dataobj, dtype=np.float32)
    white = float(np.percentile(data[data > 0], 99.5)) if (data > 0).any() else 1.0
    return nib.Nifti1Image(data / white, underlay.affine)


def _cut_name(cut: Cut) -> str:
    return f"{cut[0]} = {round(float(cut[1])):d} mm".replace("-", "−")


def _colour_bar(board: Axes, box: tuple[float, float, float, float], scale: ColourScale) -> None:
    """A horizontal bar in a box (x, y, width, height), on grey as on the anatomy."""
    x, y, wide, tall = box
    values = np.linspace(scale.lowest, scale.limit, 255)
    colours = scale.rgba(values)
    opaque = colours[:, :3] * colours[:, 3:] + GREY * (1 - colours[:, 3:])
    board.imshow(opaque[None], origin="lower", extent=(x, x + wide, y + tall, y), aspect="auto")
    board.add_patch(Rectangle((x, y), wide, tall, fill=False, linewidth=0.5, edgecolor="#888"))
    low, high = map(significant, (scale.lowest, scale.limit))
    names = [(0.0, low, "left"), (1.0, high, "right")]
    if scale.signed and wide > 2 * len(low) * CHARACTER * SMALLEST / 72 + 0.3:
        names.append((0.5, "0", "center"))
    for share, name, align in names:
        board.text(x + wide * share, y + tall + 0.03, name, fontsize=SMALLEST, va="top", ha=align)

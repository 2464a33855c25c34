"""What a reader sees of a figure: its texts with their places in pixels, and its legends."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox

TOLERANCE = 1.0  # pixels at 100 dpi


def drawn(fig: Figure) -> Figure:
    FigureCanvasAgg(fig).draw()
    return fig


def texts(fig: Figure) -> list[Text]:
    """All visible texts; labels of ticks outside the limits of their axis are not drawn."""
    found: list[Text] = [*fig.texts]
    for legend in legends(fig):
        found += [*legend.get_texts(), legend.get_title()]
    for ax in fig.axes:
        found += ax.texts
        if not ax.axison:
            continue
        found += [ax.title, ax._left_title, ax._right_title]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            margin = 1e-9 * (high - low)
            ticks = zip(axis.get_majorticklocs(), axis.get_major_ticks(), strict=True)
            for at, tick in ticks:
                if low - margin <= at <= high + margin:
                    found += [tick.label1, tick.label2]
            found += [axis.label, axis.get_offset_text()]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def legends(fig: Figure) -> list[Legend]:
    return [*fig.legends, *(legend for ax in fig.axes if (legend := ax.get_legend()) is not None)]


def outline(text: Text) -> Path:
    """The rectangle of a text, also if it is rotated about its anchor."""
    angle = text.get_rotation()
    if angle % 90 == 0:
        return Path.unit_rectangle().transformed(_to(_shrunk(text.get_window_extent())))
    assert text.get_rotation_mode() == "anchor"
    text.set_rotation(0)
    box = _shrunk(text.get_window_extent())
    text.set_rotation(angle)
    anchor = text.get_transform().transform(text.get_position())
    return Path.unit_rectangle().transformed(_to(box) + Affine2D().rotate_deg_around(*anchor, angle))


def _shrunk(box: Bbox) -> Bbox:
    return Bbox.from_extents(box.x0 + TOLERANCE, box.y0 + TOLERANCE, box.x1 - TOLERANCE, box.y1 - TOLERANCE)


def _to(box: Bbox) -> Affine2D:
    return Affine2D().scale(box.width, box.height).translate(box.x0, box.y0)


def overlapping(fig: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that overlap."""
    shapes = [(text.get_text(), outline(text)) for text in texts(fig)]
    return [
        (a, b) for (a, one), (b, other) in combinations(shapes, 2) if one.intersects_path(other, filled=True)
    ]


def cut_off(fig: Figure) -> list[str]:
    """Texts that extend beyond the figure."""
    width, height = fig.bbox.size
    found = []
    for text in texts(fig):
        corners = np.array(outline(text).vertices)
        if corners.min() < 0 or corners[:, 0].max() > width or corners[:, 1].max() > height:
            found.append(text.get_text())
    return found


def legends_over_axes(fig: Figure) -> list[str]:
    """First texts of the legends that cover a part of the drawing area of any axes."""
    return [
        legend.get_texts()[0].get_text()
        for legend in legends(fig)
        for ax in fig.axes
        if _shrunk(legend.get_window_extent()).overlaps(ax.get_window_extent())
    ]


def smallest_font(fig: Figure) -> float:
    return min(text.get_fontsize() for text in texts(fig))

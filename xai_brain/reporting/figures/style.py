"""Style of all figures: sizes, fonts, and one colour for each class and each method of a report.

``with style():`` around building and saving a figure applies the style of the report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

# both palettes can be distinguished with every kind of colour blindness (tests/test_figures.py)
CLASS_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
METHOD_COLOURS = ("#332288", "#44aa99", "#aa4499", "#999933", "#882255", "#117733", "#88ccee")
MARKERS = "osD^vP"  # their number and that of the colours have no common divisor
LINES = ("-", "--", "-.")
INK, SOFT, GRID, CHANCE = "#22272e", "#8b949e", "#e6e9ec", "#a33b3b"
NETWORK = INK  # scores of the network itself
DASHED = (0, (4, 3))
WIDTH = 9.0  # inches, 864 px in a browser: the text column of the report
NARROW = 3.7  # inches, the text column of a phone
SMALLEST = 8.0  # points, of all text: 10.7 px at this width
CHARACTER = 0.62  # width of a character, as a share of the size of the font


def style() -> AbstractContextManager[None]:
    """Style of the report, independent of the user's settings; text from data is not parsed as formulas."""
    own = {
        "font.size": 9.5,
        "font.family": "DejaVu Sans",
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "axes.grid": False,
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.6,
        "svg.fonttype": "path",
        "svg.hashsalt": "xai_brain",
    }
    return mpl.style.context(["default", own])


def for_screens(draw: Callable[..., Figure], *args: Any, **options: Any) -> dict[str, Any]:
    """A figure for the page, and the function that draws its version for narrow screens.

    They are arguments of `Gallery.add`.

    Parameters
    ----------
    draw : function with the argument `narrow`
    """
    return {"fig": draw(*args, **options), "narrow": partial(draw, *args, **options, narrow=True)}


def panels_of(height: float, n: int, narrow: bool, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with panels beside each other, or below each other on narrow screens.

    Parameters
    ----------
    height : float
        Of a panel, in inches.
    n : int
        Number of panels.
    narrow : bool
    options
        Arguments of ``Figure.subplots`` for panels beside each other.
    """
    if narrow:
        fig = Figure(figsize=(NARROW, n * height), layout="constrained")
        return fig, list(fig.subplots(n, 1, squeeze=False)[:, 0])
    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    return fig, list(fig.subplots(1, n, squeeze=False, **options)[0])


def class_colour(index: int) -> str:
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]


def class_colours(class_names: Sequence[str]) -> dict[str, str]:
    """Colour of each class, given all classes of the run in their order."""
    return {name: class_colour(index) for index, name in enumerate(class_names)}


def method_styles(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and style of the line of each method, as arguments of ``Axes.plot``.

    Parameters
    ----------
    methods : iterable of str
        All methods of the run in their order, so that a method looks the same in all figures; then others,
        of which there are tables but no maps.
    """
    n = len(METHOD_COLOURS)
    return {
        method: {
            "color": METHOD_COLOURS[i % n],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": LINES[i // n % len(LINES)],
        }
        for i, method in enumerate(dict.fromkeys(methods))
    }


def legend_below(ax: Axes, ncols: int = 2) -> None:
    """Legend below the label of the x axis, where it hides nothing."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    below = ax.transAxes + ScaledTranslation(0, -36 / 72, figure.dpi_scale_trans)
    ax.legend(
        loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below,
        borderaxespad=0, ncols=ncols, columnspacing=1.4,
    )  # fmt: skip


def shortened(name: str, length: int = 22) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def heading(name: str, inches: float, size: float = 9.5) -> dict[str, Any]:
    """Text and font of a bold name, in at most two lines of a width."""
    most = int(72 * inches / (1.12 * CHARACTER * SMALLEST))  # characters that are still legible
    lines = _two_lines(name) if len(name) > 72 * inches / (1.12 * CHARACTER * size) else name
    lines = "\n".join(shortened(line, most) for line in lines.split("\n"))
    longest = max(map(len, lines.split("\n")))
    fits = min(size, 72 * inches / (1.12 * CHARACTER * longest))
    return {"s": lines, "fontsize": fits, "fontweight": "bold", "linespacing": 1.1}


def _two_lines(name: str) -> str:
    """A CamelCase name or several words, divided into two lines near the middle."""
    starts = [m.start() for m in re.finditer(r"(?<=[a-z0-9])(?=[A-Z])| ", name)]
    at = min(starts, key=lambda start: abs(start - len(name) / 2), default=0)
    return f"{name[:at]}\n{name[at:].strip()}" if at else name

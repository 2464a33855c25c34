"""Figure of corrected thresholds: maps of the networks and of permuted labels, relative to the threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from xai_brain.reporting.figures.style import CHANCE, DASHED, GRID, NARROW, SOFT, WIDTH, shortened


def threshold_figure(
    values: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    styles: Mapping[str, Mapping[str, Any]],
    *,
    narrow: bool = False,
) -> Figure:
    """Every map as a point, divided by the threshold of its method.

    Parameters
    ----------
    values : mapping of method to (values of permuted networks, values of the networks)
    styles : mapping of method to color
    narrow : bool, default False
        For phones.
    """
    size = (NARROW, 0.9 + 0.42 * len(values)) if narrow else (WIDTH, 1.0 + 0.5 * len(values))
    fig = Figure(figsize=size, layout="constrained")
    ax = fig.subplots()
    random = np.random.default_rng(0)  # of the positions of the points only
    ax.set_axisbelow(True)
    ax.grid(axis="x", color=GRID, linewidth=0.8)
    for y, (method, (null, own)) in enumerate(values.items()):
        for shift, points, colour in ((0.2, null, SOFT), (-0.2, own, styles[method]["color"])):
            jitter = random.uniform(-0.13, 0.13, len(points))
            ax.plot(points, y + shift + jitter, ".", color=colour, markersize=3, alpha=0.6)
    ax.axvline(1, color=CHANCE, linestyle=DASHED, linewidth=1.2)
    ax.set_yticks(range(len(values)), [shortened(name, 18) if narrow else name for name in values])
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("statistic / threshold")
    return fig

"""Figure of the verdict: performance, localisation and agreement against chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from xai_brain.reporting.figures.style import CHANCE, DASHED, GRID, NARROW, NETWORK, WIDTH, shortened
from xai_brain.reporting.values import Estimate


def verdict_figure(
    panels: Mapping[str, Mapping[str, Estimate]],
    styles: Mapping[str, Mapping[str, Any]],
    dots: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    narrow: bool = False,
) -> Figure:
    """Estimates with intervals against chance (dashed), in one row of panels.

    Parameters
    ----------
    panels : mapping of title to mapping of row to Estimate
    styles : mapping of row to color and marker
        Default: those of the network.
    dots : mapping of title to mapping of row to values
        Single values that are drawn as small dots in place of an interval.
    narrow : bool, default False
        Panels below each other, for phones.
    """
    rows = [len(panel) for panel in panels.values()]
    if narrow:
        heights = [0.5 + 0.21 * n for n in rows]
        fig = Figure(figsize=(NARROW, sum(heights)), layout="constrained")
        axes = fig.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    else:
        fig = Figure(figsize=(WIDTH, 0.72 + 0.27 * max(rows)), layout="constrained")
        axes = fig.subplots(1, len(rows), squeeze=False)[0]
    for ax, (title, panel) in zip(axes, panels.items(), strict=True):
        ax.grid(axis="x", color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        for y, (name, estimate) in enumerate(panel.items()):
            own = styles.get(name, {})
            colour, marker = own.get("color", NETWORK), own.get("marker", "o")
            if single := dots.get(title, {}).get(name):
                ax.plot(single, [y] * len(single), marker, color=colour, markersize=4, alpha=0.35)
            elif estimate.low is not None and estimate.high is not None:
                ax.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=2.6, alpha=0.55)
            ax.plot(estimate.value, y, marker, color=colour, markersize=6.5)
            if estimate.chance is not None:
                ends = [y - 0.42, y + 0.42]
                ax.plot([estimate.chance] * 2, ends, color=CHANCE, linewidth=1.3, linestyle=DASHED)
        ax.set_title(title, pad=5, x=1, ha="right")  # above the names of rows, too
        ax.set(ylim=(max(len(panel), 1 if narrow else max(rows)) - 0.45, -0.55))
        ax.set_yticks(range(len(panel)), [shortened(name, 24) for name in panel], fontsize=9)
        ax.tick_params(axis="y", length=0)
        ax.tick_params(axis="x", labelsize=8.5)
        ax.margins(x=0.08)
        values = [estimate.value for estimate in panel.values()]
        if all(0 <= value <= 1 for value in values):
            ax.set_xlim(min(0, *ax.get_xlim()) if min(values) < 0.4 else min(0.4, *ax.get_xlim()), 1.03)
    return fig

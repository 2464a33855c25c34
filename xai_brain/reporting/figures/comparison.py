"""Figures that compare methods: estimates with intervals, Dice coefficients of pairs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from xai_brain.reporting.figures.style import (
    CHANCE,
    DASHED,
    GRID,
    NARROW,
    NETWORK,
    SMALLEST,
    WIDTH,
    method_styles,
    panels_of,
    shortened,
)


def interval_figure(
    panels: Mapping[str, Sequence[Mapping[str, Any]]],
    styles: Mapping[str, Mapping[str, Any]],
    *,
    shares: bool = False,
    narrow: bool = False,
) -> Figure:
    """Estimates with intervals and chance levels, in panels with the same rows.

    Parameters
    ----------
    panels : mapping of title to rows with name, value, low, high, chance (low, high, chance may be None)
        All panels have the order of the first.
    styles : mapping of row name to color and marker
        Default: those of the network.
    shares : bool, default False
        All values are shares of one whole: the axes are from 0 to 1.
    narrow : bool, default False
        Panels below each other, for phones.
    """
    names = list(dict.fromkeys(row["name"] for rows in panels.values() for row in rows))
    height = 0.75 + 0.22 * len(names) if narrow else 1.0 + 0.34 * len(names)
    fig, axes = panels_of(height, len(panels), narrow, sharey=True)
    for ax, (title, rows) in zip(axes, panels.items(), strict=True):
        ax.grid(axis="x", color=GRID, linewidth=0.8)
        ax.set_axisbelow(True)
        for row in rows:
            y, own = names.index(row["name"]), styles.get(row["name"], {})
            colour = own.get("color", NETWORK)
            if row.get("low") is not None and row.get("high") is not None:
                ax.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.4, alpha=0.55)
            ax.plot(row["value"], y, own.get("marker", "o"), color=colour, markersize=6)
        chances = [row["chance"] for row in rows if row.get("chance") is not None]
        if chances:
            ax.axvline(np.mean(chances), color=CHANCE, linewidth=1, linestyle=DASHED)
        ax.set(ylim=(len(names) - 0.5, -0.5))
        if narrow:
            ax.set_title(title, x=1, ha="right", fontsize=9)  # above the names of rows, too
            ax.xaxis.set_major_locator(MaxNLocator(4))
        else:
            ax.set_title(textwrap.fill(title, 66 // len(panels)))
        ax.set_yticks(range(len(names)), [shortened(name, 24 if narrow else 30) for name in names])
        ax.tick_params(axis="y", length=0)
        ax.margins(x=0.08)
        if shares:
            ax.set_xlim(-0.03, 1.03)
    return fig


def dice_figure(pairs: pd.DataFrame, methods: Sequence[str], *, narrow: bool = False) -> Figure:
    """Dice coefficient of each pair of methods against the percentage of voxels, with chance.

    Parameters
    ----------
    pairs : DataFrame with method_a, method_b, top_percent, mean, ci_low, ci_high
    methods : sequence of str
        One panel for each, with a line for every other method; a single panel for two methods.
    narrow : bool, default False
        Two panels in a row, for phones.
    """
    styles = method_styles([*methods, *pairs["method_a"], *pairs["method_b"]])
    methods = list(styles)
    titles = methods if len(methods) > 2 else [" × ".join(methods)]
    n_columns, n_names = min(2 if narrow else 4, len(titles)), 2 if narrow else 4
    n_rows = -(-len(titles) // n_columns)
    width = NARROW if narrow else WIDTH if len(titles) > 1 else 5.5
    size = (width, (1.9 if narrow else 2.35) * n_rows + 0.6 + 0.16 * (len(methods) // n_names))
    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    ticks = sorted(pairs["top_percent"].unique())
    for ax, title in zip(axes.flat, titles, strict=False):
        ax.plot(ticks, np.array(ticks) / 100, color=CHANCE, linewidth=1, linestyle=DASHED)
        for (a, b), line in pairs.groupby(["method_a", "method_b"], sort=False):
            if len(titles) > 1 and title not in (a, b):
                continue
            own = styles[b if a == title else a] if len(titles) > 1 else {"color": NETWORK, "marker": "o"}
            line = line.sort_values("top_percent")
            low, high = line["ci_low"].to_numpy(float), line["ci_high"].to_numpy(float)
            ax.fill_between(line["top_percent"], low, high, color=own["color"], alpha=0.15, linewidth=0)
            ax.plot(line["top_percent"], line["mean"], markersize=3.5, **own)
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)
        ax.tick_params(labelbottom=True)
        ax.set_ylim(0, None)
        length = (19 if narrow else 24) if len(titles) > 1 else 38 if narrow else 60
        ax.set_title(shortened(title, length), fontsize=8.5 if narrow else 9)
        ax.grid(axis="y", color=GRID, linewidth=0.8)
    for ax in list(axes.flat)[len(titles) :]:
        ax.axis("off")
    axis = "the top k % of |value| in the brain"
    axis = axis if narrow else f"voxels kept in each map: {axis} (log scale)"
    fig.supxlabel(axis, fontsize=9.5)
    fig.supylabel("Dice", fontsize=9.5)
    handles = [Line2D([], [], color=CHANCE, linewidth=1, linestyle=DASHED, label="chance")]
    if len(titles) > 1:
        handles[:0] = [
            Line2D([], [], markersize=4.5, label=shortened(name, 20 if narrow else 28), **own)
            for name, own in styles.items()
        ]
    fig.legend(
        handles=handles,
        loc="outside upper center",
        ncols=min(n_names, len(handles)),
        columnspacing=1.2,
        handlelength=1.6,
        fontsize=SMALLEST if narrow else None,
    )
    return fig


def curve_figure(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    styles: Mapping[str, Mapping[str, Any]],
    *,
    narrow: bool = False,
) -> Figure:
    """Dice coefficient against the percentage of voxels, with chance.

    Parameters
    ----------
    lines : mapping of name to (percents, values)
    styles : mapping of name to color, marker and linestyle
    narrow : bool, default False
        The legend below the curves, for phones.
    """
    size = (NARROW, 2.9 + 0.2 * len(lines)) if narrow else (WIDTH, max(3.4, 0.8 + 0.2 * len(lines)))
    fig = Figure(figsize=size, layout="constrained")
    ax = fig.subplots()
    percents = np.asarray(next(iter(lines.values()))[0], float)
    ax.plot(percents, percents / 100, color=CHANCE, linewidth=1, linestyle=DASHED, label="chance")
    for name, (x, y) in lines.items():
        ax.plot(x, y, label=shortened(name, 40), markevery=5, markersize=4.5, **styles[name])
    wide = "k % of the brain voxels with the largest |value| in each map"
    ax.set(xlabel="k % with the largest |value|" if narrow else wide, ylabel="Dice")
    ax.set_ylim(0, None)
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    fig.legend(loc="outside lower left" if narrow else "outside right upper")
    return fig

"""Figures that compare methods: estimates with intervals, Dice coefficients of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from xai_brain.reporting.figures.scores import (
    CHANCE,
    CLASS_COLOURS,
    METHOD_COLOURS,
    SOFT,
    WIDTH,
    method_colours,
    shortened,
)


def interval_figure(
    panels: Mapping[str, Sequence[Mapping]], colours: Mapping[str, str] | None = None
) -> Figure:
    """Estimates with intervals and chance levels, in panels with the same rows.

    Parameters
    ----------
    panels : mapping of title to rows with name, value, low, high, chance (low, high, chance may be None)
        All panels have the order of the first.
    colours : mapping of row name to colour, optional
    """
    names = list(dict.fromkeys(row["name"] for rows in panels.values() for row in rows))
    fig = Figure(figsize=(WIDTH, 0.85 + 0.34 * len(names)), layout="constrained")
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, rows) in zip(axes, panels.items(), strict=True):
        ax.grid(axis="x", color="#e6e9ec", linewidth=0.8)
        ax.set_axisbelow(True)
        for row in rows:
            y, colour = names.index(row["name"]), (colours or {}).get(row["name"], CLASS_COLOURS[0])
            if row.get("low") is not None and row.get("high") is not None:
                ax.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.4, alpha=0.55)
            ax.plot(row["value"], y, "o", color=colour, markersize=6)
        chances = [row["chance"] for row in rows if row.get("chance") is not None]
        if chances:
            ax.axvline(np.mean(chances), color=CHANCE, linewidth=1, linestyle=(0, (4, 3)))
        ax.set(title=title, ylim=(len(names) - 0.5, -0.5))
        ax.set_yticks(range(len(names)), [shortened(name, 30) for name in names])
        ax.tick_params(axis="y", length=0)
        ax.margins(x=0.08)
    return fig


def dice_figure(pairs: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Dice coefficient of each pair of methods against the percentage of voxels, with chance.

    Parameters
    ----------
    pairs : DataFrame with method_a, method_b, top_percent, mean, ci_low, ci_high
    methods : sequence of str
        Up to three share one panel; more have a panel each, with a line for every other method.
    """
    colours = method_colours(methods)
    single = len(methods) <= 3
    titles = [""] if single else list(methods)
    n_columns = 1 if single else min(4, len(titles))
    n_rows = -(-len(titles) // n_columns)
    size = (6.6, 3.6) if single else (WIDTH, 2.35 * n_rows + 0.4)
    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
    ticks = sorted(pairs["top_percent"].unique())
    pair_colours = iter(METHOD_COLOURS)
    for ax, title in zip(axes.flat, titles, strict=False):
        ax.plot(
            ticks, np.array(ticks) / 100, color=CHANCE, linewidth=1, linestyle=(0, (4, 3)), label="chance"
        )
        for (a, b), line in pairs.groupby(["method_a", "method_b"], sort=False):
            if title and title not in (a, b):
                continue
            other = b if a == title else a
            line = line.sort_values("top_percent")
            colour = next(pair_colours) if single else colours.get(other, SOFT)
            low, high = line["ci_low"].to_numpy(float), line["ci_high"].to_numpy(float)
            ax.fill_between(line["top_percent"], low, high, color=colour, alpha=0.15, linewidth=0)
            ax.plot(line["top_percent"], line["mean"], color=colour, marker="o", markersize=3.5,
                    label=f"{a} × {b}" if single else None)  # fmt: skip
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)
        ax.tick_params(labelbottom=True)
        ax.set(ylim=(0, None), title=title)
        ax.grid(axis="y", color="#e6e9ec", linewidth=0.8)
    for ax in list(axes.flat)[len(titles) :]:
        ax.axis("off")
    fig.supxlabel("voxels kept in each map: the top k % of |value| in the brain (log scale)", fontsize=9.5)
    fig.supylabel("Dice", fontsize=9.5)
    if single:
        axes[0, 0].legend(loc="upper left")
    else:
        handles = [Line2D([], [], color=colours[m], marker="o", markersize=3.5) for m in methods]
        chance = Line2D([], [], color=CHANCE, linewidth=1, linestyle=(0, (4, 3)))
        fig.legend([*handles, chance], [*methods, "chance"], loc="outside upper center", ncols=5)
    return fig


def curve_figure(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], colours: Mapping[str, str]
) -> Figure:
    """Dice coefficient against the percentage of voxels, with chance.

    Parameters
    ----------
    lines : mapping of name to (percents, values)
    colours : mapping of name to colour
    """
    fig = Figure(figsize=(6.6, 3.4), layout="constrained")
    ax = fig.subplots()
    percents = np.asarray(next(iter(lines.values()))[0], float)
    ax.plot(percents, percents / 100, color=CHANCE, linewidth=1, linestyle=(0, (4, 3)), label="chance")
    for name, (x, y) in lines.items():
        ax.plot(x, y, color=colours[name], label=shortened(name, 40))
    ax.set(xlabel="k % of the brain voxels with the largest |value| in each map", ylabel="Dice")
    ax.set_ylim(0, None)
    ax.grid(axis="y", color="#e6e9ec", linewidth=0.8)
    fig.legend(loc="outside right upper")
    return fig

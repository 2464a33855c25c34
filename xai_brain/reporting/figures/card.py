"""Figure of the report card: methods in rows, metrics in columns, colours from bad to good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from xai_brain.metrics.report_card import Verdict
from xai_brain.metrics.table import METRICS
from xai_brain.reporting.figures.style import (
    CHANCE,
    DASHED,
    GRID,
    INK,
    NARROW,
    SMALLEST,
    SOFT,
    WIDTH,
    shortened,
)
from xai_brain.reporting.ratings import MARKS
from xai_brain.reporting.wording import fixed

GOOD = LinearSegmentedColormap.from_list("card", ["#e9b8a6", "#f7f4ee", "#9dc3a4", "#3f8f5f"])
AT_CHANCE = 1 / 3  # of the colour scale


def goodness(name: str, value: float, chance: float) -> float:
    """Position of a value on the colour scale of its metric.

    Parameters
    ----------
    name : str
        Name of the metric.
    value, chance : float

    Returns
    -------
    float
        1 for the best value, 0 for the neutral one (chance, unless the table of metrics gives another),
        negative if worse; NaN for metrics without a scale, for example costs.
    """
    best, neutral = METRICS[name].best, METRICS[name].neutral
    full = abs((chance if neutral is None else neutral) - best)
    return 1 - abs(value - best) / full if np.isfinite(full) and full > 0 else np.nan


def card_figure(card: pd.DataFrame, verdicts: Sequence[Verdict]) -> Figure:
    """All metrics of all methods; baselines below the line.

    Parameters
    ----------
    card : pandas.DataFrame
        From `xai_brain.metrics.report_card.report_card`.
    verdicts : sequence of Verdict
        Their order is that of the rows.
    """
    metrics = [m for m in METRICS.values() if m.in_figure and (card["metric"] == m.name).any()]
    cells = card.set_index(["method", "metric"])
    names = [verdict.method for verdict in verdicts]
    fig = Figure(figsize=(WIDTH, 1.6 + 0.27 * len(names)), layout="constrained")
    ax = fig.subplots()
    for y, verdict in enumerate(verdicts):
        for x, metric in enumerate(metrics):
            if (verdict.method, metric.name) not in cells.index:
                continue
            row = cells.loc[(verdict.method, metric.name)]
            good = goodness(metric.name, row["value"], row["chance"])
            if np.isfinite(good):
                shade = AT_CHANCE + (1 - AT_CHANCE) * good if good > 0 else AT_CHANCE * (1 + max(good, -1))
                ax.fill([x, x + 1, x + 1, x], [y, y, y + 1, y + 1], color=GOOD(shade), linewidth=0)
            if np.isfinite(row["value"]):
                text = _format(row["value"], metric.decimals)
                ax.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=SMALLEST)
        ax.text(-0.15, y + 0.5, MARKS[verdict.believe], ha="right", va="center", fontsize=9, color=INK)
    n_methods = sum(verdict.kind != "baseline" for verdict in verdicts)
    if 0 < n_methods < len(names):
        ax.axhline(n_methods, color=INK, linewidth=1.2)
    ax.set(xlim=(-0.6, len(metrics)), ylim=(len(names), 0))
    ax.set_yticks(np.arange(len(names)) + 0.5, [shortened(name, 28) for name in names])
    headings = [(metric.heading or metric.title).replace("-\n", "").replace("\n", " ") for metric in metrics]
    ax.set_xticks(np.arange(len(metrics)) + 0.5, headings, fontsize=8.5)
    ax.xaxis.tick_top()
    ax.tick_params(axis="x", rotation=45)
    for label in ax.get_xticklabels():
        label.set(ha="left", va="bottom", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig


def _format(value: float, decimals: int) -> str:
    digits = 0 if abs(value) >= 9.995 else decimals
    return fixed(value, digits).replace("0.", ".", 1)


def cascade_figure(
    cascade: pd.DataFrame, styles: Mapping[str, Mapping[str, Any]], *, narrow: bool = False
) -> Figure:
    """Similarity to the original map while layers are randomised from the output to the input.

    Parameters
    ----------
    cascade : pandas.DataFrame
        method, step (from 1), layer, spearman; one row per participant.
    styles : mapping of method to color, marker and linestyle
        Methods in the order of the legend; those without values have no line.
    narrow : bool, default False
        The legend below the lines, for phones.
    """
    layers = cascade.sort_values("step").drop_duplicates("step")["layer"].tolist()
    present = [method for method in styles if (cascade["method"] == method).any()]
    size = (NARROW, 3.2 + 0.19 * len(present)) if narrow else (WIDTH, max(3.6, 0.9 + 0.19 * len(present)))
    fig = Figure(figsize=size, layout="constrained")
    ax = fig.subplots()
    for method in present:
        steps = cascade[cascade["method"] == method].groupby("step")["spearman"].mean()
        line = [1.0, *steps]
        ax.plot(range(len(line)), line, markersize=4, label=shortened(method, 28), **styles[method])
    ax.axhline(0, color=CHANCE, linewidth=1, linestyle=DASHED)
    names = ["trained", *(layer.removeprefix("network.") for layer in layers)]
    rotation = 60 if narrow else 20
    ax.set_xticks(range(len(names)), names, rotation=rotation, ha="right", rotation_mode="anchor")
    ax.set(ylabel="Spearman ρ" if narrow else "Spearman with the original map", ylim=(-0.15, 1.03))
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ax.spines["bottom"].set_color(SOFT)
    fig.legend(loc="outside lower left" if narrow else "outside right center")
    return fig

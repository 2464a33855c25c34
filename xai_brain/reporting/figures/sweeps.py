"""Figures of a sweep: ranking of settings, and the planted effects that each method finds."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from xai_brain.reporting.figures.style import (
    CHANCE,
    CLASS_COLOURS,
    INK,
    NETWORK,
    SMALLEST,
    SOFT,
    WIDTH,
    shortened,
)

MOST = 20  # settings that are drawn, the best
COLUMNS = 4  # of small panels
MARKERS = "osD^vP"
BASELINE = "#5f6b73"


def ranking_figure(ranks: pd.DataFrame) -> Figure:
    """Settings in the order of the first ranked metric, with intervals over jobs.

    Parameters
    ----------
    ranks : pandas.DataFrame
        From `xai_brain.metrics.ranking.ranking`.
    """
    metric = ranks["metric"].iloc[0]
    rows = ranks[ranks["metric"] == metric].head(MOST)
    keys = list(ranks.columns[2 : ranks.columns.get_loc("value")])
    names = [", ".join(_setting(key, row[key]) for key in keys) or "all jobs" for _, row in rows.iterrows()]
    lines = sum(len(textwrap.wrap(name, 44)) for name in names)
    figure = Figure((WIDTH, 1.0 + 0.12 * len(rows) + 0.2 * lines), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(rows))
    axes.hlines(y, rows["ci_low"], rows["ci_high"], color=NETWORK, linewidth=2.4, alpha=0.45)
    axes.plot(rows["value"], y, "o", color=NETWORK)
    axes.set_yticks(
        y, [f"{textwrap.fill(name, 44)}  (n = {n})" for name, n in zip(names, rows["n_jobs"], strict=True)]
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", color=SOFT, alpha=0.25)
    if "auroc" in metric:
        axes.axvline(0.5, color=CHANCE, linestyle="--", linewidth=1)
    n = len(ranks[ranks["metric"] == metric])
    axes.set_title(f"{metric} of {n} settings" + (f", the best {MOST}" if n > MOST else ""), x=1, ha="right")
    axes.set_xlabel(f"{metric}\nmean and 95 % interval over the jobs of a setting")
    return figure


def _setting(key: str, value: object) -> str:
    """A setting and its value; lines are not broken between them."""
    shown = f"{value:g}" if isinstance(value, float) else value
    return f"{key.rpartition('.')[2]} {shown}".replace(" ", "\N{NO-BREAK SPACE}")


def curves_figure(curve: pd.DataFrame, smallest: pd.DataFrame) -> Figure:
    """Rank accuracy by size of the effect: a panel for each method, a line for each location.

    Filled points: the effect is found. Dashed line: chance or the permutation null of the method. Grey area:
    values up to the best baseline that does not use the labels.

    Parameters
    ----------
    curve, smallest : pandas.DataFrame
        From `xai_brain.metrics.detection`.
    """
    methods = list(dict.fromkeys(smallest["method"]))
    places = _places(curve)
    n_rows = -(-len(methods) // COLUMNS)
    figure = Figure((WIDTH, 0.9 + 1.75 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, COLUMNS, squeeze=False, sharex=curve["unit"].nunique() == 1)
    kinds = dict(zip(curve["method"], curve["kind"], strict=True))
    top = min(1.0, 1.05 * float(curve.loc[curve["kind"] != "network", "ci_high"].max()))
    for axes, method in zip(grid.flat, methods, strict=False):
        network = kinds[method] == "network"
        _draw_method(axes, curve[curve["method"] == method], places)
        axes.set_ylim(*((0.3, 1.03) if network else (0, top)))
        axes.set_title(
            "The network: test AUROC"
            if network
            else shortened(method + (" (baseline)" * (kinds[method] == "baseline")), 28),
            fontsize=8.5,
            color=BASELINE if kinds[method] == "baseline" else INK,
        )
        axes.tick_params(labelsize=SMALLEST)
    for axes in list(grid.flat)[len(methods) :]:
        axes.set_axis_off()
    figure.supxlabel(f"size of the planted effect ({'; '.join(curve['unit'].unique())})", fontsize=9)
    figure.supylabel("rank accuracy (rra)", fontsize=9)
    figure.legend(handles=_legend(places), loc="outside upper center", ncols=3, fontsize=8)
    return figure


def _draw_method(axes: Axes, rows: pd.DataFrame, places: dict[str, tuple[str, str]]) -> None:
    blind = rows.groupby("size")["blind"].max()
    if blind.notna().any():
        axes.fill_between(blind.index, 0, blind, color=SOFT, alpha=0.22, linewidth=0)
    for place, (colour, marker) in places.items():
        part = rows[rows["place"] == place].sort_values("size")
        if part.empty:
            continue
        axes.fill_between(
            part["size"], part["ci_low"], part["ci_high"], color=colour, alpha=0.18, linewidth=0
        )
        axes.plot(part["size"], part["value"], color=colour, linewidth=1.3)
        axes.plot(part["size"], part["null"], color=CHANCE, linestyle="--", linewidth=0.9)
        for row in part.itertuples():
            face = colour if row.found else "white"
            axes.plot(row.size, row.value, marker, color=colour, markerfacecolor=face, markersize=4.5)


def smallest_figure(curve: pd.DataFrame, smallest: pd.DataFrame) -> Figure:
    """The smallest effect that each method finds, a point for each location; on the right those not found.

    Parameters
    ----------
    curve, smallest : pandas.DataFrame
        From `xai_brain.metrics.detection`.
    """
    units = list(dict.fromkeys(smallest["unit"]))
    methods = list(dict.fromkeys(smallest["method"]))
    places = _places(curve)
    figure = Figure((WIDTH, 1.5 + 0.3 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(units), squeeze=False, sharey=True)[0]
    kinds = dict(zip(smallest["method"], smallest["kind"], strict=True))
    for axes, unit in zip(panels, units, strict=True):
        sizes = sorted(curve.loc[(curve["unit"] == unit) & (curve["size"] > 0), "size"].unique())
        at = {size: k for k, size in enumerate(sizes)}  # steps of the grid, which may be uneven
        none = len(sizes)
        axes.axvspan(none - 0.5, none + 0.5, color=SOFT, alpha=0.15, linewidth=0)
        axes.hlines(range(len(methods)), -0.5, none + 0.5, color=SOFT, alpha=0.2, linewidth=0.8)
        rows = smallest[smallest["unit"] == unit]
        for k, (place, (colour, marker)) in enumerate(places.items()):
            shift = (k - (len(places) - 1) / 2) * min(0.26, 0.7 / len(places))
            for row in rows[rows["place"] == place].itertuples():
                known = pd.notna(row.smallest)
                axes.plot(
                    at[row.smallest] if known else none,
                    methods.index(row.method) + shift,
                    marker,
                    color=colour,
                    markerfacecolor=colour if known else "white",
                    markersize=6,
                )
        axes.set_xticks(range(none + 1), [*(f"{size:g}" for size in sizes), "none\nfound"])
        axes.set_xlim(-0.5, none + 0.5)
        axes.set_xlabel(f"smallest size found, {unit}\n(further left is better)")
    labels = ["The network itself" if kinds[m] == "network" else m for m in methods]
    panels[0].set_yticks(range(len(methods)), labels)
    for tick, method in zip(panels[0].get_yticklabels(), methods, strict=True):
        tick.set_color(BASELINE if kinds[method] == "baseline" else INK)
        tick.set_fontweight("bold" if kinds[method] == "network" else "normal")
        tick.set_fontstyle("italic" if kinds[method] == "baseline" else "normal")
    panels[0].set_ylim(len(methods) - 0.4, -0.6)
    handles = [handle for handle in _legend(places) if handle.get_label() in places]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, title="location of the effect")
    return figure


def _places(curve: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Colour and marker of each location."""
    return {
        place: (CLASS_COLOURS[k % len(CLASS_COLOURS)], MARKERS[k % len(MARKERS)])
        for k, place in enumerate(sorted(curve["place"].unique()))
    }


def _legend(places: dict[str, tuple[str, str]]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colour, marker=marker, label=place) for place, (colour, marker) in places.items()
    ]
    handles.append(Line2D([], [], color=CHANCE, linestyle="--", label="chance or permutation null"))
    handles.append(Patch(color=SOFT, alpha=0.3, label="up to the best baseline without labels"))
    handles.append(
        Line2D([], [], color=INK, marker="o", linestyle="", markerfacecolor="white", label="open: not found")
    )
    return handles

"""Figures of a detection benchmark: AUROC of the networks, rank accuracy of all methods in all cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from xai_brain.metrics.cells.summary import LEARNED
from xai_brain.reporting.figures.regional import COLOURS, DARK, write_value
from xai_brain.reporting.figures.style import (
    CHANCE,
    CLASS_COLOURS,
    DASHED,
    INK,
    MARKERS,
    SMALLEST,
    SOFT,
    WIDTH,
    shortened,
)

ROW = 0.24  # inches
Line = tuple[str, str]  # network and places


def auroc_figure(table: pd.DataFrame) -> Figure:
    """AUROC by size of the effect: a panel for each kind of effect, a line for each network and its places.

    Parameters
    ----------
    table : pandas.DataFrame
        detection.tsv.
    """
    networks = table[table["kind"] == "network"]
    effects = list(dict.fromkeys(networks["effect"]))
    looks = _looks(list(dict.fromkeys(zip(networks["network"], networks["places"], strict=True))))
    figure = Figure((WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, len(effects), squeeze=False, sharey=True)[0]
    for axes, effect in zip(panels, effects, strict=True):
        here = networks[networks["effect"] == effect]
        sizes = sorted(here["size"].abs().unique())  # equidistant, as sizes often double
        for k, ((network, places), look) in enumerate(looks.items()):
            part = here[(here["network"] == network) & (here["places"] == places)]
            part = part.assign(step=part["size"].abs().map(sizes.index)).sort_values("step")
            errors = [part["value"] - part["ci_low"], part["ci_high"] - part["value"]]
            shift = 0.09 * (k - (len(looks) - 1) / 2)
            axes.errorbar(part["step"] + shift, part["value"], yerr=errors, **look)
        axes.axhline(0.5, color=CHANCE, linewidth=1, linestyle=DASHED)
        axes.axhline(LEARNED, color=SOFT, linewidth=0.8)
        axes.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes])
        axes.set(xlim=(-0.5, len(sizes) - 0.5), title=effect, xlabel="size of the effect")
    panels[0].set(ylabel="test AUROC of the network", ylim=(None, 1.02))
    handles = [Line2D([], [], label=f"{', '.join(line)}", **look) for line, look in looks.items()]
    handles.append(Line2D([], [], color=CHANCE, linestyle=DASHED, label="chance"))
    title = "network, places of the effect"
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title=title)
    return figure


def _looks(lines: list[Line]) -> dict[Line, dict[str, Any]]:
    """A colour for the places, a marker for the network."""
    networks, places = (list(dict.fromkeys(line[k] for line in lines)) for k in (0, 1))
    looks = {}
    for line in lines:
        number, colour = networks.index(line[0]), CLASS_COLOURS[places.index(line[1]) % len(CLASS_COLOURS)]
        looks[line] = {
            "color": colour,
            "marker": MARKERS[number % len(MARKERS)],
            "markersize": 5,
            "linewidth": 1.3,
            "markerfacecolor": "white" if number else colour,
        }
    return looks


def rank_figure(table: pd.DataFrame) -> Figure:
    """Relevance rank accuracy: cells in rows, methods in columns, baselines to the right of the line.

    Bold: the effect is found; grey: it is not. A frame marks values that are not below the interval of the
    best method. The first column contains the AUROC of the network.

    Parameters
    ----------
    table : pandas.DataFrame
        detection.tsv.
    """
    maps = table[table["kind"] != "network"]
    aurocs = table[table["kind"] == "network"].set_index("cell")
    cells = list(aurocs.index)
    means = maps.groupby("method").agg(
        baseline=("kind", lambda kinds: kinds.iloc[0] == "baseline"), mean=("value", "mean")
    )
    methods = list(means.sort_values(["baseline", "mean"], ascending=[True, False]).index)
    n_methods = int((~means["baseline"]).sum())
    values = maps.pivot(index="cell", columns="method", values="value").loc[cells, methods].to_numpy(float)
    figure = Figure((WIDTH, 1.9 + ROW * len(cells)), layout="constrained")
    axes = figure.subplots()
    extent = (-0.5, len(methods) - 0.5, len(cells) - 0.5, -0.5)
    axes.imshow(values, cmap=COLOURS, vmin=0, vmax=1, aspect="auto", extent=extent)
    best = maps[maps["kind"] == "method"].sort_values("value").groupby("cell")["ci_low"].last()
    for row in maps.to_dict("records"):
        is_best = row["kind"] == "method" and row["value"] >= best[row["cell"]]
        x, y = methods.index(row["method"]), cells.index(row["cell"])
        _write(axes, x, y, row["value"], bool(row["found"]), "white" if row["value"] > DARK else INK, is_best)
    for y, (_, row) in enumerate(aurocs.iterrows()):
        _write(axes, -1.25, y, row["value"], row["value"] > LEARNED, INK, False)
        before = aurocs.loc[cells[y - 1]] if y else row
        if any(row[key] != before[key] for key in ("network", "effect", "places")):
            axes.axhline(y - 0.5, color=INK, linewidth=0.8)
    if 0 < n_methods < len(methods):
        axes.axvline(n_methods - 0.5, color=INK, linewidth=1.2)
    axes.set_yticks(range(len(cells)), [_title(aurocs.loc[cell]) for cell in cells], fontsize=SMALLEST)
    names = ["AUROC", *(shortened(method, 22) for method in methods)]
    axes.set_xticks([-1.25, *range(len(methods))], names, fontsize=8.5)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for label in axes.get_xticklabels():
        label.set(rotation=45, ha="left", va="bottom", rotation_mode="anchor")
    axes.set(xlim=(-1.9, len(methods) - 0.5), ylim=(len(cells) - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    return figure


def _write(axes: Axes, x: float, y: int, value: float, found: bool, colour: str, framed: bool) -> None:
    if not np.isfinite(value):
        return
    colour, weight = (colour, "bold") if found else (SOFT if colour == INK else colour, "normal")
    write_value(axes, x, y, value, colour, weight)
    if framed:
        axes.add_patch(Rectangle((x - 0.44, y - 0.4), 0.88, 0.8, fill=False, edgecolor=INK, linewidth=0.9))


def _title(row: pd.Series) -> str:
    return f"{row['network']}, {row['effect']}, {row['places']}, {row['size']:g}".replace("-", "−")

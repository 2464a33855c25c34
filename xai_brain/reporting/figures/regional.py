"""Figure of a regional benchmark: mean relevance mass accuracy of each method, and that of each region."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xai_brain.metrics.regional.summary import (
    ALL_REGIONS,
    LEARNT_REGIONS,
    learned_regions,
    matrix,
    networks_of_table,
)
from xai_brain.reporting.figures.style import (
    CHANCE,
    DASHED,
    INK,
    METHOD_COLOURS,
    SMALLEST,
    SOFT,
    WIDTH,
    shortened,
)
from xai_brain.reporting.wording import fixed

COLOURS = "Greens"
DARK = 0.6  # values above it have white text


def regional_figure(table: pd.DataFrame, kinds: Mapping[str, str], published: Mapping[str, float]) -> Figure:
    """Left: means over regions with their intervals; right: methods in rows, regions in columns.

    Parameters
    ----------
    table : pandas.DataFrame
        From `xai_brain.metrics.regional.summary.summarise`.
    kinds : mapping of method to {"method", "baseline"}
        Baselines, which use no network, are in the lowest rows.
    published : mapping of method to float
        Published means, shown as crosses.
    """
    rma, networks = matrix(table, "rma"), networks_of_table(table)
    methods = sorted(
        rma.index, key=lambda method: (kinds[method] == "baseline", -rma.loc[method, ALL_REGIONS])
    )
    regions, learned = networks["region"].tolist(), learned_regions(networks)
    fig = Figure(figsize=(WIDTH, 2.2 + 0.3 * (len(methods) + 1)), layout="constrained")
    left, right = fig.subplots(1, 2, sharey=True, width_ratios=(1, 1.1 + 0.11 * len(regions)))
    _means(left, table, methods, published)
    n_methods = sum(kinds[method] != "baseline" for method in methods)
    values = rma.loc[methods, regions].to_numpy(float)
    scale = max(float(np.nanmax(values)), 1e-9)
    right.imshow(
        values, cmap=COLOURS, vmin=0, vmax=scale, aspect="auto",
        extent=(-0.5, len(regions) - 0.5, len(methods) - 0.5, -0.5),
    )  # fmt: skip
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > DARK * scale else INK
        write_value(right, column, row, value, colour)
    for column, r in enumerate(networks["mean"]):
        write_value(right, column, -1, r, INK if regions[column] in learned else CHANCE)
    names = [shortened(region, 20) + ("" if region in learned else " (not learned)") for region in regions]
    right.set_xticks(range(len(regions)), names, rotation=45, ha="right", rotation_mode="anchor")
    right.set_title("RMA by region; first row: test r of the network")
    right.set_yticks([-1, *range(len(methods))], ["network r", *(shortened(name, 27) for name in methods)])
    right.set_ylim(len(methods) - 0.5, -1.5)
    for ax in (left, right):
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        if 0 < n_methods < len(methods):
            ax.axhline(n_methods - 0.5, color=INK, linewidth=1)
    return fig


def write_value(ax: Axes, x: float, y: float, value: float, colour: str, weight: str = "normal") -> None:
    """Write a value between -1 and 1 into a cell, without the zero before the point; nothing if it is NaN."""
    if np.isfinite(value):
        text = fixed(value, 2).replace("0.", ".", 1)
        ax.text(x, y, text, ha="center", va="center", fontsize=SMALLEST, color=colour, fontweight=weight)


def _means(ax: Axes, table: pd.DataFrame, methods: list[str], published: Mapping[str, float]) -> None:
    rows = table[table["metric"] == "rma"].set_index(["region", "method"])
    shown = [(ALL_REGIONS, METHOD_COLOURS[0], 0.0), (LEARNT_REGIONS, METHOD_COLOURS[1], 0.25)]
    for name, colour, offset in shown:
        if name not in rows.index:
            continue
        part = rows.loc[name].loc[methods]
        places = np.arange(len(methods)) + offset
        errors = [part["mean"] - part["ci_low"], part["ci_high"] - part["mean"]]
        ax.errorbar(part["mean"], places, xerr=errors, fmt="o", markersize=4, color=colour, label=name)
    known = [(published[method], place) for place, method in enumerate(methods) if method in published]
    if known:
        x, y = zip(*known, strict=True)
        ax.plot(x, y, "x", color=SOFT, label="published mean")
    ax.axvline(
        rows.loc[ALL_REGIONS, "chance"].mean(), color=CHANCE, linewidth=1, linestyle=DASHED, label="chance"
    )
    ax.set(xlabel="mean RMA", xlim=(0, None))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=SMALLEST)

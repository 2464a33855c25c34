"""Accuracy with the voxels of a mask only, and without them, against the area of the mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xai_brain.reporting.figures.style import (
    CHANCE,
    DASHED,
    GRID,
    INK,
    NARROW,
    SOFT,
    WIDTH,
    class_colour,
    shortened,
)

SIDES = {"mask": "the mask alone", "complement": "all but the mask"}
JOINT, REGIONS = INK, "#6b4f3a"


def mask_figure(
    table: pd.DataFrame,
    methods: Sequence[str],
    class_names: Sequence[str],
    metric: str = "balanced_accuracy",
    *,
    narrow: bool = False,
) -> Figure:
    """A row of panels for each method: mask only, and without the mask.

    Parameters
    ----------
    table : pandas.DataFrame
        From `xai_brain.metrics.mask_validation.validation_table`, either for retrained networks or for the
        networks of the run; with the row of the whole image.
    methods : sequence of str
    class_names : sequence of str
        Their order gives the colours.
    metric : str, default "balanced_accuracy"
    narrow : bool, default False
        Panels below each other, for phones.
    """
    table = table[table["metric"] == metric]
    n_rows, n_columns = (2 * len(methods), 1) if narrow else (len(methods), 2)
    fig = Figure(figsize=(NARROW if narrow else WIDTH, 0.8 + 2.3 * n_rows), layout="constrained")
    axes = fig.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).reshape(-1, 2)
    whole = table[table["control"] == "none"].iloc[0]
    masked = table[table["control"] != "none"]
    areas = sorted(masked["area_percent"].unique())
    lowest = min(0.4, masked["value"].min() - 0.03)
    for row, method in zip(axes, methods, strict=True):
        for ax, (kept, title) in zip(row, SIDES.items(), strict=True):
            rows = masked[(masked["method"] == method) & (masked["kept"] == kept)]
            ax.axhspan(whole["ci_low"], whole["ci_high"], color=INK, alpha=0.08, linewidth=0)
            ax.axhline(whole["value"], color=INK, linewidth=1, linestyle=":", label="whole image")
            ax.axhline(whole["chance"], color=CHANCE, linewidth=1, linestyle=DASHED, label="chance")
            _line(ax, rows[rows["control"] == "random"], "random masks", SOFT, -1)
            for number, name in enumerate(class_names):
                of_class = rows[(rows["control"] == "map") & (rows["mask"].astype(str) == name)]
                _line(ax, of_class, f"mask of {shortened(name)}", class_colour(number), None)
            _line(ax, rows[rows["control"] == "regions"], "regions", REGIONS, None, "--")
            joint = rows[(rows["control"] == "map") & (rows["mask"] == "joint")]
            _line(ax, joint, "joint mask", JOINT, 1)
            ax.set(ylim=(lowest, 1.02))
            ax.set_title(f"{shortened(method, 20 if narrow else 26)}: {title}", fontsize=9 if narrow else 10)
            ax.set_xticks(areas, [f"{area:g}" for area in areas])
            ax.tick_params(labelbottom=True)
            ax.grid(axis="y", color=GRID, linewidth=0.8)
    fig.supxlabel("voxels of the mask, % of the brain", fontsize=9.5)
    fig.supylabel(metric.replace("_", " "), fontsize=9.5)
    found: dict[str, Any] = {}
    for ax in axes.flat:
        handles, labels = ax.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    fig.legend(list(found.values()), list(found), loc="outside upper center", ncols=1 if narrow else 4)
    return fig


def _line(ax: Axes, rows: pd.DataFrame, label: str, colour: str, side: int | None, style: str = "-") -> None:
    """Values by area; with intervals and a small horizontal offset if `side` is given."""
    if rows.empty:
        return
    rows = rows.sort_values("area_percent")
    x, y = rows["area_percent"].to_numpy(float), rows["value"].to_numpy(float)
    if side is None:
        ax.plot(x, y, style, color=colour, linewidth=1, marker="o", markersize=2.5, alpha=0.8, label=label)
        return
    error = np.clip([y - rows["ci_low"], rows["ci_high"] - y], 0, None)
    x = x + side * 0.006 * max(x.max(), 1)
    ax.errorbar(x, y, error, fmt="-o", color=colour, markersize=3.5, elinewidth=1.2, label=label)

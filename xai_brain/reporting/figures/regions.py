"""Bar charts of the strongest atlas regions, and differences between classes in a glass brain."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from xai_brain.reporting.figures.style import (
    CHARACTER,
    GRID,
    NARROW,
    SMALLEST,
    SOFT,
    WIDTH,
    heading,
    shortened,
)
from xai_brain.reporting.wording import significant
from xai_brain.statistics.colour_scale import ColourScale

GLASS_VIEWS = "lyrz"  # left, from the front, right, from above
NARROW_VIEWS = ("lr", "yz")


def top_regions_figure(
    top: pd.DataFrame, methods: Sequence[str], colours: Mapping[str, str], *, narrow: bool = False
) -> Figure:
    """Strongest regions with intervals: a row of panels for each method, a column for each class.

    Parameters
    ----------
    top : DataFrame with method, class, rank, region, mean, ci_low, ci_high
        From `xai_brain.statistics.regions.top_regions`.
    methods : sequence of str
    colours : mapping of class to colour
        The panels of one method have the same scale.
    narrow : bool, default False
        The classes below each other, for phones.
    """
    n_bars, n = int(top["rank"].max()), len(colours)
    height = max(0.75 + 0.24 * n_bars, 1.6)
    spaced = ConstrainedLayoutEngine(h_pad=0.07)  # titles do not touch the ticks above them
    n_rows = len(methods) * (n if narrow else 1)
    fig = Figure(figsize=(NARROW if narrow else WIDTH, n_rows * height + 0.3), layout=spaced)
    if narrow:
        axes = fig.subplots(n_rows, 1, squeeze=False).reshape(len(methods), n)
        for row in axes:
            for ax in row[1:]:
                ax.sharex(row[0])
    else:
        axes = fig.subplots(len(methods), n, squeeze=False, sharex="row")
    for row, method in zip(axes, methods, strict=True):
        for ax, (name, colour) in zip(row, colours.items(), strict=True):
            bars = top[(top["method"] == method) & (top["class"].astype(str) == name)].sort_values("rank")
            low, high = bars["mean"] - bars["ci_low"], bars["ci_high"] - bars["mean"]
            ax.grid(axis="x", color=GRID, linewidth=0.8)
            ax.set_axisbelow(True)
            ax.barh(bars["rank"], bars["mean"], height=0.68, color=colour, alpha=0.75,
                    xerr=np.clip([low, high], 0, None), error_kw={"elinewidth": 1.3})  # fmt: skip
            ax.axvline(0, color=SOFT, linewidth=0.8)
            regions = [shortened(region, 26 if narrow else 72 // max(n, 2)) for region in bars["region"]]
            ax.set_yticks(bars["rank"], regions, fontsize=8.5)
            ax.set(ylim=(n_bars + 0.6, 0.4))
            title = f"{shortened(method, 20)}, {shortened(name, 18)}" if narrow else shortened(name)
            ax.set_title(title, x=1, ha="right")  # above the names of regions too
            ax.tick_params(axis="y", length=0)
            ax.tick_params(axis="x", labelsize=SMALLEST)
            ax.xaxis.set_major_locator(MaxNLocator(2 if narrow or n > 2 else 4))
            ax.xaxis.set_major_formatter(_number)
        if not narrow:
            text = heading(method, height - 0.75)
            row[0].set_ylabel(text.pop("s"), labelpad=8, **text)
    fig.supxlabel(f"mean value of the map in the region{'' if narrow else ' (raw, signed)'}", fontsize=9.5)
    return fig


def glass_brain_figure(
    differences: Mapping[str, nib.Nifti1Image],
    shown: Mapping[str, Sequence[float]],
    significant: Mapping[str, Sequence[float]],
    *,
    what: str = "difference of the mean values of a region (raw)",
    narrow: bool = False,
) -> Figure:
    """Differences or slopes of some regions in a glass brain, one row per image.

    Parameters
    ----------
    differences : mapping of row label to image in MNI152
        One value per region, painted on its voxels.
    shown, significant : mapping of row label to values
        Values of the regions that are drawn, and of those that are outlined.
    what : str, default "difference of the mean values of a region (raw)"
        Meaning of the values.
    narrow : bool, default False
        Two lines of two views per image, for phones.
    """
    n = max(map(len, shown.values()), default=0)
    outlines = "outlined: significant" if any(map(len, significant.values())) else "none is significant"
    note = f"Colour: {what}; the {n} regions with the lowest p; {outlines}."
    width, tall, lines = (NARROW, 1.6, NARROW_VIEWS) if narrow else (WIDTH, 2.3, (GLASS_VIEWS,))
    note = textwrap.fill(note, int(72 * (width - 0.2) / (CHARACTER * 8.5)))
    foot = 0.2 + 0.15 * len(note.split("\n"))  # inches, of the text
    n_lines = len(lines)
    height = tall * n_lines * len(differences) + foot
    fig = Figure(figsize=(width, height))
    for row, (label, img) in enumerate(differences.items()):
        values = np.asanyarray(img.dataobj, np.float64)
        drawn = values * _is_one_of(values, shown[label])
        limit = float(np.abs(drawn).max()) or 1.0  # of an image without differences
        scale = ColourScale(limit, signed=True).matplotlib()
        outlined = _is_one_of(values, significant[label])
        for line, views in enumerate(lines):
            bottom = 1 - (row * n_lines + line + 1) * tall / height
            box = 0.27 / width, bottom, 1 - 1.26 / width, 0.97 * tall / height
            _draw_glass_brain(fig, box, nib.Nifti1Image(drawn, img.affine), outlined, views, limit, scale)
        bottom, share = 1 - (row + 1) * n_lines * tall / height, n_lines * tall / height
        colours = ScalarMappable(Normalize(-limit, limit), scale["cmap"])
        box = 1 - 0.9 / width, bottom + 0.2 * share, 0.108 / width, 0.6 * share
        bar = fig.colorbar(colours, cax=fig.add_axes(box))
        bar.set_ticks([-limit, 0, limit], labels=[_number(tick) for tick in (-limit, 0, limit)])
        bar.ax.tick_params(labelsize=SMALLEST, length=0)
        bar.outline.set_visible(False)
        at: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "center"}
        fig.text(0.18 / width, bottom + 0.5 * share, **at, **heading(label, tall * n_lines))
    fig.text(0.1 / width, 0.1 / height, note, fontsize=8.5, linespacing=1.2)
    return fig


def _draw_glass_brain(
    fig: Figure,
    box: tuple[float, float, float, float],
    img: nib.Nifti1Image,
    outlined: np.ndarray,
    views: str,
    limit: float,
    scale: dict[str, Any],
) -> None:
    """Some views of an image in a box (x, y, width, height) of the figure; voxels of a mask are outlined."""
    from nilearn.plotting import plot_glass_brain

    display = plot_glass_brain(
        img,
        figure=fig,
        axes=box,
        display_mode=views,
        threshold=limit * 1e-9,
        plot_abs=False,
        colorbar=False,
        **scale,
    )
    if outlined.any():
        mask = nib.Nifti1Image(outlined.astype(np.float32), img.affine)
        display.add_contours(mask, levels=[0.5], colors="black", linewidths=1.4)


def _is_one_of(values: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    """Voxels with one of the values, which the image contains in single precision; not the background."""
    return np.isin(values.astype(np.float32), np.asarray(wanted, np.float32)) & (values != 0)


def _number(value: float, _: int = 0) -> str:
    """Two digits and a true minus sign, whatever the magnitude; formulas are off in the report's style."""
    return significant(value)

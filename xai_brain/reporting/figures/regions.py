"""Bar charts of the strongest atlas regions, and differences between classes in a glass brain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from xai_brain.reporting.figures.style import GRID, SMALLEST, SOFT, WIDTH, heading, shortened
from xai_brain.statistics.colour_scale import ColourScale

GLASS_VIEWS = "lyrz"  # left, from the front, right, from above


def top_regions_figure(top: pd.DataFrame, methods: Sequence[str], colours: Mapping[str, str]) -> Figure:
    """Strongest regions with intervals: a row of panels for each method, a column for each class.

    Parameters
    ----------
    top : DataFrame with method, class, rank, region, mean, ci_low, ci_high
        From `xai_brain.statistics.regions.top_regions`.
    methods : sequence of str
    colours : mapping of class to colour
        The panels of one method have the same scale.
    """
    n_bars, n = int(top["rank"].max()), len(colours)
    height = max(0.75 + 0.24 * n_bars, 1.6)
    spaced = ConstrainedLayoutEngine(h_pad=0.07)  # titles do not touch the ticks above them
    fig = Figure(figsize=(WIDTH, len(methods) * height + 0.3), layout=spaced)
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
            regions = [shortened(region, 72 // max(n, 2)) for region in bars["region"]]
            ax.set_yticks(bars["rank"], regions, fontsize=8.5)
            ax.set(ylim=(n_bars + 0.6, 0.4))
            ax.set_title(shortened(name), x=1, ha="right")  # above the names of regions too
            ax.tick_params(axis="y", length=0)
            ax.tick_params(axis="x", labelsize=SMALLEST)
            ax.xaxis.set_major_locator(MaxNLocator(4 if n < 3 else 2))
            ax.xaxis.set_major_formatter(_number)
        text = heading(method, height - 0.75)
        row[0].set_ylabel(text.pop("s"), labelpad=8, **text)
    fig.supxlabel("mean value of the map in the region (raw, signed)", fontsize=9.5)
    return fig


def glass_brain_figure(
    differences: Mapping[str, nib.Nifti1Image],
    shown: Mapping[str, Sequence[float]],
    significant: Mapping[str, Sequence[float]],
) -> Figure:
    """Differences of some regions in a glass brain, one row per image.

    Parameters
    ----------
    differences : mapping of row label to image in MNI152
        One value per region, painted on its voxels.
    shown, significant : mapping of row label to values
        Values of the regions that are drawn, and of those that are outlined.
    """
    from nilearn.plotting import plot_glass_brain

    foot, tall = 0.35, 2.3  # inches, of the text and of each row
    height = tall * len(differences) + foot
    fig = Figure(figsize=(WIDTH, height))
    for row, (label, img) in enumerate(differences.items()):
        bottom, share = 1 - (row + 1) * tall / height, tall / height
        values = np.asanyarray(img.dataobj, np.float64)
        drawn = values * _is_one_of(values, shown[label])
        limit = float(np.abs(drawn).max()) or 1.0  # of an image without differences
        scale = ColourScale(limit, signed=True).matplotlib()
        display = plot_glass_brain(
            nib.Nifti1Image(drawn, img.affine),
            figure=fig,
            axes=(0.03, bottom, 0.86, 0.97 * share),
            display_mode=GLASS_VIEWS,
            threshold=limit * 1e-9,
            plot_abs=False,
            colorbar=False,
            **scale,
        )
        outlined = _is_one_of(values, significant[label])
        if outlined.any():
            mask = nib.Nifti1Image(outlined.astype(np.float32), img.affine)
            display.add_contours(mask, levels=[0.5], colors="black", linewidths=1.4)
        colours = ScalarMappable(Normalize(-limit, limit), scale["cmap"])
        bar = fig.colorbar(colours, cax=fig.add_axes((0.9, bottom + 0.2 * share, 0.012, 0.6 * share)))
        bar.set_ticks([-limit, 0, limit], labels=[_number(tick) for tick in (-limit, 0, limit)])
        bar.ax.tick_params(labelsize=SMALLEST, length=0)
        bar.outline.set_visible(False)
        fig.text(0.02, bottom + 0.5 * share, rotation=90, ha="center", va="center", **heading(label, tall))
    n = max(map(len, shown.values()), default=0)
    outlines = "outlined: significant" if any(map(len, significant.values())) else "none is significant"
    fig.text(0.03, 0.1 / height, f"Colour: difference of the mean values of a region (raw); the {n} regions "
             f"with the lowest p; {outlines}.", fontsize=8.5)  # fmt: skip
    return fig


def _is_one_of(values: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    """Voxels with one of the values, which the image contains in single precision; not the background."""
    return np.isin(values.astype(np.float32), np.asarray(wanted, np.float32)) & (values != 0)


def _number(value: float, _: int = 0) -> str:
    """Two digits and a true minus sign, whatever the magnitude; formulas are off in the report's style."""
    return f"{value:.2g}".replace("-", "−")

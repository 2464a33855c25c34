"""Bar charts of the channels of the first layer: class means and differences."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xai_brain.reporting.figures.style import INK, NARROW, SOFT, WIDTH, shortened

TITLES = {"mean": "Mean of the feature map", "entropy": "Entropy of the feature map (bits)"}
ALPHA = 0.05


def first_layer_figure(channels: pd.DataFrame, colours: Mapping[str, str], *, narrow: bool = False) -> Figure:
    """Class means and standardised differences for all channels of one network.

    Parameters
    ----------
    channels : pandas.DataFrame
        Rows of evaluation/first_layer.tsv of one network and two classes.
    colours : mapping of class to colour
        Of a and b, in this order; a difference is b minus a.
    narrow : bool, default False
        For phones.
    """
    features = list(dict.fromkeys(channels["feature"]))
    fig = Figure(figsize=(NARROW if narrow else WIDTH, 3.1 * len(features)), layout="constrained")
    axes = fig.subplots(2 * len(features), 1, sharex=True)
    for number, feature in enumerate(features):
        rows = channels[channels["feature"] == feature].sort_values("channel")
        at, (means, sizes) = rows["channel"].to_numpy(), axes[2 * number : 2 * number + 2]
        bars = zip((-0.2, 0.2), ("mean_a", "mean_b"), colours.items(), strict=True)
        for shift, column, (name, colour) in bars:
            means.bar(at + shift, rows[column], 0.4, color=colour, alpha=0.8, label=shortened(name))
        means.set_title(TITLES[feature])
        means.margins(y=0.12)
        found = (rows["q"] <= ALPHA).to_numpy()
        d = rows["d"].fillna(0).to_numpy()
        higher = np.array([*colours.values()])[(d > 0).astype(int)]
        sizes.bar(at[~found], d[~found], 0.7, color="white", edgecolor=SOFT, linewidth=0.8)
        sizes.bar(at[found], d[found], 0.7, color=higher[found])
        still = (rows["q_adjusted"] <= ALPHA).to_numpy()
        sizes.plot(at[still], d[still], "o", color=INK, markersize=3.5)
        sizes.axhline(0, color=SOFT, linewidth=0.8)
        sizes.margins(y=0.15)
        sizes.set_ylabel("d")
    if narrow:
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=1)
    else:
        axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    axes[-1].set_xlabel("channel of the first layer")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig

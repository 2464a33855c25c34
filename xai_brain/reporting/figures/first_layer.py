"""Bar charts of the channels of the first layer: class means and differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xai_brain.reporting.figures.style import INK, SOFT, WIDTH, class_colour, shortened

TITLES = {"mean": "Mean of the feature map", "entropy": "Entropy of the feature map (bits)"}
ALPHA = 0.05


def first_layer_figure(channels: pd.DataFrame, class_names: Sequence[str]) -> Figure:
    """Class means and standardised differences for all channels of one network.

    Parameters
    ----------
    channels : pandas.DataFrame
        Rows of evaluation/first_layer.tsv of one network and two classes.
    class_names : sequence of 2 str
        a and b; a difference is b minus a.
    """
    features = list(dict.fromkeys(channels["feature"]))
    fig = Figure(figsize=(WIDTH, 3.1 * len(features)), layout="constrained")
    axes = fig.subplots(2 * len(features), 1, sharex=True)
    for number, feature in enumerate(features):
        rows = channels[channels["feature"] == feature].sort_values("channel")
        at, (means, sizes) = rows["channel"].to_numpy(), axes[2 * number : 2 * number + 2]
        for index, (column, name) in enumerate(zip(("mean_a", "mean_b"), class_names, strict=True)):
            means.bar(at + (index - 0.5) * 0.4, rows[column], 0.4, color=class_colour(index), alpha=0.8,
                      label=shortened(name))  # fmt: skip
        means.set_title(TITLES[feature])
        means.margins(y=0.12)
        found = (rows["q"] <= ALPHA).to_numpy()
        d = rows["d"].fillna(0).to_numpy()
        colours = np.array([class_colour(0), class_colour(1)])[(d > 0).astype(int)]
        sizes.bar(at[~found], d[~found], 0.7, color="white", edgecolor=SOFT, linewidth=0.8)
        sizes.bar(at[found], d[found], 0.7, color=colours[found])
        still = (rows["q_adjusted"] <= ALPHA).to_numpy()
        sizes.plot(at[still], d[still], "o", color=INK, markersize=3.5)
        sizes.axhline(0, color=SOFT, linewidth=0.8)
        sizes.margins(y=0.15)
        sizes.set_ylabel("d")
    axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    axes[-1].set_xlabel("channel of the first layer")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig

"""Figures of a predicted number: predicted against true values, and residuals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from xai_brain.reporting.figures.style import CHANCE, DASHED, NETWORK, SOFT, WIDTH, shortened


def scatter_figure(predictions: pd.DataFrame, column: str, label: str) -> Figure:
    """Predicted against true numbers, and residuals against true numbers, with regression lines.

    Parameters
    ----------
    predictions : DataFrame with target and the column of predictions
    column : str
    label : str
        Of the target, for the axes.
    """
    known = predictions.dropna(subset=["target", column])
    true, predicted = known["target"].to_numpy(float), known[column].to_numpy(float)
    fig = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    left, right = fig.subplots(1, 2)
    name = shortened(label, 40)
    ends = np.array([min(true.min(), predicted.min()), max(true.max(), predicted.max())])
    range_of_true = np.array([true.min(), true.max()])
    for ax, values, ideal in ((left, predicted, ends), (right, predicted - true, np.zeros(2))):
        ax.scatter(true, values, s=14, color=NETWORK, alpha=0.5, linewidths=0)
        ax.plot(ends, ideal, color=CHANCE, linestyle=DASHED, linewidth=1.2)
        if np.ptp(true) > 0:
            slope, start = np.polyfit(true, values, 1)
            ax.plot(range_of_true, start + slope * range_of_true, color=SOFT, linewidth=2)
        ax.set(xlabel=f"true {name}")
    left.set(title="Predicted against true", ylabel=f"predicted {name}")
    right.set(title="Residuals", ylabel="predicted minus true")
    return fig

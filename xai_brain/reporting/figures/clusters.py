"""Dendrogram and heat map of the similarity of methods."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram

from xai_brain.metrics.comparison.method_clusters import AND
from xai_brain.reporting.figures.style import INK, SMALLEST, panels_of, shortened
from xai_brain.reporting.wording import fixed


def linkage_of(merges: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Linkage matrix of scipy, (n_methods - 1, 4), and the methods in its order.

    Parameters
    ----------
    merges : pandas.DataFrame
        From `xai_brain.metrics.comparison.method_clusters.cluster_methods`.
    """
    clusters = [frozenset(str(name).split(AND)) for name in [*merges["cluster_a"], *merges["cluster_b"]]]
    methods = sorted({next(iter(cluster)) for cluster in clusters if len(cluster) == 1})
    numbers = {frozenset([method]): i for i, method in enumerate(methods)}
    rows = []
    for merge in merges.sort_values("step").itertuples():
        a, b = (frozenset(str(name).split(AND)) for name in (merge.cluster_a, merge.cluster_b))
        rows.append((numbers[a], numbers[b], float(str(merge.distance)), len(a | b)))
        numbers[a | b] = len(numbers)
    return np.array(rows), methods


def cluster_figure(merges: pd.DataFrame, similarity: pd.DataFrame, *, narrow: bool = False) -> Figure:
    """Dendrogram of the methods, and their mean rank correlations in its order.

    Parameters
    ----------
    merges : pandas.DataFrame
        From `xai_brain.metrics.comparison.method_clusters.cluster_methods`.
    similarity : pandas.DataFrame
        Mean Spearman's rho, methods in rows and columns.
    narrow : bool, default False
        The correlations below the dendrogram, for phones.
    """
    links, methods = linkage_of(merges)
    tree = dendrogram(links, no_plot=True)
    order = [methods[i] for i in tree["leaves"]]
    n = len(order)
    fig, (left, right) = panels_of(
        1.9 + 0.33 * n, 2, narrow, gridspec_kw={"width_ratios": [1, 1.9 if n < 9 else 3]}
    )
    names = [shortened(name, 16 if narrow else 22) for name in order]
    for across, along in zip(tree["icoord"], tree["dcoord"], strict=True):
        left.plot(along, (np.array(across) - 5) / 10, color=INK, linewidth=1.4)  # leaves lie at 5, 15, ...
    left.set(xlim=(1.05 * max(links[:, 2].max(), 1e-6), 0), ylim=(n - 0.5, -0.5), xlabel="1 − mean ρ")
    left.set_yticks(range(n) if narrow else [], names if narrow else None)
    left.tick_params(axis="y", length=0)
    left.spines["left"].set_visible(False)

    values = similarity.loc[order, order].to_numpy(float, copy=True)
    np.fill_diagonal(values, np.nan)  # of a method with itself: left white
    right.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    written = np.ndenumerate(values) if n <= (6 if narrow else 15) else ()
    for (row, column), value in written:
        if row != column:
            colour, size = "white" if abs(value) > 0.6 else INK, 8.5 if n < 9 else SMALLEST
            text = fixed(value, 2).replace("0.", ".", 1)
            right.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    right.set_yticks(range(n), names)
    right.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    return fig

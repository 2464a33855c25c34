"""Figures of a run: cohort, performance, training.

The functions take tables and return ``matplotlib.figure.Figure`` objects without pyplot.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xai_brain.reporting.figures.style import (
    CHANCE,
    DASHED,
    INK,
    NETWORK,
    SOFT,
    class_colour,
    legend_below,
    panels_of,
    shortened,
)
from xai_brain.statistics.bootstrap import multinomial_counts


def roc(target: np.ndarray, score: np.ndarray, weights: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """True-positive rate at given false-positive rates, with a weight for every row.

    Parameters
    ----------
    target : ndarray of shape (n,), bool
    score : ndarray of shape (n,)
    weights : ndarray of shape (n,)
    grid : ndarray of shape (m,)

    Returns
    -------
    ndarray of shape (m,); NaN if a class has no weight
    """
    order = np.argsort(-score, kind="stable")
    target, score, weights = target[order], score[order], weights[order]
    true_positives, false_positives = np.cumsum(weights * target), np.cumsum(weights * ~target)
    if not len(score) or true_positives[-1] == 0 or false_positives[-1] == 0:
        return np.full(len(grid), np.nan)
    ends = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)  # ties are one step
    return np.interp(
        grid,
        np.append(0, false_positives[ends] / false_positives[-1]),
        np.append(0, true_positives[ends] / true_positives[-1]),
    )


def roc_band(
    table: pd.DataFrame, column: str, positive: int, grid: np.ndarray, *, n_bootstrap: int = 400
) -> np.ndarray:
    """Pooled curve (mean over seeds, repeats) with 95 % band by bootstrap over participants, (3, m)."""
    unique_ids, subject = np.unique(table["participant_id"].to_numpy(str), return_inverse=True)
    parts = [
        (subject[rows], part["target"].to_numpy() == positive, part[column].to_numpy(float))
        for rows, part in _by_seed(table)
    ]
    rng = np.random.default_rng(0)
    draws = [
        np.ones(len(unique_ids)),
        *multinomial_counts(len(unique_ids), n_bootstrap, rng),
    ]
    curves = np.array([np.mean([roc(t, s, w[ids], grid) for ids, t, s in parts], axis=0) for w in draws])
    return np.stack([curves[0], *np.nanpercentile(curves[1:], [2.5, 97.5], axis=0)])


def _by_seed(table: pd.DataFrame) -> Iterator[tuple[np.ndarray, pd.DataFrame]]:
    keys = [key for key in ("seed", "repeat") if key in table]
    number = table.groupby(keys, sort=False).ngroup().to_numpy() if keys else np.zeros(len(table), int)
    for k in range(number.max() + 1):
        rows = np.flatnonzero(number == k)
        yield rows, table.iloc[rows]


def performance_figure(
    predictions: pd.DataFrame, class_names: Sequence[str], pooled_label: str = "", *, narrow: bool = False
) -> Figure:
    """ROC per fold and pooled with its band, and the confusion matrix.

    Parameters
    ----------
    predictions : DataFrame with participant_id, fold, target, prob_<class>..., seed
    class_names : sequence of str
        In the order of the targets.
    pooled_label : str, default ""
        Label of the pooled curve in the legend.
    narrow : bool, default False
        Panels below each other, for phones.
    """
    fig, (left, right) = panels_of(4.4, 2, narrow, gridspec_kw={"width_ratios": [1, 1.02]})
    grid = np.linspace(0, 1, 201)
    binary = len(class_names) == 2
    if binary:
        keys = [key for key in ("seed", "fold") if key in predictions]
        column, name = f"prob_{class_names[1]}", "one fold"
        for _, part in predictions.groupby(keys) if keys else []:
            curve = roc(part["target"].to_numpy() == 1, part[column].to_numpy(), np.ones(len(part)), grid)
            left.plot(grid, curve, color=SOFT, linewidth=0.8, alpha=0.7, label=name)
            name = "_"  # one entry in the legend
    for index, class_name in list(enumerate(class_names))[1 if binary else 0 :]:
        middle, low, high = roc_band(predictions, f"prob_{class_name}", index, grid)
        label = (
            f"{pooled_label} (95 % band)".strip()
            if binary
            else shortened(class_name)
            if narrow
            else f"{shortened(class_name)} against the rest"
        )
        colour = NETWORK if binary else class_colour(index)
        left.fill_between(grid, low, high, color=colour, alpha=0.15, linewidth=0)
        left.plot(grid, middle, color=colour, linewidth=2.2, label=label)
    left.plot([0, 1], [0, 1], color=CHANCE, linestyle=DASHED, linewidth=1, label="chance")
    rate = f" ({shortened(class_names[1])})" if binary else ""
    left.set(title="ROC", xlabel="false-positive rate", ylabel=f"true-positive rate{rate}")
    left.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    legend_below(left, ncols=1)

    probabilities = predictions[[f"prob_{name}" for name in class_names]].to_numpy(float)
    counts = np.zeros((len(class_names), len(class_names)), int)
    np.add.at(counts, (predictions["target"].to_numpy(int), probabilities.argmax(1)), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    right.imshow(share, cmap="Greys", vmin=0, vmax=1.25)
    for (row, column_), value in np.ndenumerate(counts):
        dark = share[row, column_] > 0.55
        right.text(column_, row, f"{value}\n{share[row, column_]:.0%}", ha="center", va="center",
                   color="white" if dark else INK, fontsize=12 if len(class_names) < 4 else 9)  # fmt: skip
    ticks = range(len(class_names))
    names = [textwrap.fill(shortened(name, 36), 13) for name in class_names]
    many = len(class_names) > 3
    right.set_xticks(ticks, names, rotation=90 if many else 0, fontsize=8.5)
    right.set_yticks(ticks, names, fontsize=8.5)
    right.set(title="Confusion matrix", xlabel="predicted class", ylabel="true class")
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    return fig


def probability_figure(
    predictions: pd.DataFrame, class_names: Sequence[str], *, narrow: bool = False
) -> Figure:
    """Histograms of the calibrated probabilities by true class, and calibration curve."""
    fig, (left, right) = panels_of(3.6, 2, narrow, gridspec_kw={"width_ratios": [1.35, 1]})
    values = predictions[[f"prob_{name}" for name in class_names]].to_numpy(float)
    target = predictions["target"].to_numpy(int)
    binary = len(class_names) == 2
    shown = values[:, 1] if binary else values[np.arange(len(values)), target]
    bins = np.linspace(0, 1, 21).tolist()
    for index, name in enumerate(class_names):
        colour, some = class_colour(index), shown[target == index]
        if binary:
            left.hist(some, bins, histtype="stepfilled", alpha=0.32, color=colour)
        left.hist(some, bins, histtype="step", color=colour, linewidth=1.4, label=shortened(name))
    if binary:
        left.axvline(0.5, color=SOFT, linewidth=0.8, linestyle=DASHED)
    what = f"probability of {shortened(class_names[1])}" if binary else "probability of the true class"
    left.set(title="Probabilities by true class", xlabel=what, ylabel="predictions", xlim=(0, 1))
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(left, ncols=min(len(class_names), 1 if narrow else 3))

    said = values[:, 1] if binary else values.max(1)
    came = target == 1 if binary else values.argmax(1) == target
    order = np.argsort(said, kind="stable")
    groups = np.array_split(order, max(1, min(8, len(order) // 10)))
    right.plot([0, 1], [0, 1], color=CHANCE, linestyle=DASHED, linewidth=1, label="perfect calibration")
    points = np.array(
        [(said[g].mean(), came[g].mean(), *_wilson(came[g].sum(), len(g))) for g in groups if len(g)]
    )
    bars = np.abs(points[:, 2:].T - points[:, 1])
    right.errorbar(points[:, 0], points[:, 1], yerr=bars, fmt="o", color=NETWORK, markersize=4.5,
                   elinewidth=1, label="equal groups, 95 % CI")  # fmt: skip
    right.set(title="Calibration", xlabel="mean probability", ylabel="observed frequency")
    right.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    legend_below(right, ncols=1 if narrow else 2)
    return fig


def _wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    share, centre = hits / n, (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(n * share * (1 - share) + z**2 / 4)
    return min(centre - half, share), max(centre + half, share)


def cohort_figure(
    participants: pd.DataFrame,
    columns: Mapping[str, str],
    class_names: Sequence[str],
    *,
    narrow: bool = False,
) -> Figure:
    """Distribution of numeric columns (`columns` maps column to axis label) in each class."""
    rng = np.random.default_rng(0)
    fig, axes = panels_of(0.9 + 0.5 * len(class_names), len(columns), narrow, sharey=True)
    for ax, (column, label) in zip(axes, columns.items(), strict=True):
        for index, name in enumerate(class_names):
            values = pd.to_numeric(
                participants.loc[participants["label"] == name, column], errors="coerce"
            ).dropna()
            height = index + rng.uniform(-0.24, 0.24, len(values))
            ax.scatter(values, height, s=14, color=class_colour(index), alpha=0.65, linewidths=0)
            if len(values):
                ax.plot(
                    np.percentile(values, [25, 75]),
                    [index] * 2,
                    color=INK,
                    linewidth=3,
                    solid_capstyle="butt",
                )
                ax.plot(np.median(values), index, "o", color="white", markeredgecolor=INK, markersize=6)
        ax.set_yticks(range(len(class_names)), [shortened(name) for name in class_names])
        length = 26 if narrow else int(75 / len(columns))
        ax.set(xlabel=shortened(label, length), ylim=(len(class_names) - 0.5, -0.5))
        ax.tick_params(axis="y", length=0)
    return fig


def training_figure(curves: pd.DataFrame, n_classes: int = 2, *, narrow: bool = False) -> Figure:
    """Training curves: thin lines for the folds, a thick line for their mean while all folds train.

    Parameters
    ----------
    curves : DataFrame with run (fold and seed), epoch, metric, value
    n_classes : int, default 2
        For the chance level of balanced accuracy.
    narrow : bool, default False
        Panels below each other, for phones.
    """
    titles = {
        "loss": "Loss",
        "val/balanced_accuracy": "Balanced accuracy, validation",
        "val/auroc": "AUROC, validation",
    }
    present = set(curves["metric"])
    panels = [
        name
        for name in titles
        if name in present or (name == "loss" and {"train/loss", "val/loss"} & present)
    ]
    fig, axes = panels_of(2.6 if narrow else 3.0, len(panels), narrow)
    for ax, panel in zip(axes, panels, strict=True):
        lines = ("train/loss", "val/loss") if panel == "loss" else (panel,)
        for metric, colour in zip(lines, (SOFT, NETWORK)[-len(lines) :], strict=True):
            wide = curves[curves["metric"] == metric].pivot_table(
                index="epoch", columns="run", values="value"
            )
            if wide.empty:
                continue
            wide.index += 1  # files count epochs from 0
            ax.plot(wide.index, wide.to_numpy(), color=colour, linewidth=0.7, alpha=0.45)
            mean = wide.dropna().mean(axis=1)
            name = {"train/loss": "training part", "val/loss": "validation part"}.get(metric)
            ax.plot(mean.index, mean, color=colour, linewidth=2.2, label=name, marker="o", markersize=2.5)
        if panel == "loss":
            legend_below(ax)
        else:
            chance = 1 / n_classes if panel == "val/balanced_accuracy" else 0.5
            ax.axhline(chance, color=CHANCE, linewidth=1, linestyle=DASHED)
        ax.set(title=titles[panel], xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig

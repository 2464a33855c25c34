"""Tests of differences between two classes in the feature maps of a first layer; independent of torch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from xai_brain.statistics.group_design import Design

FEATURES = ("mean", "entropy")  # of a feature map, as in Kan 2020
N_BINS = 256
ALPHA = 0.05  # false discovery rate at which a channel counts as different
CHUNK = 100  # permutations at once


@dataclass(frozen=True)
class ChannelTest:
    """One feature of all channels of one network, compared between two classes.

    Parameters
    ----------
    channels : pandas.DataFrame
        One row per channel: mean_a, mean_b, difference (b minus a), d (Cohen's, by the pooled standard
        deviation), t, p, q of Welch's test, and t_adjusted, p_adjusted, q_adjusted given the confounds. NaN
        for a channel that is constant over participants.
    null_counts : ndarray of shape (n_perm,)
        Channels that differ after each permutation of the labels.
    """

    channels: pd.DataFrame
    null_counts: np.ndarray

    @property
    def n_different(self) -> int:
        return int((self.channels["q"] <= ALPHA).sum())

    @property
    def p_of_count(self) -> float:
        """Share of permutations, including the observed labels, with at least as many channels."""
        return float((1 + (self.null_counts >= self.n_different).sum()) / (1 + len(self.null_counts)))


def map_entropy(values: np.ndarray, n_bins: int = N_BINS) -> float:
    """Entropy of the histogram of a map over its own range, in bits.

    Parameters
    ----------
    values : ndarray
        Voxels of one feature map, background included, as in Kan 2020.
    n_bins : int, default 256

    Returns
    -------
    float
        0 for a constant map, log2(n_bins) for a uniform histogram.
    """
    counts = np.histogram(values, n_bins)[0]
    return max(float(stats.entropy(counts, base=2)), 0.0)  # not -0


def channel_features(feature_maps: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and entropy of every channel, each of shape (C,).

    Parameters
    ----------
    feature_maps : ndarray of shape (C, X, Y, Z)
        Feature maps of one participant.
    """
    flat = feature_maps.reshape(len(feature_maps), -1).astype(np.float64)
    return {"mean": flat.mean(1), "entropy": np.array([map_entropy(values) for values in flat])}


def compare_channels(
    values: np.ndarray,
    second: np.ndarray,
    design: Design | None = None,
    n_perm: int = 1000,
    random_state: int = 0,
) -> ChannelTest:
    """Welch test for every channel with control of the false discovery rate over the channels.

    Parameters
    ----------
    values : ndarray of shape (n_subjects, n_channels)
        One feature of the test participants of one network.
    second : ndarray of shape (n_subjects,), bool
        Whether each participant belongs to class b; at least two participants in each class.
    design : Design, optional
        Design of the same participants with confounds; if omitted, adjusted values are NaN.
    n_perm : int, default 1000
        Permutations of the labels.
    random_state : int, default 0

    Returns
    -------
    ChannelTest

    References
    ----------
    Kan et al. 2020, AIST, arXiv:2006.15969. Welch BL. Biometrika 1947;34:28–35. Benjamini Y, Hochberg Y. J R
    Stat Soc B 1995;57:289–300.
    """
    a, b = values[~second], values[second]
    varied = np.ptp(values, axis=0) > 1e-9 * np.abs(values).max(0)
    spread = ((len(a) - 1) * a.var(0, ddof=1) + (len(b) - 1) * b.var(0, ddof=1)) / (len(values) - 2)
    difference = b.mean(0) - a.mean(0)
    channels = pd.DataFrame({"mean_a": a.mean(0), "mean_b": b.mean(0), "difference": difference})
    channels["d"] = np.divide(difference, np.sqrt(spread), out=np.full(len(spread), np.nan), where=spread > 0)
    scaled = values[:, varied] - values[:, varied].mean(0)
    scaled /= np.abs(scaled).max(0)  # means of feature maps may be tiny; t does not depend on the scale
    nothing = np.full(values.shape[1], np.nan)
    for ending in ("", "_adjusted"):
        for name in ("t", "p", "q"):
            channels[name + ending] = nothing
    if varied.any():
        t, p = _welch(scaled, second[None])
        channels.loc[varied, ["t", "p", "q"]] = np.stack([t[0], p[0], stats.false_discovery_control(p[0])], 1)
        if design is not None:
            t, p = given_confounds(scaled[design.kept], design)
            columns = ["t_adjusted", "p_adjusted", "q_adjusted"]
            channels.loc[varied, columns] = np.stack([t, p, stats.false_discovery_control(p)], 1)
    return ChannelTest(channels, _permuted_counts(scaled, second, n_perm, random_state))


def given_confounds(values: np.ndarray, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Statistic t and two-sided p of the class in a linear model with the confounds, each (n_channels,).

    Parameters
    ----------
    values : ndarray of shape (n_subjects, n_channels)
    design : Design
        Design of these participants.
    """
    confounds = np.linalg.qr(np.column_stack([np.ones(len(values)), design.confounds]))[0]
    rest = design.tested - confounds @ (confounds.T @ design.tested)
    left = values - confounds @ (confounds.T @ values)
    slope = rest @ left / (rest @ rest)
    error = ((left - np.outer(rest, slope)) ** 2).sum(0) / design.dof
    exact = error <= 1e-20 * np.maximum((values**2).sum(0), 1e-300)  # the confounds leave only rounding
    t = np.where(exact, 0.0, slope / np.sqrt(np.where(exact, 1.0, error / (rest @ rest))))
    return t, 2 * stats.t.sf(np.abs(t), design.dof)


def _welch(values: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Statistics t and p for several assignments of labels (n, n_subjects), each (n, n_channels)."""
    order = np.argsort(second, axis=1, kind="stable")
    n_first = int((~second[0]).sum())
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # a class of two may by chance hold the same value twice
        warnings.filterwarnings("ignore", message="Precision loss", category=RuntimeWarning)
        found = stats.ttest_ind(
            values[order[:, n_first:]], values[order[:, :n_first]], axis=1, equal_var=False
        )
    return np.nan_to_num(found.statistic), np.where(np.isfinite(found.pvalue), found.pvalue, 1.0)


def _permuted_counts(values: np.ndarray, second: np.ndarray, n_perm: int, random_state: int) -> np.ndarray:
    if not values.shape[1]:
        return np.zeros(n_perm, int)
    rng = np.random.default_rng(random_state)
    counts = []
    for start in range(0, n_perm, CHUNK):
        labels = rng.permuted(np.tile(second, (min(CHUNK, n_perm - start), 1)), axis=1)
        q = stats.false_discovery_control(_welch(values, labels)[1], axis=1)
        counts.append((q <= ALPHA).sum(1))
    return np.concatenate(counts) if counts else np.zeros(0, int)

"""Hierarchical clustering of methods by the similarity of their maps, independent of torch."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from xai_brain.parallel.progress import ShowProgress
from xai_brain.statistics.bootstrap import multinomial_counts

COLUMNS = ["step", "cluster_a", "cluster_b", "distance", "n_methods", "support", "n_subjects"]
AND = " + "  # between the methods of a cluster


def cluster_methods(
    agreements: pd.DataFrame, n_bootstrap: int = 1000, random_state: int = 0, progress: ShowProgress = iter
) -> tuple[pd.DataFrame, list[str]]:
    """Cluster methods hierarchically by the agreement of their maps.

    Parameters
    ----------
    agreements : pandas.DataFrame
        Rows of evaluation/agreement.tsv, of which level ``subject`` and metric ``spearman`` are used. Seeds
        and sessions of a participant are averaged first.
    n_bootstrap : int, default 1000
    random_state : int, default 0
    progress : function that wraps the list of draws

    Returns
    -------
    merges : pandas.DataFrame
        step (from 1), cluster_a and cluster_b (the methods that are joined, with `AND` between), distance,
        n_methods, support, n_subjects. Empty for fewer than three methods.
    left_out : list of str
        Methods that have no participant in common with some other method.

    Notes
    -----
    The distance of two methods is 1 minus the mean over participants of Spearman's rho of the absolute
    values; the distance of two clusters is the mean over their pairs of methods (average linkage).
    ``support`` is the share of bootstrap samples of participants in which the same methods form a cluster;
    it is always 1 for the last step.

    References
    ----------
    Sokal RR, Michener CD. A statistical method for evaluating systematic relationships. Univ Kansas Sci
    Bull 1958;38:1409–1438. Felsenstein J. Confidence limits on phylogenies: an approach using the
    bootstrap. Evolution 1985;39:783–791.
    """
    nothing = pd.DataFrame(columns=COLUMNS)
    if agreements.empty:
        return nothing, []
    rows = agreements[(agreements["level"] == "subject") & (agreements["metric"] == "spearman")]
    methods = list(dict.fromkeys([*agreements["method_a"], *agreements["method_b"]]))
    # (subjects, pairs of methods)
    wide = rows.pivot_table(index="name", columns=["method_a", "method_b"], values="value", sort=False)
    methods, left_out = _compared(methods, {frozenset(pair) for pair in wide.columns})
    if len(methods) < 3:
        return nothing, left_out
    wide = wide[[pair for pair in wide.columns if set(pair) <= set(methods)]]
    values, pairs = wide.to_numpy(float), [[methods.index(one) for one in pair] for pair in wide.columns]
    merges = _merges(_distances(np.nanmean(values, axis=0), pairs, len(methods)))

    times = multinomial_counts(len(values), n_bootstrap, np.random.default_rng(random_state))
    n_known = times @ np.isfinite(values)
    drawn = (times @ np.nan_to_num(values))[n_known.all(1)] / n_known[n_known.all(1)]
    again = [
        {a | b for a, b, _ in _merges(_distances(means, pairs, len(methods)))} for means in progress(drawn)
    ]  # clusters of each draw

    def named(cluster: frozenset[int]) -> str:
        return AND.join(methods[i] for i in sorted(cluster))

    table = [
        (step, named(a), named(b), distance, len(a | b), np.mean([a | b in one for one in again] or np.nan))
        for step, (a, b, distance) in enumerate(merges, 1)
    ]
    return pd.DataFrame([(*row, len(values)) for row in table], columns=COLUMNS), left_out


def _compared(methods: list[str], pairs: set[frozenset[str]]) -> tuple[list[str], list[str]]:
    """Methods that were all compared with each other, and the excluded methods."""
    kept, left_out = list(methods), []
    while kept:
        absent = {a: sum(frozenset((a, b)) not in pairs for b in kept if b != a) for a in kept}
        worst = max(kept, key=lambda method: absent[method])
        if not absent[worst]:
            break
        kept.remove(worst)
        left_out.append(worst)
    return kept, left_out


def _distances(means: np.ndarray, pairs: list[list[int]], n_methods: int) -> np.ndarray:
    matrix = np.zeros((n_methods, n_methods))
    for (a, b), rho in zip(pairs, means, strict=True):
        matrix[a, b] = matrix[b, a] = max(1 - rho, 0.0)  # rounding can give rho above 1
    return squareform(matrix)


def _merges(distances: np.ndarray) -> list[tuple[frozenset[int], frozenset[int], float]]:
    """The two clusters of every step and their distance."""
    n = len(squareform(distances))
    clusters = [frozenset([i]) for i in range(n)]
    merges = []
    for a, b, distance, _ in linkage(distances, "average"):
        merges.append((clusters[int(a)], clusters[int(b)], float(distance)))
        clusters.append(clusters[int(a)] | clusters[int(b)])
    return merges

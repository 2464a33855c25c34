"""Clusters of methods: a known order of merges, support, methods without maps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import linkage

from xai_brain.metrics.comparison.method_clusters import cluster_methods
from xai_brain.reporting.figures.clusters import cluster_figure, linkage_of


def table_of(rhos, n_subjects=6, spread=0.0, seeds=(0,)):
    """Spearman's rho of pairs of methods for every subject."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"level": "subject", "name": f"sub-{i}", "session_id": "", "seed": seed, "method_a": a,
         "method_b": b, "metric": "spearman", "value": rho + spread * rng.standard_normal()}
        for (a, b), rho in rhos.items() for i in range(n_subjects) for seed in seeds
    )  # fmt: skip


THREE = {("GradCAM", "Saliency"): 0.1, ("GradCAM", "Occlusion"): 0.3, ("Saliency", "Occlusion"): 0.8}


def test_three_methods_are_joined_in_the_known_order():
    merges, left_out = cluster_methods(table_of(THREE), 20)
    assert merges["cluster_a"].tolist() == ["Saliency", "GradCAM"]
    assert merges["cluster_b"].tolist() == ["Occlusion", "Saliency + Occlusion"]
    # the second distance is the mean of 1 - 0.1 and 1 - 0.3
    np.testing.assert_allclose(merges["distance"], [0.2, 0.8])
    assert merges["n_methods"].tolist() == [2, 3]
    assert merges["support"].tolist() == [1, 1]
    assert merges["n_subjects"].tolist() == [6, 6]
    assert left_out == []


def test_distances_are_means_over_subjects_whose_seeds_are_averaged():
    table = table_of(THREE, n_subjects=2)
    more = table[table["name"] == "sub-0"].assign(seed=1, value=table["value"] - 0.2)
    merges, _ = cluster_methods(pd.concat([table, more]), 5)
    # sub-0 has 0.1 less on average over its two seeds, sub-1 has not: 0.05 less over subjects
    np.testing.assert_allclose(merges["distance"], [0.25, 0.85])


def test_support_is_low_where_subjects_do_not_agree():
    even = {("A", "B"): 0.50, ("C", "D"): 0.9, ("A", "C"): 0.49, ("A", "D"): 0.49, ("B", "C"): 0.45,
            ("B", "D"): 0.45}  # fmt: skip
    merges, _ = cluster_methods(table_of(even, n_subjects=12, spread=0.1), 200)
    support = {frozenset((*row.cluster_a.split(" + "), *row.cluster_b.split(" + "))): row.support
               for row in merges.itertuples()}  # fmt: skip
    assert support[frozenset("CD")] == 1
    assert support[frozenset("ABCD")] == 1
    assert min(support.values()) < 0.9


def test_a_method_without_maps_is_left_out_and_named():
    table = table_of(THREE)
    empty = table.assign(method_b="Empty", metric="dice")  # named, but never compared by rank
    merges, left_out = cluster_methods(pd.concat([table, empty]), 5)
    assert left_out == ["Empty"]
    assert len(merges) == 2


@pytest.mark.parametrize("table", [pd.DataFrame(), table_of({("A", "B"): 0.5})])
def test_below_three_methods_there_is_nothing_to_sort(table):
    merges, left_out = cluster_methods(table, 5)
    assert merges.empty
    assert left_out == []


def test_the_figure_is_drawn_from_the_linkage_that_the_table_tells():
    merges, _ = cluster_methods(table_of(THREE), 5)
    links, methods = linkage_of(merges)
    assert methods == ["GradCAM", "Occlusion", "Saliency"]
    expected = linkage([1 - 0.3, 1 - 0.1, 1 - 0.8], "average")  # pairs in the order of the names
    np.testing.assert_allclose(np.sort(links[:, :2]), np.sort(expected[:, :2]))
    np.testing.assert_allclose(links[:, 2:], expected[:, 2:])

    similarity = pd.DataFrame(np.eye(3), methods, methods)
    for (a, b), rho in THREE.items():
        similarity.loc[a, b] = similarity.loc[b, a] = rho
    tree, heat = cluster_figure(merges, similarity).axes
    names = [label.get_text() for label in heat.get_yticklabels()]
    assert names.index("GradCAM") in (0, 2)  # those that were joined first are neighbours
    assert heat.images[0].get_array()[names.index("Saliency"), names.index("Occlusion")] == 0.8
    heights = sorted(line.get_xdata().max() for line in tree.lines)
    np.testing.assert_allclose(heights, [0.2, 0.8])

"""Significant group tests in words, of classes or a number: clusters, voxels and regions of methods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.wording import fixed, listed
from xai_brain.runs.contents import IMAGE
from xai_brain.statistics.group_design import contrast_name

Q = 0.05  # false discovery rate of the regions
SHOWN = 3  # places of a method that are named on the first screen
IMAGES = "the prepared images"


@dataclass(frozen=True)
class Differences:
    """What the tests of the maps, of two classes or of a number, have found.

    Parameters
    ----------
    methods : tuple of str
        Methods whose maps were tested.
    found : tuple of str
        Those with a significant voxel or region.
    sentences : tuple of str
        One for each pair of classes (or number) and analysis, which names the places.
    n_comparisons : int
        Pairs of classes; 1 for a number.
    """

    methods: tuple[str, ...]
    found: tuple[str, ...]
    sentences: tuple[str, ...]
    n_comparisons: int

    @property
    def answer(self) -> str:
        """How many methods have a significant voxel or region."""
        if not self.found:
            return "No evidence"
        n = len(self.methods)
        return f"In {len(self.found)} of {n} methods" if n > 1 else "Yes"

    @property
    def correction(self) -> str:
        """What the thresholds are not corrected for; empty for a single test."""
        n, pairs = len(self.methods), self.n_comparisons
        others = [f"the {n} methods"] * (n > 1) + [f"the {pairs} pairs of classes"] * (pairs > 1)
        if not others:
            return ""
        within = "each method" if pairs == 1 else "each method and pair of classes"
        return f"Thresholds are corrected within {within}, not over {listed(others)}"


@lru_cache(maxsize=1)
def differences_of(contents: ReportContents) -> Differences | None:
    """Significant places of all methods; None if no maps were tested."""
    voxels, regions = _clusters(contents), _regions(contents)
    table = pd.DataFrame([*voxels, *regions], columns=["analysis", "comparison", "method", "places", "n"])
    maps = table[table["method"] != IMAGE]
    if maps.empty:
        return None
    n_comparisons = maps["comparison"].nunique()
    sentences = [
        _sentence(str(analysis), str(comparison) if n_comparisons > 1 else "", rows)
        for (analysis, comparison), rows in table.groupby(["analysis", "comparison"], sort=False)
    ]
    found = tuple(dict.fromkeys(maps.loc[maps["n"] > 0, "method"]))
    sentences += of_networks(contents.evaluation("variance"), found)
    return Differences(
        tuple(dict.fromkeys(maps["method"])),
        found,
        tuple(sentences),
        n_comparisons,
    )


def of_networks(variance: pd.DataFrame | None, methods: tuple[str, ...]) -> list[str]:
    """Of which of these methods the maps depend mainly on the network, in one sentence, if of any."""
    if variance is None:
        return []
    share = variance.pivot_table(index="method", columns="component", values="share").reindex(methods)
    if not {"model", "subject"} <= set(share):
        return []
    mainly = share["model"][(share["model"] >= 0.5) & (share["model"] > share["subject"])]
    if mainly.empty:
        return []
    each = listed(f"{method} ({value:.0%} of the variance)" for method, value in mainly.items())
    return [
        f"Maps that depend mainly on the network, not on the participant: {each}; interpret with caution."
    ]


def _sentence(analysis: str, comparison: str, rows: pd.DataFrame) -> str:
    """Places of each method, and the number of methods without any."""
    found, none = rows[rows["n"] > 0], rows[rows["n"] == 0]
    parts = [
        f"{IMAGES if m == IMAGE else m}: {p}" for m, p in zip(found["method"], found["places"], strict=True)
    ]
    n = int((none["method"] != IMAGE).sum())
    other = "other " * bool((found["method"] != IMAGE).any())
    without = [f"the {n} {other}method{'s' if n > 1 else ''}"] * bool(n)
    without += [IMAGES] * bool((none["method"] == IMAGE).any())
    parts += [f"none in {listed(without)}"] * bool(without)
    pair = f", {comparison.replace('-minus-', ' minus ')}" * bool(comparison)
    return f"{analysis}{pair}: {'; '.join(parts)}."


def _clusters(contents: ReportContents) -> list[tuple[str, str, str, str, int]]:
    tests, clusters = contents.evaluation("group_tests"), contents.evaluation("group_clusters")
    if tests is None:
        return []
    tests = tests[tests["reason"].isna()]
    found = []
    for row in tests.to_dict("records"):
        own = pd.DataFrame() if clusters is None else clusters
        if len(own):
            own = own[(own["method"] == row["method"]) & (own["comparison"] == row["comparison"])]
        places, n = named_places(own), len(own)
        if not n and (n := int(row["n_significant"])):
            voxels = f"{n} voxel{'s' if n > 1 else ''}"
            places = f"{voxels} in no cluster of at least {row['min_cluster_voxels']:.0f}"
        title = f"Clusters (family-wise p ≤ {row['alpha']:g})"
        found.append((title, str(row["comparison"]), str(row["method"]), places, n))
    return found


def _regions(contents: ReportContents) -> list[tuple[str, str, str, str, int]]:
    table = contents.evaluation("region_groups")
    if table is None:
        return []
    table = table[table["common_output"].eq(True)]
    if contents.task.has_classes:
        names = table["class_b"].astype(str) + "-minus-" + table["class_a"].astype(str)
    else:
        names = contrast_name((str(contents.setting("data.label", "target")),))
    found = []
    for (comparison, method), rows in table.assign(comparison=names).groupby(
        ["comparison", "method"], sort=False
    ):
        own = rows[rows["q"] <= Q].sort_values(["p", "index"])
        own = own.sort_values("measure", key=lambda names: names != "mean", kind="stable")
        own = own.drop_duplicates("region")
        of_share = np.where(own["measure"] == "mean", "", " (share of the map)")
        places = _first(own["region"].astype(str) + of_share)
        found.append((f"Regions (q ≤ {Q:g})", str(comparison), str(method), places, len(own)))
    return found


def named_places(clusters: pd.DataFrame, most: int = SHOWN) -> str:
    """Regions of the peaks of clusters, each once, the largest |t| first; coordinates without an atlas.

    Parameters
    ----------
    clusters : pandas.DataFrame
        Rows of group_clusters.tsv of one test.
    most : int, default 3
        Places that are named; the others are counted.
    """
    if clusters.empty:
        return ""
    rows = clusters.sort_values("peak_t", key=abs, ascending=False, kind="stable")
    regions = rows["region"] if "region" in rows else pd.Series(index=rows.index, dtype=object)
    points = [
        "({}) mm".format(", ".join(fixed(mm, 0) for mm in point))
        for point in rows[["x_mm", "y_mm", "z_mm"]].to_numpy(float)
    ]
    return _first(regions.where(regions.notna(), pd.Series(points, rows.index)), most)


def _first(names: Iterable[object], most: int = SHOWN) -> str:
    every = list(dict.fromkeys(map(str, names)))
    return listed([*every[:most], *([f"{len(every) - most} more"] if len(every) > most else [])])

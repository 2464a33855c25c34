"""Maps in the regions of an atlas: values of each region and differences between classes; without torch.

>>> table = region_values(attribution, atlas.on_grid(img), atlas.lut, brain_mask)  # doctest: +SKIP
>>> compare_classes(table_of_all_subjects, ["female", "male"])  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from xai_brain.parallel.progress import ShowProgress
from xai_brain.statistics.bootstrap import percentile_interval
from xai_brain.statistics.group_design import Design, GroupError, design_messages, make_design
from xai_brain.statistics.region_regression import bootstrap_differences, bootstrap_means, permutation_test

# Density in the units of the map, and what does not depend on a map's scale: its share of the whole map.
MEASURES = ("mean", "mass_share")


def region_values(
    attribution: np.ndarray, labels: np.ndarray, lut: pd.DataFrame, brain_mask: np.ndarray
) -> pd.DataFrame:
    """Values of one map in each region, inside the brain.

    Parameters
    ----------
    attribution : ndarray of shape (X, Y, Z)
        Raw, signed.
    labels : ndarray of shape (X, Y, Z), int
        From `xai_brain.atlas.atlas.Atlas.on_grid`.
    lut : DataFrame with index, name
        Regions, in the order of the result.
    brain_mask : ndarray of shape (X, Y, Z), bool

    Returns
    -------
    DataFrame with one row per region
        ``index``, ``region``, ``n_voxels``; ``sum`` and ``mean`` (density) of the values;
        ``positive_share``, the share of all positive values in the brain; ``mass_share``, the share of all
        |values| in the brain (including voxels without a region). NaN for regions without voxels, for maps
        that are empty or not finite, and for shares of a total of 0.

    Raises
    ------
    ValueError
        Shapes differ.
    """
    if not attribution.shape == labels.shape == brain_mask.shape:
        raise ValueError(
            f"shapes differ: map {attribution.shape}, labels {labels.shape}, brain {brain_mask.shape}"
        )
    values = attribution[brain_mask].astype(np.float64)
    order = np.argsort(lut["index"].to_numpy(), kind="stable")
    codes = lut["index"].to_numpy()[order]
    inside = labels[brain_mask]
    place = np.searchsorted(codes, inside).clip(0, len(codes) - 1)
    place = np.where(
        codes[place] == inside, order[place], len(codes)
    )  # the last bin: voxels without a region
    n_voxels, total, positive, mass = (
        np.bincount(place, weights, minlength=len(codes) + 1)
        for weights in (None, values, np.clip(values, 0, None), np.abs(values))
    )
    if not np.isfinite(values).all() or not values.any():
        total, positive, mass = (np.full(len(codes) + 1, np.nan) for _ in range(3))
    there = n_voxels[:-1] > 0
    columns = {"sum": total, "mean": total / np.maximum(n_voxels, 1)}
    columns |= {"positive_share": _fraction(positive), "mass_share": _fraction(mass)}
    return pd.DataFrame(
        {
            "index": lut["index"].to_numpy(),
            "region": lut["name"].to_numpy(),
            "n_voxels": n_voxels[:-1].astype(int),
            **{name: np.where(there, column[:-1], np.nan) for name, column in columns.items()},
        }
    )


def _fraction(parts: np.ndarray) -> np.ndarray:
    whole = parts.sum()
    return parts / whole if whole > 0 else np.full(len(parts), np.nan)


def subject_means(table: pd.DataFrame, measure: str) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Values of one method, participants x regions; sessions and seeds of a participant are averaged first.

    Parameters
    ----------
    table : DataFrame with participant_id, class, index, region, `measure`, and fold if it is known
    measure : str

    Returns
    -------
    values : ndarray of shape (n_subjects, n_regions)
        Excludes participants with an empty map in a seed or session, and regions without voxels.
    subjects : DataFrame with participant_id, class, fold
    regions : DataFrame with index, region
    """
    known = table.dropna(subset=[measure])
    of_map = [name for name in ("participant_id", "session_id", "seed") if name in table]
    n_maps = [rows.drop_duplicates(of_map).groupby("participant_id").size() for rows in (table, known)]
    whole = n_maps[0].index[n_maps[0].eq(n_maps[1].reindex(n_maps[0].index))]
    known = known[known["participant_id"].isin(whole)]
    wide = known.pivot_table(
        index="participant_id", columns="index", values=measure, aggfunc="mean", sort=False
    )
    wide = wide.dropna(axis=1)  # regions of only some participants cannot be compared
    subjects = (
        known.drop_duplicates("participant_id").set_index("participant_id").loc[wide.index].reset_index()
    )
    regions = known.drop_duplicates("index").set_index("index").loc[wide.columns].reset_index()
    return wide.to_numpy(float), subjects.assign(fold=subjects.get("fold", 0)), regions[["index", "region"]]


def compare_classes(
    table: pd.DataFrame,
    class_names: Sequence[str],
    *,
    participants: pd.DataFrame | None = None,
    confounds: Sequence[str] = ("fold",),
    n_bootstrap: int = 1000,
    n_perm: int = 10_000,
    random_state: int = 0,
    measures: Sequence[str] = MEASURES,
    report: Callable[[str], None] = lambda text: None,
    progress: ShowProgress = iter,
) -> pd.DataFrame:
    """Differences of the later class minus the earlier class in every region, adjusted for confounds.

    The difference is the coefficient of the class in a linear model with the confounds. Residuals are
    permuted (Freedman-Lane), and participants are drawn for the intervals, within the folds of the
    cross-validation, because the maps of different folds come from models with different scales.

    Parameters
    ----------
    table : DataFrame with participant_id, class, method, index, region and the measures, fold if known
        Rows of `region_values` of all maps.
    class_names : sequence of str
        All pairs are compared in this order, as in the voxel-wise test.
    participants : DataFrame with participant_id and the confounds, optional
        One row per participant; not needed if `confounds` contains no other column than ``fold``.
    confounds : sequence of str, default ("fold",)
        See `xai_brain.statistics.group_design.make_design`.
    n_bootstrap : int, default 1000
        Bootstrap samples of participants within each class and fold.
    n_perm : int, default 10000
    random_state : int, default 0
    measures : sequence of str, default MEASURES
    report : callable, optional
        Receives a message for each dropped confound, for excluded participants, and for classes that cannot
        be compared.
    progress : function that wraps the list of methods

    Returns
    -------
    DataFrame with one row per method, measure, pair of classes and region
        ``method, measure, index, region, class_a, class_b, mean_a, mean_b, difference, ci_low, ci_high,
        ratio, ratio_ci_low, ratio_ci_high, t, p, q, n_a, n_b, confounds``. ``class_a`` is the earlier class.
        ``mean_a``, ``mean_b`` and the ratio b / a are not adjusted; ``difference`` (b minus a) is adjusted
        for the confounds in the last column. Two-sided p; q after Benjamini & Hochberg (1995) over the
        regions. The ratio is NaN if the means differ in sign or if the mean of a changes its sign in any
        bootstrap sample, because it is then not meaningful.

    References
    ----------
    Benjamini & Hochberg 1995, J R Stat Soc B 57:289. Böhle et al. 2019, Front Aging Neurosci 11:194.
    Freedman & Lane 1983, J Bus Econ Stat 1:292. Winkler et al. 2014, NeuroImage 92:381.
    """
    found = []
    messages: dict[str, None] = {}  # each once, although every method has the same confounds
    refused: dict[str, list[str]] = {}  # methods by pair of classes and reason
    for method, rows in progress(list(table.groupby("method", sort=False))):
        for measure in measures:
            values, subjects, regions = subject_means(rows, measure)
            if not len(regions):
                continue
            known = subjects[["participant_id", "fold"]].assign(label=subjects["class"].astype(str))
            if participants is not None:
                others = [name for name in confounds if name != "fold"]
                known = known.merge(participants[["participant_id", *others]], "left", "participant_id")
            for a, b in combinations(map(str, class_names), 2):
                try:
                    design = make_design(known, (a, b), confounds)
                except GroupError as error:
                    if measure == measures[0]:
                        text = f"{b} minus {a}: regions are not compared: {error}"
                        refused.setdefault(text, []).append(str(method))
                    continue
                for message in design_messages(design):
                    messages[f"{b} minus {a}: {message}"] = None
                folds = known["fold"].to_numpy()[design.kept]
                columns = _comparison(values[design.kept], design, folds, n_bootstrap, n_perm, random_state)
                about = {"method": method, "measure": measure, **regions, "class_a": a, "class_b": b}
                found.append(pd.DataFrame({**about, **columns}))
    for message in (*messages, *(f"{', '.join(methods)}, {text}" for text, methods in refused.items())):
        report(message)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["method", "measure", "q"])


def _comparison(
    values: np.ndarray, design: Design, folds: np.ndarray, n_bootstrap: int, n_perm: int, random_state: int
) -> dict[str, Any]:
    rng = np.random.default_rng(random_state)
    first = design.tested == 0
    mean_a, mean_b = (values[own].mean(0) for own in (first, ~first))
    draws_a, draws_b = (bootstrap_means(values[own], folds[own], n_bootstrap, rng) for own in (first, ~first))
    cells = np.unique(folds, return_inverse=True)[1] * 2 + design.tested.astype(int)
    low, high = percentile_interval(bootstrap_differences(values, design, cells, n_bootstrap, rng))
    sure = (mean_a * mean_b > 0) & ((draws_a * np.sign(mean_a)) > 0).all(0)
    ratio_low, ratio_high = percentile_interval(draws_b / np.where(sure, draws_a, np.nan))
    test = permutation_test(values, design, n_perm, random_state, blocks=folds)
    return {
        "mean_a": mean_a,
        "mean_b": mean_b,
        "difference": test.difference,
        "ci_low": low,
        "ci_high": high,
        "ratio": mean_b / np.where(sure, mean_a, np.nan),
        "ratio_ci_low": ratio_low,
        "ratio_ci_high": ratio_high,
        "t": test.t,
        "p": test.p,
        "q": false_discovery_control(test.p),
        "n_a": int(first.sum()),
        "n_b": int((~first).sum()),
        "confounds": ", ".join(design.names),
    }


def top_regions(
    table: pd.DataFrame,
    class_names: Sequence[str],
    k: int = 5,
    *,
    n_bootstrap: int = 1000,
    random_state: int = 0,
) -> pd.DataFrame:
    """The regions with the highest density in each class, as in Kan 2020.

    Parameters
    ----------
    table : as for `compare_classes`
    class_names : sequence of str
    k : int, default 5
    n_bootstrap : int, default 1000
    random_state : int, default 0

    Returns
    -------
    DataFrame with method, class, rank, index, region, mean, ci_low, ci_high, n
        Sorted by |mean over participants of the mean in the region|, so that negative values are included.

    References
    ----------
    Kan et al. 2020, AIST, arXiv:2006.15969.
    """
    found = []
    for method, rows in table.groupby("method", sort=False):
        values, subjects, regions = subject_means(rows, "mean")
        for name in map(str, class_names):
            members = (subjects["class"].astype(str) == name).to_numpy()
            if not members.any() or not len(regions):
                continue
            own, folds = values[members], subjects["fold"].to_numpy()[members]
            draws = bootstrap_means(own, folds, n_bootstrap, np.random.default_rng(random_state))
            low, high = percentile_interval(draws)
            means = own.mean(0)
            best = np.argsort(-np.abs(means), kind="stable")[:k]
            about = {"method": method, "class": name, "rank": np.arange(1, len(best) + 1)}
            estimates = {"mean": means[best], "ci_low": low[best], "ci_high": high[best], "n": len(own)}
            found.append(pd.DataFrame({**about, **regions.iloc[best].to_dict("list"), **estimates}))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["method", "class", "rank"])

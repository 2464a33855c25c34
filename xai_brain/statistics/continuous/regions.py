"""Association of the values of maps in the regions of an atlas with a number. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from xai_brain.parallel.progress import ShowProgress
from xai_brain.statistics.bootstrap import percentile_interval
from xai_brain.statistics.group_design import Design, GroupError, design_messages, make_design
from xai_brain.statistics.region_regression import bootstrap_differences, permutation_test
from xai_brain.statistics.regions import MEASURES, subject_means

CONSTANT = "the values are the same in all participants, or follow from the confounds"


def associate_regions(
    table: pd.DataFrame,
    label: str,
    *,
    participants: pd.DataFrame,
    confounds: Sequence[str] = ("fold",),
    n_bootstrap: int = 1000,
    n_perm: int = 10_000,
    random_state: int = 0,
    measures: Sequence[str] = MEASURES,
    report: Callable[[str], None] = lambda text: None,
    progress: ShowProgress = iter,
) -> pd.DataFrame:
    """Linear association with a number in every region, adjusted for confounds.

    Residuals are permuted (Freedman-Lane), and participants are drawn for the intervals, within the folds of
    the cross-validation, as in `xai_brain.statistics.regions.compare_classes`.

    Parameters
    ----------
    table : DataFrame with participant_id, method, index, region and the measures, fold if known
        Rows of `xai_brain.statistics.regions.region_values` of all maps.
    label : str
        Name of the number.
    participants : DataFrame with participant_id, target and the confounds
        One row per participant; ``target`` is the number.
    confounds : sequence of str, default ("fold",)
        See `xai_brain.statistics.group_design.make_design`.
    n_bootstrap : int, default 1000
    n_perm : int, default 10000
    random_state : int, default 0
    measures : sequence of str, default MEASURES
    report : callable, optional
        Receives a message for each dropped confound, for excluded participants, and for methods that cannot
        be tested.
    progress : function that wraps the list of methods

    Returns
    -------
    DataFrame with one row per method, measure and region
        ``method, measure, index, region, mean, slope, ci_low, ci_high, partial_r, t, p, q, n, confounds``.
        ``mean`` is that of the participants. The slope is the change of the value for each unit of the
        number. Two-sided p; q after Benjamini & Hochberg (1995) over the regions.

    References
    ----------
    Benjamini & Hochberg 1995, J R Stat Soc B 57:289. Freedman & Lane 1983, J Bus Econ Stat 1:292.
    """
    found = []
    messages: dict[str, None] = {}  # each once, although every method has the same confounds
    refused: dict[str, list[str]] = {}
    others = ["target", *(name for name in confounds if name != "fold")]
    for method, rows in progress(list(table.groupby("method", sort=False))):
        for measure in measures:
            values, subjects, regions = subject_means(rows, measure)
            if not len(regions):
                continue
            known = subjects[["participant_id", "fold"]]
            known = known.merge(participants[["participant_id", *others]], "left", "participant_id")
            try:
                design = make_design(known, [label], confounds)
            except GroupError as error:
                if measure == measures[0]:
                    refused.setdefault(f"regions are not tested: {error}", []).append(str(method))
                continue
            messages |= dict.fromkeys(f"association with {label}: {m}" for m in design_messages(design))
            folds = known["fold"].to_numpy()[design.kept]
            columns = _association(values[design.kept], design, folds, n_bootstrap, n_perm, random_state)
            if np.isnan(columns["t"]).all():
                if measure == measures[0]:
                    refused.setdefault(f"regions are not tested: {CONSTANT}", []).append(str(method))
                continue
            found.append(pd.DataFrame({"method": method, "measure": measure, **regions, **columns}))
    for message in (*messages, *(f"{', '.join(methods)}, {text}" for text, methods in refused.items())):
        report(message)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["method", "measure", "q"])


def _association(
    values: np.ndarray, design: Design, folds: np.ndarray, n_bootstrap: int, n_perm: int, random_state: int
) -> dict[str, Any]:
    sd = design.tested.std()
    design = replace(design, tested=(design.tested - design.tested.mean()) / sd)
    test = permutation_test(values, design, n_perm, random_state, blocks=folds)
    draws = bootstrap_differences(values, design, folds, n_bootstrap, np.random.default_rng(random_state))
    low, high = percentile_interval(draws)
    return {
        "mean": values.mean(0),
        "slope": test.difference / sd,
        "ci_low": low / sd,
        "ci_high": high / sd,
        "partial_r": test.t / np.sqrt(test.t**2 + design.dof),
        "t": test.t,
        "p": test.p,
        "q": false_discovery_control(test.p),
        "n": len(design.tested),
        "confounds": ", ".join(design.names),
    }

"""Association of regional values with a number; what the verdict says about baselines without a network."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xai_brain.reporting.sections.number_regions import associated_regions
from xai_brain.reporting.values import Estimate
from xai_brain.reporting.verdict import Verdict
from xai_brain.statistics.continuous.regions import associate_regions


def region_rows(values, folds, method="Saliency"):
    """Rows of regions.tsv of values (n_subjects, n_regions)."""
    n, n_regions = values.shape
    return pd.DataFrame(
        {
            "participant_id": np.repeat([f"sub-{i:03d}" for i in range(n)], n_regions),
            "fold": np.repeat(folds, n_regions),
            "method": method,
            "index": np.tile(np.arange(n_regions) + 1, n),
            "region": np.tile([f"r{k}" for k in range(n_regions)], n),
            "mean": values.ravel(),
        }
    )


def people(n, seed=0):
    rng = np.random.default_rng(seed)
    years = 1950 + 15 * rng.standard_normal(n)
    table = {"participant_id": [f"sub-{i:03d}" for i in range(n)], "target": years}
    return pd.DataFrame({**table, "volume": 1400 + 2 * (years - 1950) + 90 * rng.standard_normal(n)})


def test_slope_t_and_interval_are_those_of_ordinary_least_squares():
    n, table, folds = 60, people(60), np.arange(60) % 3
    rng, years = np.random.default_rng(1), table["target"].to_numpy()
    values = rng.standard_normal((n, 4)) + np.outer(years - 1950, [0, 0.05, -0.1, 0.02]) + folds[:, None]
    found = associate_regions(
        region_rows(values, folds), "year", participants=table, confounds=["volume", "fold"],
        n_perm=199, n_bootstrap=2000, measures=["mean"],
    )  # fmt: skip
    columns = np.column_stack([years - 1950, np.ones(n), table["volume"], folds == 1, folds == 2])
    beta, size, *_ = np.linalg.lstsq(columns, values, rcond=None)
    error = np.sqrt(size / 55 * np.linalg.inv(columns.T @ columns)[0, 0])
    np.testing.assert_allclose(found["slope"], beta[0], rtol=1e-6)
    np.testing.assert_allclose(found["t"], beta[0] / error, rtol=1e-6)
    np.testing.assert_allclose(found["ci_high"] - found["ci_low"], 2 * 1.96 * error, rtol=0.25)
    rest = [v - columns[:, 1:] @ np.linalg.lstsq(columns[:, 1:], v, rcond=None)[0] for v in (years, values)]
    expected = [stats.pearsonr(rest[0], rest[1][:, k]).statistic for k in range(4)]
    np.testing.assert_allclose(found["partial_r"], expected, rtol=1e-6)
    assert (found["q"] <= 0.05).tolist() == [False, True, True, False]
    assert (found["confounds"] == "volume, fold=1, fold=2").all()
    assert (found["n"] == n).all()


def test_p_of_regions_is_uniform_without_an_association():
    table, folds = people(40), np.arange(40) // 10
    values = np.random.default_rng(2).exponential(1, (40, 300)) * 10.0 ** folds[:, None]
    found = associate_regions(
        region_rows(values, folds), "year", participants=table, n_perm=500, n_bootstrap=5, measures=["mean"]
    )
    assert stats.kstest(found["p"], "uniform").pvalue > 0.01
    assert (found["q"] > 0.05).all()


def test_methods_whose_confounds_determine_the_number_are_reported():
    table, lines = people(20), []
    table = table.assign(copy=table["target"] / 10)
    found = associate_regions(
        region_rows(np.random.default_rng(0).normal(size=(20, 2)), np.zeros(20, int)), "year",
        participants=table, confounds=["copy"], measures=["mean"], report=lines.append,
    )  # fmt: skip
    assert found.empty
    assert len(lines) == 1
    assert lines[0].startswith("Saliency, regions are not tested: the confounds copy determine year")
    folds = np.arange(20) % 2
    by_fold = region_rows(np.outer(folds, [1.0, 2.0]) + 1, folds)  # such as one map for all of a fold
    assert associate_regions(
        by_fold, "year", participants=table, report=lines.append, measures=["mean"]
    ).empty
    assert "follow from the confounds" in lines[1]


def test_associated_regions_are_named_with_their_direction():
    rows = pd.DataFrame(
        {"measure": "mean", "index": [1, 2, 3], "region": ["pons", "insula", "cuneus"],
         "slope": [0.1, -2.0, 1.0], "p": [0.6, 0.001, 0.001], "q": [0.6, 0.002, 0.002]}
    )  # fmt: skip
    assert associated_regions(pd.concat([rows, rows.assign(measure="mass_share", q=1.0)]), "age") == (
        "In the mean value, 2 of 3 regions are associated with age: insula (lower with higher age, q = "
        "0.002) and cuneus (higher with higher age, q = 0.002). In the share of the whole map, none of 3 "
        "regions are associated with age."
    )


@pytest.mark.parametrize(
    ("baselines", "sentence"),
    [
        ({}, ""),
        ({"CorrelationMap": 0.2}, ""),
        (
            {"CorrelationMap": 0.59, "OppositeDifference": 0.07},
            "CorrelationMap, a baseline that uses no network, has a higher relevance rank accuracy (0.590) "
            "than every method: the effect is located better without the network.",
        ),
        (
            {"CorrelationMap": 0.43},
            "CorrelationMap, a baseline that uses no network, has a higher relevance rank accuracy (0.430) "
            "than Saliency: the effect is located better without the network.",
        ),
    ],
)
def test_the_verdict_names_a_baseline_without_a_network_that_locates_better(baselines, sentence):
    ranking = {"MeaningfulPerturbation": Estimate(0.46), "Saliency": Estimate(0.39)}
    verdict = Verdict(
        "", None, None, None, "yes", "", "", None, ranking, {}, [], None, 0,
        baselines={name: Estimate(value) for name, value in baselines.items()},
    )  # fmt: skip
    assert verdict.better_baseline == sentence

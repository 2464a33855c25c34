"""Classes, distractors, confounds, suppressors and sites of planted effects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted_cohort import (
    BRAIN,
    GRID,
    INTENSITY,
    LEFT,
    RIGHT,
    WORLD,
    N,
    cohens_d,
    truths,
    volumes,
    write_cohort,
)

from xai_brain.data.planted.draws import draw
from xai_brain.data.planted.effects import plant


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("prepared"))


def test_classes_are_balanced_and_know_nothing_else(cohort, tmp_path):
    table = plant(cohort, INTENSITY, GRID, cache_dir=tmp_path)
    assert table["target"].sum() == N // 2
    assert set(zip(table["target"], table["label"], strict=True)) == {(0, "without"), (1, "with")}
    correlations = []
    for random_state in range(100):
        target = draw(cohort["participant_id"], replace(INTENSITY, random_state=random_state))["target"]
        correlations.append([np.corrcoef(target, cohort[name])[0, 1] for name in ("target", "age")])
    correlations = np.array(correlations)
    np.testing.assert_allclose(correlations.mean(axis=0), 0, atol=4 / np.sqrt(100 * (N - 1)))
    np.testing.assert_allclose(correlations.std(axis=0), 1 / np.sqrt(N - 1), rtol=0.25)
    shuffled = draw(cohort["participant_id"].sample(frac=1, random_state=1), INTENSITY)
    pd.testing.assert_frame_equal(shuffled, draw(cohort["participant_id"], INTENSITY))


def test_sessions_of_a_participant_share_their_class(cohort, tmp_path):
    twice = pd.concat([cohort.head(8), cohort.head(8).assign(session_id="ses-2")])
    table = plant(twice, INTENSITY, GRID, cache_dir=tmp_path)
    per_person = table.groupby("participant_id")[["target", "planted_strength"]].nunique()
    assert (per_person == 1).all(axis=None)
    assert table["target"].sum() == 8


def test_a_distractor_varies_as_much_and_knows_no_class(cohort, tmp_path):
    settings = replace(INTENSITY, distractor_center_mm=RIGHT)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    carries = table["planted_distractor"] > 0
    assert pd.crosstab(table["target"], carries).to_numpy().tolist() == [[15, 15], [15, 15]]
    change = volumes(table) - volumes(table, "source_volume_path")
    at = {name: np.linalg.norm(WORLD - center, axis=-1) < 12 for name, center in
          (("effect", LEFT), ("distractor", RIGHT))}  # fmt: skip
    effect, distractor = (change[:, region].mean(axis=1) for region in at.values())
    assert np.array_equal(effect > 0.01, table["target"] == 1)
    assert np.array_equal(distractor > 0.01, carries)
    assert abs(np.corrcoef(distractor, table["target"])[0, 1]) < 1e-3
    plain = volumes(table, "source_volume_path")
    sds = [plain[:, region].mean(axis=1).std() for region in at.values()]
    assert distractor[carries].mean() / sds[1] == pytest.approx(
        effect[table["target"] == 1].mean() / sds[0], rel=0.01
    )
    assert not truths(table)[:, at["distractor"]].any()


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.8])
def test_a_confound_has_the_correlation_asked_for(cohort, tmp_path, rho):
    settings = replace(INTENSITY, confound_center_mm=RIGHT, confound_rho=rho, confound_size=1.5)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    region = np.linalg.norm(WORLD - RIGHT, axis=-1) < 10
    plain = volumes(table, "source_volume_path")[:, region].mean(axis=1, dtype=float)
    added = volumes(table)[:, region].mean(axis=1, dtype=float) - plain
    assert np.corrcoef(added, table["target"])[0, 1] == pytest.approx(rho, abs=1e-3)
    assert added.std() == pytest.approx(1.5 * plain.std(ddof=1), rel=0.01)


def test_a_suppressor_says_nothing_alone_and_much_together(cohort, tmp_path):
    settings = replace(INTENSITY, confound_center_mm=RIGHT, confound_size=3.0, suppression=3.0, variation=0.0)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    target = table["target"].to_numpy()
    planted = volumes(table)
    at_effect, at_confound = (
        planted[:, np.linalg.norm(WORLD - center, axis=-1) < radius].mean(axis=1, dtype=float)
        for center, radius in ((LEFT, 12), (RIGHT, 10))
    )
    plain = volumes(table, "source_volume_path")
    sd = plain[:, np.linalg.norm(WORLD - LEFT, axis=-1) < 12].mean(axis=1).std(ddof=1)
    change = at_effect - plain[:, np.linalg.norm(WORLD - LEFT, axis=-1) < 12].mean(axis=1)
    assert change[target == 1].mean() - change[target == 0].mean() == pytest.approx(
        np.sqrt(10) * sd, rel=0.15
    )  # d = 1 of what then varies by sqrt(1 + 3^2) times as much
    assert abs(cohens_d(at_confound, target)) < 2.6 / np.sqrt(N / 4)
    slope = np.polyfit(at_confound[target == 0], at_effect[target == 0], 1)[0]
    assert cohens_d(at_effect - slope * at_confound, target) > 1.5 * cohens_d(at_effect, target)


def test_sites_shift_all_of_their_images_and_know_no_class(cohort, tmp_path):
    settings = replace(INTENSITY, n_sites=3, site_gain_sd=0.0, site_offset_sd=0.5)
    table = plant(cohort, settings, GRID, cache_dir=tmp_path)
    assert pd.crosstab(table["site"], table["target"]).to_numpy().tolist() == [[10, 10]] * 3
    change = (volumes(table) - volumes(table, "source_volume_path")).astype(float)
    away = BRAIN & (np.linalg.norm(WORLD - LEFT, axis=-1) > 12)
    assert (change[:, ~BRAIN] == 0).all()
    fields = {}
    for site, rows in table.groupby("site").groups.items():
        fields[site] = change[rows][:, away].mean(axis=0)
        np.testing.assert_allclose(change[rows][:, away], np.tile(fields[site], (20, 1)), atol=1e-4)
    assert 0.2 < np.std(list(fields.values())) < 0.9
    region = np.linalg.norm(WORLD - LEFT, axis=-1) < 12
    means = volumes(table)[:, region].mean(axis=1, dtype=float)
    without_effect = means - table["planted_strength"] * _delta(means, change, region, table)
    assert _delta(means, change, region, table) / without_effect.std(ddof=1) == pytest.approx(1, rel=0.1)


def _delta(means, change, region, table):
    """Mean change of the region in class with, beside that of its site."""
    own = pd.Series(change[:, region].mean(axis=1))
    site = own[table["target"] == 0].groupby(table["site"]).mean()
    return (own - table["site"].map(site))[table["target"] == 1].mean()

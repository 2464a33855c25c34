"""Properties of participants that can be read from the last layer: scores, permutations, a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import SHAPE, BoxDetector, ToyNet
from report_runs import text_of

from xai_brain.config.saved import stage_settings
from xai_brain.models.last_features import last_features
from xai_brain.reporting.html_report import write_report
from xai_brain.runs.directory import read_tsv
from xai_brain.stages.evaluate import evaluate
from xai_brain.statistics.confounds.confound_score import LastFeatures, confound_score, is_testable

N, P = 60, 12


def networks(values, groups=None, strength=1.5, seed=0):
    """Three networks with other participants each, whose features contain `values(rng)` linearly."""
    parts = []
    for fold in range(3):
        rng = np.random.default_rng([seed, fold])
        group = rng.integers(0, 2, N) if groups is None else groups(rng)
        own = values(rng, group)
        scaled = (own - own.mean()) / own.std()
        features = rng.standard_normal((N, P)) + strength * scaled[:, None] * np.linspace(0.2, 1, P)
        parts.append(LastFeatures(features, own, group, fold))
    return parts


def age(rng, group):
    return rng.uniform(20, 80, N)


def sex(rng, group):
    return rng.integers(0, 2, N).astype(float)


@pytest.mark.parametrize(("values", "categories", "chance"), [(age, False, 0.0), (sex, True, 0.5)])
def test_what_features_contain_can_be_read_and_what_they_lack_cannot(values, categories, chance):
    found = confound_score(networks(values), categories, n_perm=200)
    assert found["value"] > chance + 0.35
    assert found["p"] == pytest.approx(1 / 201)
    without = confound_score(networks(values, strength=0.0), categories, n_perm=200)
    assert without["null_low"] < without["value"] < without["null_high"]
    assert without["null_low"] < (chance if categories else 0)


def test_the_interval_of_permutations_holds_the_stated_level():
    inside = []
    for seed in range(60):
        found = confound_score(networks(sex, strength=0.0, seed=seed), True, n_perm=100, random_state=seed)
        inside.append(found["null_low"] <= found["value"] <= found["null_high"])
    assert 51 <= sum(inside) <= 60


def test_a_property_that_is_read_through_the_class_is_inside_the_interval_within_classes():
    """Features contain the class only, and the site is related to it."""

    def site_of(rng, group):
        return np.where(rng.random(N) < 0.85, group, 1 - group).astype(float)

    parts = []
    for part in networks(site_of, strength=0.0):
        shift = 2 * (part.groups - 0.5)[:, None]
        parts.append(LastFeatures(part.features + shift, part.values, part.groups, part.fold))
    found = confound_score(parts, True, n_perm=300)
    assert found["value"] > found["null_high"]
    assert found["class_low"] <= found["value"] <= found["class_high"]
    direct = [LastFeatures(p.features + 3 * p.values[:, None], p.values, p.groups, p.fold) for p in parts]
    assert confound_score(direct, True, n_perm=300)["class_p"] < 0.05


def test_several_categories_and_too_few_participants():
    def site_of(rng, group):
        return rng.permutation(np.repeat([0.0, 1.0, 2.0], 20))

    parts = networks(site_of, strength=2.5)
    assert confound_score(parts, True, n_perm=50)["value"] > 0.7
    few = np.array([0.0] * 9 + [1.0] * 2)
    assert not is_testable(LastFeatures(np.zeros((11, 2)), few, few, 0), True)
    assert not is_testable(LastFeatures(np.zeros((9, 2)), np.arange(9.0), few[:9], 0), False)
    assert is_testable(LastFeatures(np.zeros((11, 2)), np.arange(11.0), few, 0), False)


def test_features_are_the_input_of_the_last_linear_layer_and_nothing_is_left():
    torch.manual_seed(0)
    network, volumes = ToyNet().eval(), torch.randn(3, 1, *SHAPE)
    features, layer = last_features(network, volumes)
    assert layer == "linear"
    with torch.no_grad():
        torch.testing.assert_close(network.linear(features), network(volumes))
    assert not network.linear._forward_pre_hooks
    assert last_features(BoxDetector(), volumes) is None


def test_a_run_is_evaluated_on_request_and_the_report_says_what_is_not_shown(copied, undrawn):
    assert not copied.evaluation("confounds").exists()
    evaluate(stage_settings("evaluate", [f"run_dir={copied.path}", "evaluation.confound_score=true"]))
    table = read_tsv(copied.evaluation("confounds"))
    assert table["column"].tolist() == ["age"]  # sex is the target
    assert table[["measure", "chance", "n_participants", "n_networks"]].iloc[0].tolist() == ["r2", 0, 24, 2]
    assert table["null_low"].iloc[0] < table["null_high"].iloc[0] < 1
    text = text_of(write_report(copied).read_text())
    assert f"age R² {table['value'].iloc[0]:.3f}".replace("-", "−") in text
    assert "A property that can be read need not be used for the prediction" in text

"""ComBat against published implementations, residualisation, and both inside the folds of baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.config.saved import saved_settings, stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.config.training import BaselineConfig, HarmonizationConfig, read_baseline
from xai_brain.runs.directory import read_tsv, write_tsv
from xai_brain.stages.baselines import baselines
from xai_brain.stages.evaluate import evaluate
from xai_brain.statistics.confounds.encoding import EncodingError, numeric_columns
from xai_brain.statistics.confounds.harmonization import ComBat, HarmonizationError, Residualization
from xai_brain.study.settings import open_run
from xai_brain.study.training.harmonize_baselines import check_columns, harmonized_features


def cohort_of_the_golden_file():
    rng = np.random.default_rng(2026)
    site = np.repeat(["A", "B", "C"], [12, 10, 8])
    age, sex = rng.uniform(20, 80, 30), rng.integers(0, 2, 30).astype(float)
    shift = np.repeat(rng.normal(0, 1, (3, 8)), [12, 10, 8], axis=0)
    scale = np.repeat(rng.uniform(0.5, 2, (3, 8)), [12, 10, 8], axis=0)
    features = 5 + 0.05 * age[:, None] + 0.5 * sex[:, None] + shift + scale * rng.standard_normal((30, 8))
    return features, site, np.stack([age, sex], 1)


@pytest.mark.parametrize("name", ["plain", "covariates"])
def test_combat_equals_published_implementations(name):
    """tests/data/combat.npz, of the cohort above: all images by neuroCombat 0.2.12 (``neuroCombat``), and two
    thirds of them with the others by neuroHarmonize 2.5.2 (``harmonizationLearn``, ``harmonizationApply``).
    """
    golden = np.load(Path(__file__).parent / "data" / "combat.npz")
    features, site, covariates = cohort_of_the_golden_file()
    given = covariates if name == "covariates" else None
    found = ComBat().fit(features, site, given).transform(features, site, given)
    np.testing.assert_allclose(found, golden[f"neuroCombat_{name}"], atol=1e-6)
    train = np.arange(30) % 3 > 0
    parts = {"train": train, "test": ~train}
    own = {part: None if given is None else given[rows] for part, rows in parts.items()}
    fitted = ComBat().fit(features[train], site[train], own["train"])
    for part, rows in parts.items():
        found = fitted.transform(features[rows], site[rows], own[part])
        np.testing.assert_allclose(found, golden[f"{part}_{name}"], atol=1e-6)


def two_sites(n=400, p=60, seed=0):
    """Two sites that differ in mean and variance of all features; classes differ in the first ten."""
    rng = np.random.default_rng(seed)
    target, site = np.arange(n) % 2, np.arange(n) // 2 % 2
    effect = np.zeros(p)
    effect[:10] = 0.45
    noise = rng.standard_normal((n, p))
    clean = noise + target[:, None] * effect
    shifted = clean * np.where(site, 1.5, 1.0)[:, None] + site[:, None] * rng.normal(0, 1, p)
    return clean, shifted, site, target


def area(features, labels, train, test):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    model.fit(features[train], labels[train])
    return roc_auc_score(labels[test], model.decision_function(features[test]))


def test_the_site_can_no_longer_be_read_and_the_class_as_before():
    clean, shifted, site, target = two_sites()
    order = np.random.default_rng(1).permutation(len(site))
    train, test = order[:250], order[250:]
    fitted = ComBat().fit(shifted[train], site[train])
    harmonized = fitted.transform(shifted, site)
    assert area(shifted, site, train, test) > 0.99
    rng = np.random.default_rng(2)
    permuted = []
    for _ in range(100):
        labels = site.copy()
        labels[train] = rng.permutation(site[train])
        permuted.append(area(harmonized, labels, train, test))
    low, high = np.quantile(permuted, [0.025, 0.975])
    assert low <= area(harmonized, site, train, test) <= high
    assert abs(area(harmonized, target, train, test) - area(clean, target, train, test)) < 0.02


def test_test_participants_do_not_change_what_was_fitted():
    _, shifted, site, _ = two_sites(n=80)
    train, test = pd.RangeIndex(0, 50), pd.RangeIndex(50, 80)
    table = pd.DataFrame({"site": np.where(site, "B", "A"), "age": np.linspace(20, 80, 80)})
    for own in ({"method": "combat", "covariates": ["age"]}, {"method": "residualize", "confounds": ["age"]}):
        baseline = BaselineConfig(features="morphometry", harmonization=own)
        found = harmonized_features(shifted, table.loc[train], table.loc[test], baseline)
        changed = shifted.copy()
        changed[50:] = 1e3 * changed[50:] + 7
        again = harmonized_features(changed, table.loc[train], table.loc[test].assign(age=99.0), baseline)
        np.testing.assert_array_equal(found[:50], again[:50])
        one = table.loc[test[:1]]
        np.testing.assert_allclose(
            harmonized_features(shifted, table.loc[train], one, baseline)[50], found[50]
        )


def test_preserved_covariates_keep_their_effect_and_constant_features_their_value():
    rng = np.random.default_rng(0)
    site = np.repeat([0, 1], 100)
    age = rng.uniform(20, 50, 200) + 30 * site  # differs between the sites
    features = 0.1 * age[:, None] + site[:, None] + 0.1 * rng.standard_normal((200, 5))
    features[:, 4] = 3.0
    kept = ComBat().fit(features, site, age[:, None]).transform(features, site, age[:, None])
    removed = ComBat().fit(features, site).transform(features, site)
    slopes = [np.polyfit(age, values[:, 0], 1)[0] for values in (kept, removed)]
    assert slopes[0] == pytest.approx(0.1, abs=0.005)
    assert slopes[1] < 0.07
    assert (kept[:, 4] == 3.0).all()


def test_an_unseen_site_is_refused_or_standardized_without_labels():
    _, shifted, site, _ = two_sites(n=120)
    names = np.where(site, "B", "A")
    new = 4 * shifted[:30] - 11
    fitted = ComBat().fit(shifted, names)
    with pytest.raises(HarmonizationError, match=r"site C has no training images; see harmonization\.unseen"):
        fitted.transform(new, np.full(30, "C"))
    allowed = ComBat("standardize").fit(shifted, names)
    with pytest.raises(HarmonizationError, match="19 others; its mean and variance need at least 20"):
        allowed.transform(new[:19], np.full(19, "C"))
    found = allowed.transform(new, np.full(30, "C"))
    np.testing.assert_allclose(found.mean(0), allowed.mean)
    np.testing.assert_allclose(found.std(0), allowed.sd)


@pytest.mark.parametrize(
    ("site", "covariates", "message"),
    [
        (["A"] * 6, None, "one site only among the training images, A"),
        (["A"] * 5 + ["B"], None, "site B has one training image"),
        (["A"] * 3 + ["B"] * 3, [0, 0, 0, 1, 1, 1], "cannot be separated"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(site, covariates, message):
    features = np.random.default_rng(0).standard_normal((6, 4))
    given = None if covariates is None else np.array(covariates, float)
    with pytest.raises(HarmonizationError, match=message) as caught:
        ComBat().fit(features, np.array(site), given)
    assert "\n" not in str(caught.value)


def test_residualisation_removes_linear_effects_and_keeps_the_mean():
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, (90, 1))
    features = 10 + age * np.array([0.2, -0.1, 0]) + rng.standard_normal((90, 3))
    found = Residualization().fit(features[:60], age[:60]).transform(features, age)
    np.testing.assert_allclose(found[:60].mean(0), features[:60].mean(0))
    np.testing.assert_allclose([np.corrcoef(age[:60, 0], x)[0, 1] for x in found[:60].T], 0, atol=1e-10)
    slope = np.polyfit(age[:60, 0], features[:60, 0], 1)[0]
    np.testing.assert_allclose(found[60:, 0], features[60:, 0] - slope * (age[60:, 0] - age[:60].mean()))


def test_categories_are_those_of_the_training_images():
    train = pd.DataFrame({"sex": ["f", "m", "f"], "age": ["20", "30", "40"]})
    first, second = numeric_columns(train, train[:1], ["sex", "age"])
    np.testing.assert_array_equal(first, [[0, 20], [1, 30], [0, 40]])
    np.testing.assert_array_equal(second, [[0, 20]])
    with pytest.raises(EncodingError, match="'x' in test images only"):
        numeric_columns(train, train[:1].assign(sex="x"), ["sex"])
    with pytest.raises(EncodingError, match="age has no value for 1 images"):
        numeric_columns(train, train[:1].assign(age=None), ["age"])


def test_voxels_outside_the_brain_and_missing_volumes_stay_so():
    _, shifted, site, _ = two_sites(n=60, p=12)
    table = pd.DataFrame({"site": site})
    voxels = shifted.astype(np.float32)
    voxels[:, 3], voxels[:50, 4] = 0, 0  # no brain, and brain in few images
    own = {"method": "combat"}
    found = harmonized_features(voxels, table[:40], table[40:], BaselineConfig(harmonization=own))
    assert (found[:, [3, 4]] == 0).all()
    assert (found[:, [0, 1, 2]] != 0).all()
    assert found.dtype == np.float32
    volumes = shifted.copy()
    volumes[[1, 45], 2] = np.nan
    baseline = BaselineConfig(features="morphometry", harmonization=own)
    found = harmonized_features(volumes, table[:40], table[40:], baseline)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(volumes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["harmonization=combat", "harmonization.confounds=[age]"], "needs site_column and no confounds"),
        (["harmonization=residualize", "harmonization.confounds=[]"], r"needs confounds=\[\.\.\.\]"),
        (["harmonization=regress"], "one of combat, none, residualize"),
        (["harmonization=combat", "harmonization.unseen_site=ignore"], "one of refuse, standardize"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        compose("baselines", ["data=synthetic", *changes])
    steps = {"features": "voxels", "block_voxels": 1, "steps": [1], "harmonization": {"kind": "combat"}}
    with pytest.raises(ConfigError, match=r"no setting baselines\.x\.harmonization\.kind"):
        read_baseline("x", steps)


def test_the_target_is_no_covariate_and_networks_are_not_harmonised(tmp_path):
    settings = ["data=synthetic", "harmonization=combat", "harmonization.site_column=site"]
    config = read_config(compose("baselines", [*settings, f"run_dir={tmp_path / 'run'}"]))
    table = pd.DataFrame({"sex": ["f", "m"] * 4, "site": list("AABB") * 2, "target": [0, 1] * 4})
    table = table.assign(gender=table["sex"].str.upper(), age=np.arange(8.0))

    def check(**changes):
        check_columns(config, replace(config.harmonization, **changes), table)

    check(covariates=["age"])
    for name in ("sex", "target", "gender"):  # the last one says the same in other words
        with pytest.raises(ConfigError, match=rf"harmonization\.covariates={name}: is the target") as caught:
            check(covariates=[name])
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"harmonization\.site_column=scanner: not in participants\.tsv"):
        check(site_column="scanner")
    with pytest.raises(ConfigError, match="the volumes of networks are not harmonised"):
        open_run(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_baseline_is_compared_with_and_without_harmonisation(copied):
    participants = read_tsv(copied.participants)
    in_fold = read_tsv(copied.folds).set_index("participant_id").loc[participants["participant_id"], "fold"]
    site = np.where(participants.groupby(in_fold.to_numpy()).cumcount() % 3 == 0, "X", "Y")
    write_tsv(participants.assign(scanner=site), copied.participants)
    given = [f"run_dir={copied.path}", "baselines=[pca_logistic]"]
    with pytest.raises(ConfigError, match=r"not in participants\.tsv"):
        baselines(stage_settings("baselines", [*given, "harmonization=combat"]))
    plain = baselines(stage_settings("baselines", given))
    own = ["harmonization=residualize", "harmonization.confounds=[age]"]
    baselines(stage_settings("baselines", [*given, *own]))
    names = ["pca_logistic", "pca_logistic_residualize"]
    table = read_tsv(plain.evaluation("baselines"))
    assert set(names) <= set(table["name"])
    first, second = (read_tsv(plain.baseline(name)) for name in names)
    assert first["participant_id"].tolist() == second["participant_id"].tolist()
    assert not np.allclose(first["prob_male"], second["prob_male"])
    saved = saved_settings(plain.config)
    assert saved.baselines[names[1]]["harmonization"]["confounds"] == ["age"]
    assert "harmonization" not in saved.baselines[names[0]]
    assert saved.harmonization == HarmonizationConfig()
    changed = ["harmonization=residualize", "harmonization.confounds=[brain_volume_ml]"]
    with pytest.raises(ConfigError, match=r"baselines\.pca_logistic_residualize\.harmonization\.confounds"):
        baselines(stage_settings("baselines", [*given, *changed]))
    with pytest.raises(ConfigError, match="the volumes of networks are not harmonised"):
        evaluate(stage_settings("evaluate", [f"run_dir={copied.path}", *own]))

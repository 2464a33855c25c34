"""Variance of maps between subjects and networks: by hand, simulated, pooled over folds, in a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import awkward_affine

from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import load_img, save_img
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar, write_json, write_tsv
from xai_brain.statistics.map_rows import MapRows
from xai_brain.statistics.variance import variance_components, variance_shares
from xai_brain.study.evaluation.found_maps import find_maps
from xai_brain.study.evaluation.variance import evaluate_variance


def rows_of(tables):
    """Tables (n_subjects, n_models, n_voxels) of folds as rows on disk, and where each fold's are."""
    flat = [table.reshape(-1, table.shape[2]) for table in tables]
    rows = MapRows(sum(map(len, flat)), flat[0].shape[1])
    rows.values[:] = np.concatenate(flat)
    starts = np.cumsum([0, *map(len, flat)])
    return rows, [
        start + np.arange(table.shape[0] * table.shape[1]).reshape(table.shape[:2])
        for start, table in zip(starts, tables, strict=False)
    ]


def simulated(rng, n, m, n_voxels=400, subject=4.0, model=1.0, residual=2.0):
    return (
        10
        + np.sqrt(subject) * rng.standard_normal((n, 1, n_voxels))
        + np.sqrt(model) * rng.standard_normal((1, m, n_voxels))
        + np.sqrt(residual) * rng.standard_normal((n, m, n_voxels))
    )


def test_a_table_of_two_subjects_and_three_models_by_hand():
    # means of subjects 2 and 6, of models 3, 3 and 6, of all 4; the rest is 0, 1, -1 and 0, -1, 1
    table = np.array([[1.0, 2.0, 3.0], [5.0, 4.0, 9.0]])[:, :, None]
    # MS: subjects 3 (4 + 4) / 1 = 24; models 2 (1 + 1 + 4) / 2 = 6; rest 4 / 2 = 2
    np.testing.assert_allclose(variance_components(table)[:, 0], [(24 - 2) / 3, (6 - 2) / 2, 2])


def test_a_constant_table_and_one_of_a_subject_alone():
    subjects = np.repeat(np.array([1.0, 3.0, 8.0])[:, None, None], 4, axis=1)
    np.testing.assert_allclose(variance_components(subjects)[:, 0], [np.var([1, 3, 8], ddof=1), 0, 0])
    np.testing.assert_allclose(variance_components(np.ones((3, 4, 1)))[:, 0], 0)


def test_known_components_are_recovered():
    rng = np.random.default_rng(0)
    rows, folds = rows_of([simulated(rng, n, 4) for n in (14, 17, 20)])
    found = variance_shares(rows, folds, n_bootstrap=200)
    np.testing.assert_allclose(found.variance, [4, 1, 2], rtol=0.1)
    np.testing.assert_allclose(found.share, [4 / 7, 1 / 7, 2 / 7], rtol=0.1)
    assert (found.interval[0] < found.share).all()
    assert (found.share < found.interval[1]).all()
    assert (found.interval[1] - found.interval[0] < 0.2).all()
    # the shares of single voxels scatter, their middle does not
    assert np.median(found.model_share) == pytest.approx(1 / 7, abs=0.05)


def test_the_mean_over_the_brain_is_that_of_the_voxels_and_of_a_draw_of_everybody_once(monkeypatch):
    from xai_brain.statistics import variance

    rng = np.random.default_rng(1)
    rows, folds = rows_of([simulated(rng, n, 3, 50) for n in (6, 9)])
    tables = [rows.values[fold].astype(float) for fold in folds]
    expected = [variance_components(table).mean(1) for table in tables]
    np.testing.assert_allclose(
        variance_shares(rows, folds, 10).variance, (5 * expected[0] + 8 * expected[1]) / 13
    )

    class Once:
        def multinomial(self, n, shares, size):
            return np.ones((size, n), int)

    for fold, components in zip(folds, expected, strict=True):
        drawn = variance._draws(*variance._pairs(rows, fold), 1, Once())
        np.testing.assert_allclose(drawn[0], components, rtol=1e-9)


def test_the_interval_does_not_call_copies_of_a_subject_a_model():
    rng = np.random.default_rng(2)
    rows, folds = rows_of([simulated(rng, 8, 3, 2000, subject=1, model=0, residual=9)])
    found = variance_shares(rows, folds, n_bootstrap=300)
    # pairs of a subject with itself would put the model at 9/8 of 10, and the whole interval above 0.05
    assert found.interval[1, 1] < 0.02
    assert found.share[1] < 0.01


def test_the_interval_holds_the_truth_of_these_models_about_as_often_as_it_says():
    models = np.random.default_rng(5).standard_normal((1, 3, 40))
    truth = np.array([4, models.var(1, ddof=1).mean(), 2])
    truth /= truth.sum()
    inside, n = np.zeros(3), 40
    for i in range(n):
        rng = np.random.default_rng(i)
        size = np.sqrt(rng.exponential(1, (2, 15, 1, 1)))  # some subjects differ more from the mean
        subjects = 2 * size * rng.standard_normal((2, 15, 1, 40))
        tables = list(subjects + models + np.sqrt(2) * rng.standard_normal((2, 15, 3, 40)))
        found = variance_shares(*rows_of(tables), n_bootstrap=100, random_state=i)
        inside += (found.interval[0] <= truth) & (truth <= found.interval[1])
    assert (inside >= 0.75 * n).all()


def test_folds_of_different_mean_add_nothing():
    rng = np.random.default_rng(3)
    tables = [simulated(rng, 10, 3, 60) for _ in range(3)]
    apart = [table + 100 * i for i, table in enumerate(tables)]
    one, other = (variance_shares(*rows_of(some), n_bootstrap=20) for some in (tables, apart))
    np.testing.assert_allclose(one.share, other.share, rtol=1e-4)


def test_negative_estimates_are_set_to_0_and_counted():
    # two models that are each other's opposite in every subject: means of subjects are all 0
    values = np.random.default_rng(4).standard_normal((5, 1, 7))
    found = variance_shares(*rows_of([np.concatenate([values, -values], axis=1)]), n_bootstrap=20)
    assert found.variance[0] < 0
    assert found.share[0] == 0
    assert found.negative[0] == 1
    assert found.share.sum() == pytest.approx(1)


def test_maps_that_no_network_changes_are_the_subjects_without_a_word_of_rounding():
    values = np.random.default_rng(5).standard_normal((9, 1, 40))
    found = variance_shares(*rows_of([np.repeat(values, 3, axis=1)]), n_bootstrap=20)
    np.testing.assert_array_equal(found.variance[1:], 0)
    np.testing.assert_array_equal(found.negative, 0)
    np.testing.assert_allclose(found.share, [1, 0, 0])
    np.testing.assert_allclose(found.interval, [[1, 0, 0]] * 2, atol=1e-12)


def test_maps_without_variance_have_no_shares():
    found = variance_shares(*rows_of([np.ones((3, 2, 5))]), n_bootstrap=10)
    assert np.isnan(found.share).all()
    assert np.isnan(found.interval).all()
    np.testing.assert_array_equal(found.model_share, 0)


def test_one_model_or_one_subject_is_refused():
    for shape in ((3, 1, 5), (1, 3, 5)):
        with pytest.raises(ValueError, match="at least two subjects and two models"):
            variance_shares(*rows_of([np.ones(shape)]))


# -- in a run ------------------------------------------------------------------------------------
SHAPE, SEEDS = (6, 7, 8), [0, 1, 2]
BRAIN = np.zeros(SHAPE, bool)
BRAIN[1:-1, 1:-1, 1:-1] = True


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """Two folds of six people, three seeds; GradCAM has 4, 1 and 2 of variance, Saliency the subjects' only.

    The maps of Saliency by the second seed are 5 times as large as by the others.
    """
    rng, run = np.random.default_rng(0), RunDirectory(tmp_path / "run")
    ids = [f"sub-{i:02d}" for i in range(12)]
    people = {"participant_id": ids, "session_id": "", "label": ["a", "b"] * 6, "target": [0, 1] * 6}
    write_tsv(pd.DataFrame(people), run.participants)
    run.config.write_text(f"seeds: {list(SEEDS)}\n")
    maps = {fold: simulated(rng, 6, 3, 6 * 7 * 8) for fold in (0, 1)}
    rows = []
    for i, participant_id in enumerate(ids):
        save_img((200 * BRAIN).astype(np.uint8), awkward_affine(), run.image(participant_id, ""))
        for seed in SEEDS:
            rows.append({"participant_id": participant_id, "session_id": "", "seed": seed, "fold": i % 2})
            own = maps[i % 2][i // 2, 0] * (5 if seed == 1 else 1)
            for method, values in (("GradCAM", maps[i % 2][i // 2, seed]), ("Saliency", own)):
                path = run.attribution(participant_id, "", method, seed)
                save_img(values.reshape(SHAPE).astype(np.float32), awkward_affine(), path)
                write_json({}, sidecar(path))
    write_tsv(pd.DataFrame(rows), run.predictions)
    return run


def divided(run, *overrides):
    common = ["data=synthetic", "attribution=[grad_cam,saliency]", f"seeds={SEEDS}"]
    cfg = compose("run", [*common, "evaluation.n_bootstrap=50", *overrides])
    evaluate_variance(read_config(cfg), run, pd.DataFrame(find_maps(read_config(cfg), run)))
    return cfg


def test_the_shares_of_a_run_are_written_with_what_they_were_made_of(run):
    divided(run, "evaluation.variance_scaling=none")
    table = read_tsv(run.evaluation("variance")).set_index(["method", "component"])
    np.testing.assert_allclose(table.loc["GradCAM", "share"], [4 / 7, 1 / 7, 2 / 7], atol=0.08)
    about = table.loc["GradCAM", "model"]
    assert (about["n_subjects"], about["n_models"], about["n_seeds"], about["n_folds"]) == (12, 6, 3, 2)
    assert about["scaling"] == "none"
    assert not about["set_to_0"]
    path = run.group_map("GradCAM", "variance-model", "share")
    img = load_img(path)
    np.testing.assert_allclose(img.affine, awkward_affine(), atol=1e-5)
    values = img.get_fdata()
    assert (values[~BRAIN] == 0).all()
    assert 0 <= values.min() <= values.max() <= 1

    def map_of(i, seed):
        return load_img(run.attribution(f"sub-{i:02d}", "", "GradCAM", seed)).get_fdata()

    maps = [
        np.array([[map_of(i, seed)[BRAIN] for seed in SEEDS] for i in range(fold, 12, 2)]) for fold in (0, 1)
    ]
    components = np.maximum(np.mean([variance_components(one) for one in maps], axis=0), 0)
    np.testing.assert_allclose(values[BRAIN], components[1] / components.sum(0), atol=1e-5)
    assert read_json(sidecar(path))["SubjectScaling"] == "none"
    assert read_json(run.metrics)["variance/GradCAM/model"] == pytest.approx(about["share"])
    # a larger map by one seed is a change by the model, until every map is brought to one scale
    assert table.loc[("Saliency", "subject"), "share"] < 0.9
    divided(run)
    table = read_tsv(run.evaluation("variance")).set_index(["method", "component"])
    assert table.loc[("Saliency", "subject"), "share"] == pytest.approx(1)
    assert read_json(sidecar(path))["SubjectScaling"] == "l2"


def test_a_subject_with_an_empty_map_is_left_out_and_told(run, capsys):
    path = run.attribution("sub-03", "", "GradCAM", 1)
    save_img(np.zeros(SHAPE, np.float32), awkward_affine(), path)
    divided(run)
    table = read_tsv(run.evaluation("variance")).set_index(["method", "component"])
    assert table.loc[("GradCAM", "model"), ["n_subjects", "n_left_out"]].tolist() == [11, 1]
    assert table.loc[("Saliency", "model"), ["n_subjects", "n_left_out"]].tolist() == [12, 0]
    assert "GradCAM: 1 participants excluded: a map is missing or empty" in capsys.readouterr().out


def test_with_one_seed_there_is_nothing_but_the_reason(run, capsys):
    divided(run)
    for seed in (1, 2):
        for path in (run.path / "attributions" / f"seed-{seed}").rglob("*.nii.gz"):
            path.unlink()
    capsys.readouterr()
    divided(run)
    message = capsys.readouterr().out
    assert message.count("\n") == 1
    assert "there is only one seed; train and explain more, for example seeds=[0,1,2]" in message
    assert not run.evaluation("variance").exists()
    assert not run.group_map("GradCAM", "variance-model", "share").exists()
    assert not [name for name in read_json(run.metrics) if name.startswith("variance/")]


def test_an_unknown_scaling_is_refused():
    with pytest.raises(ConfigError, match=r"evaluation\.variance_scaling=max: one of none, l2, rank"):
        compose("run", ["data=synthetic", "evaluation.variance_scaling=max"])

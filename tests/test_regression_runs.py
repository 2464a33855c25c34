"""Runs with a continuous target: from the table to the report."""

from __future__ import annotations

import re
from html import unescape

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.affines import apply_affine

import xai_brain as xb
from xai_brain import cli
from xai_brain.config.schema import ConfigError
from xai_brain.data.planted.synthetic_subject import SyntheticSettings, make_synthetic_subject
from xai_brain.io.nifti import get_grid, load_img, save_img
from xai_brain.models.calibrated import read_checkpoint
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar
from xai_brain.viewer.catalogue import RunCatalogue

SMALL = [
    *("experiment=dose", "data.cohort.n_subjects=24", "trainer.max_epochs=1", "folds.n_folds=2"),
    "folds.validation_fraction=0.35",
    *("attribution=[saliency]", "evaluation.n_bootstrap=20", "baselines.ridge.block_voxels=4"),
    *("baselines=[ridge,shallow]", "baselines.shallow.trainer.lr=5e-4"),
    "evaluation.group.n_perm=99",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunDirectory:
    folder, grid = tmp_path_factory.mktemp("dose"), get_grid("t1w_4mm")
    x_mm, y_mm, z_mm = np.moveaxis(apply_affine(grid.affine, np.stack(np.indices(grid.shape), -1)), -1, 0)
    box = (np.abs(x_mm) < 50) & (y_mm > -60) & (y_mm < 25) & (z_mm > -10) & (z_mm < 45)
    save_img((box * np.where(x_mm < 0, 1, 2)).astype(np.int16), grid.affine, folder / "halves_dseg.nii.gz")
    (folder / "halves_dseg.tsv").write_text("index\tname\n1\thalf_L\n2\thalf_R\n")
    atlas = [f"evaluation.atlas={folder / 'halves_dseg.nii.gz'}", "evaluation.n_perm=99"]
    return xb.run(xb.compose("run", [*SMALL, *atlas, f"run_dir={folder / 'dose'}"]))


def test_the_strength_of_the_effect_is_the_dose():
    settings = SyntheticSettings(dose=True, noise=0.0)
    (image, truth, participant), (without, _, other) = (
        make_synthetic_subject(0, each) for each in (settings, SyntheticSettings(noise=0.0))
    )
    assert 0 <= participant["dose"] <= 1.5
    assert "dose" not in other
    changed = image != without
    assert changed.any()
    assert not changed[~truth].any()  # the dose does not change anything else
    doses = [make_synthetic_subject(k, settings)[2]["dose"] for k in range(12)]
    assert len(set(doses)) == 12


@pytest.mark.slow
def test_a_run_predicts_a_number_in_its_unit(finished):
    predictions, participants = read_tsv(finished.predictions), read_tsv(finished.participants)
    assert list(predictions)[-2:] == ["target", "predicted_dose"]
    doses = participants.set_index("participant_id")["dose"]
    np.testing.assert_allclose(predictions["target"], doses[predictions["participant_id"]])
    metrics = read_json(finished.metrics)
    errors = (predictions["predicted_dose"] - predictions["target"]).abs()
    assert metrics["test/mae_pooled"] == pytest.approx(errors.mean())
    assert metrics["test/mae"] == pytest.approx(errors.groupby(predictions["fold"]).mean().mean())
    assert not [name for name in metrics if "auroc" in name]


@pytest.mark.slow
def test_standardisation_and_the_baseline_of_the_mean_use_training_participants_only(finished):
    predictions = read_tsv(finished.predictions)
    of_mean = read_tsv(finished.evaluation("mean_predictions")).set_index("participant_id")["predicted_dose"]
    targets = predictions.set_index("participant_id")["target"]
    for fold, tested in predictions.groupby("fold")["participant_id"]:
        others = targets.drop(tested)
        np.testing.assert_allclose(of_mean[tested], others.mean())
        network = read_checkpoint(finished.checkpoint(fold, 0))
        training = read_tsv(finished.validation(fold, 0)) if finished.validation(fold, 0).exists() else None
        rest = others if training is None else others.drop(training["participant_id"])
        assert float(network.target_mean) == pytest.approx(rest.mean(), rel=1e-5)
        assert float(network.target_sd) == pytest.approx(rest.std(ddof=0), rel=1e-5)


@pytest.mark.slow
def test_the_same_network_as_a_baseline_has_the_same_predictions(finished):
    network, baseline = read_tsv(finished.predictions), read_tsv(finished.baseline("shallow"))
    pd.testing.assert_frame_equal(baseline, network[list(baseline)])
    choices = read_tsv(finished.evaluation("chosen_network"))
    assert choices.groupby("fold")["mae"].nunique().eq(1).all()
    table = read_tsv(finished.evaluation("baselines")).set_index(["name", "metric"])["value"]
    assert table["chosen_network", "mae"] == table["network", "mae"] == table["shallow", "mae"]
    assert "lowest mean absolute error in the validation parts" in finished.report.read_text()


@pytest.mark.slow
def test_baselines_are_compared_on_the_same_participants(finished):
    table = read_tsv(finished.evaluation("baselines")).set_index(["name", "metric"])
    names = {name for name, _ in table.index} - {"network_calibrated", "network_bias_corrected"}
    assert names == {"network", "mean", "ridge", "shallow", "chosen_network"}
    assert table.loc[("ridge", "mae"), "test"] == "paired t"
    difference = table.loc[("network", "mae"), "value"] - table.loc[("mean", "mae"), "value"]
    assert table.loc[("mean", "mae"), "difference"] == pytest.approx(difference)


@pytest.mark.slow
def test_the_network_is_calibrated_on_validation_parts(finished):
    table = read_tsv(finished.evaluation("baselines")).set_index(["name", "metric"])["value"]
    errors = []
    for fold, test in read_tsv(finished.predictions).groupby("fold"):
        part = read_tsv(finished.validation(fold, 0))
        slope, start = np.polyfit(part["predicted_dose"], part["target"], 1)
        errors.append((start + slope * test["predicted_dose"] - test["target"]).abs().mean())
    assert table["network_calibrated", "mae"] == pytest.approx(np.mean(errors))
    assert read_json(finished.metrics)["network_calibrated/mae"] == pytest.approx(np.mean(errors))


@pytest.mark.slow
def test_maps_explain_the_predicted_number_and_baselines_are_always_there(finished):
    row = read_tsv(finished.predictions).iloc[0]
    abouts = {
        name: read_json(sidecar(finished.attribution(row["participant_id"], "", name, 0)))
        for name in ("Saliency", "OppositeDifference", "CorrelationMap")
    }
    for about in abouts.values():
        assert (about["TargetName"], about["Output"]) == ("dose", "value")
        assert about["PredictedValue"] == pytest.approx(row["predicted_dose"])
        assert "TargetProbability" not in about
    kinds = [about["Kind"] for about in abouts.values()]
    assert kinds == ["method", "baseline", "baseline"]


@pytest.mark.slow
def test_the_report_describes_a_number_and_no_classes(finished):
    page = finished.report.read_text()
    for left_out in (r"<(style|script).*?</\1>", r'<section id="(references|settings)".*', r"class-all"):
        page = re.sub(left_out, "", page, flags=re.DOTALL)
    text = unescape(re.sub(r"<[^>]+>", " ", page))
    assert re.findall(r"AUROC|ROC|\bclass(?:es)?\b|\bclassif\w+|probabilit\w+|balanced accuracy", text) == []
    for part in ("MAE, mean over folds", "MAE, pooled", "R², mean over folds", "predicted against true dose",
                 "mean of the training participants", "ridge regression on voxels"):  # fmt: skip
        assert part in text, part
    metrics = read_json(finished.metrics)
    assert f"{metrics['test/mae']:.3f}" in text
    figures = {path.name for path in (finished.path / "figures").glob("*.png")}
    assert {"prediction.png", "cohort.png", "verdict.png", "mean-map_CorrelationMap.png"} <= figures


@pytest.mark.slow
def test_the_report_states_the_association_that_is_tested(finished):
    tests = read_tsv(finished.evaluation("group_tests")).set_index("method")
    assert tests.loc["CorrelationMap", "reason"].startswith("maps are the same in all subjects")
    assert set(tests["comparison"]) == {"contrast-dose"}
    images = load_img(finished.group_map("image", "contrast-dose", "t")).get_fdata()
    truth = load_img(finished.group_map("truth", "class-all", "mean")).get_fdata() > 0.5
    assert images[truth].mean() > 3  # the dose is planted there
    text = unescape(re.sub(r"<[^>]+>", " ", finished.report.read_text()))
    for part in ("Where are the maps associated with dose over participants?",
                 "association over participants between the value of the map and dose is tested",
                 "The association with dose over participants was tested at each voxel",
                 "Red: higher values with higher dose"):  # fmt: skip
        assert part in text, part
    names = {path.name for path in (finished.path / "figures").glob("group_*contrast-dose*")}
    assert "group_Saliency_contrast-dose.png" in names


@pytest.mark.slow
def test_the_regions_of_an_atlas_are_tested(finished):
    table = read_tsv(finished.evaluation("region_groups")).query("measure == 'mean'")
    assert set(table["region"]) == {"half_L", "half_R"}
    row = table.query("method == 'Saliency' and region == 'half_L'").iloc[0]
    values = read_tsv(finished.evaluation("regions")).query("method == 'Saliency' and region == 'half_L'")
    participants = read_tsv(finished.participants).merge(values, on="participant_id", suffixes=("", "_map"))
    columns = [participants["target"], np.ones(24), participants["age"], participants["sex"] == "male"]
    columns += [participants["fold_map" if "fold_map" in participants else "fold"] == 1]
    beta = np.linalg.lstsq(np.column_stack(columns).astype(float), participants["mean"], rcond=None)[0]
    assert row["slope"] == pytest.approx(beta[0], rel=1e-4)
    painted = load_img(finished.group_map("Saliency", "contrast-dose", "regionmean")).get_fdata()
    affine = load_img(finished.group_map("Saliency", "contrast-dose", "t")).affine
    at = np.round(apply_affine(np.linalg.inv(affine), [-20, 0, 20])).astype(int)
    assert painted[tuple(at)] == pytest.approx(row["slope"], rel=1e-5)
    text = unescape(re.sub(r"<[^>]+>", " ", finished.report.read_text()))
    assert "Association with dose" in text
    assert "of 2 regions are associated with dose" in text


@pytest.mark.parametrize(
    ("confound", "message"),
    [("dose", "confounds=dose: is the label"), ("copy", r"confounds: the confounds copy determine dose")],
)
def test_confounds_that_determine_the_target_are_refused_before_training(confound, message, tmp_path):
    from xai_brain.config.checks import read_config
    from xai_brain.io.problems import Problems
    from xai_brain.study.participants import check_table_settings, find_participants

    config = read_config(
        xb.compose("train", [*SMALL, f"evaluation.group.confounds=[{confound}]", f"run_dir={tmp_path}"])
    )
    table = find_participants(config, Problems())
    table = table.assign(copy=1 - 2 * table["target"])
    with pytest.raises(ConfigError, match=message) as caught:
        check_table_settings(config, table)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.slow
def test_a_mean_map_is_that_of_all_participants(finished):
    rows = read_tsv(finished.predictions).itertuples()
    paths = [finished.attribution(row.participant_id, "", "Saliency", 0) for row in rows]
    expected = np.mean([np.asarray(load_img(path).dataobj) for path in paths], axis=0)
    found = load_img(finished.group_map("Saliency", "class-all", "mean"))
    np.testing.assert_allclose(np.asarray(found.dataobj), expected, atol=1e-5)


@pytest.mark.slow
def test_a_finished_run_is_verified_viewed_and_opened(finished, capsys):
    assert cli.main(["verify", str(finished.path)]) == 0, capsys.readouterr().err
    entries = RunCatalogue(finished).entries
    assert re.search(r"sub-\d+ · [\d.]+ → [\d.]+ · fold \d", entries[0].text)
    study = xb.open_study(finished.path)
    assert set(study.scores["metric"]) >= {"mae", "mae_pooled", "r2", "pearson_r"}
    assert study.reference(1).distribution.predict is not None


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "report", "explain"])
def test_finished_stages_are_kept(finished, command, capsys):
    assert cli.main([command, str(finished.path)]) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.slow
def test_commands_that_need_classes_are_refused(finished):
    from xai_brain.stages.validate import validate

    with pytest.raises(ConfigError, match="`xai-brain validate` compares classes"):
        validate(xb.compose("run", [*SMALL, f"run_dir={finished.path}"]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("planted=lesion", r"planted\.kind=lesion: needs classes"),
        ("evaluation.first_layer=true", r"evaluation\.first_layer=True: needs classes"),
        ("evaluation.card.metrics=[deletion]", r"evaluation\.card\.metrics=.*: needs classes"),
        ("data.threshold=0.5", r"data\.threshold=0\.5: needs classes"),
        ("explain.output=logit", r"explain\.output=logit: one of value is needed"),
        ("task.loss_function=mae", r"task\.loss_function=mae: one of mse, l1, huber"),
    ],
)
def test_settings_that_need_classes_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message) as caught:
        xb.compose("run", [*SMALL, setting])
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("pca_logistic", "LogisticRegression is not a regressor"),
        ("slabs3", "slabs vote for classes"),
    ],
)
def test_baselines_of_classes_are_refused_before_training(baseline, message, tmp_path):
    from xai_brain.stages.train import train

    settings = ["experiment=dose", f"baselines=[{baseline}]", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=message):
        train(xb.compose("train", settings))
    assert not (tmp_path / "run").exists()


def test_regressors_are_no_baselines_of_classes(tmp_path):
    from xai_brain.stages.train import train

    with pytest.raises(ConfigError, match="Ridge is not a classifier"):
        train(xb.compose("train", ["experiment=demo", "baselines=[ridge]", f"run_dir={tmp_path / 'run'}"]))


@pytest.mark.slow
def test_a_number_is_studied_with_the_objects(tmp_path):
    cohort = xb.load_cohort("synthetic", label="dose", task="regression", n_subjects=16, dose=True)
    cohort = cohort.prepare("t1w_4mm")
    study = xb.cross_validate(cohort, "shallow", n_folds=2, max_epochs=1, run_dir=tmp_path / "study")
    predictions = study.predictions
    doses = cohort.table.set_index("participant_id")["dose"].astype(float)
    np.testing.assert_allclose(predictions["target"], doses[predictions["participant_id"]])
    errors = (predictions["predicted_dose"] - predictions["target"]).abs()
    scores = study.scores.set_index("metric")
    assert scores.loc["mae_pooled", "value"] == pytest.approx(errors.mean())
    assert scores.loc["mae_pooled", "ci_low"] < errors.mean() < scores.loc["mae_pooled", "ci_high"]
    maps = study.explain(["Saliency"])
    with pytest.raises(ConfigError, match="confounds=dose: is the label"):
        maps.compare_groups(confounds=["dose"], n_perm=19)
    found = maps.compare_groups(n_perm=19).set_index("method")  # the refused setting has changed nothing
    assert found["n_subjects"].tolist() == [16, 16]
    assert found.loc["image", "largest_t"] > found.loc["Saliency", "largest_t"]
    t = maps.group_img("Saliency", "contrast-dose", "t")
    assert np.abs(t.get_fdata()).max() == pytest.approx(found.loc["Saliency", "largest_t"], rel=1e-4)
    labels = np.zeros(t.shape, np.int16)
    labels[12:34, 15:40, 15:35] = 1
    table = maps.compare_regions(
        nib.Nifti1Image(labels, t.affine), pd.DataFrame({"index": [1], "name": ["box"]})
    )
    assert table["region"].tolist() == ["box", "box"]
    assert {"slope", "partial_r", "q"} <= set(table)
    assert {"network", "mean", "ridge"} <= set(study.compare_baselines(["ridge"])["name"])

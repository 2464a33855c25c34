"""Studies and maps as objects: a study from participants to report, with known answers and refusals."""

from __future__ import annotations

import re
from functools import partial

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import xai_brain as xb
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar

SMALL_NETWORK = {"channels": [2, 3, 4]}


@pytest.fixture(scope="module")
def cohort(synthetic_cohort):
    return synthetic_cohort


@pytest.fixture(scope="module")
def study(cohort, tmp_path_factory):
    return xb.cross_validate(
        cohort,
        model="kan2020",
        n_folds=2,
        seeds=(0, 1),
        max_epochs=1,
        model_settings=SMALL_NETWORK,
        run_dir=tmp_path_factory.mktemp("api") / "study",
    )


@pytest.fixture(scope="module")
def maps(study):
    quick = partial(xb.MeaningfulPerturbation, n_iter=2)
    found = study.explain(["GradCAM", quick], target="male", output="logit_difference")
    found.compare_groups(confounds=[], n_perm=20)  # few permutations, also of the report
    return found


def one_line(error):
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


# -- five tasks in at most three lines each ------------------------------------------------------
def test_map_of_a_participant_as_nifti(maps):
    img = maps.img("sub-0001", "GradCAM")

    assert isinstance(img, nib.Nifti1Image)
    assert img.shape == get_grid("t1w_4mm").shape
    np.testing.assert_array_equal(img.affine, get_grid("t1w_4mm").affine)


def test_predictions_with_labels_as_a_table(study):
    table = study.predictions[["participant_id", "label", "predicted"]]

    participants = read_tsv(study.run_dir / "participants.tsv").set_index("participant_id")["label"]
    assert len(table) == 16 * 2  # of two seeds
    assert (table["label"] == participants[table["participant_id"]].to_numpy()).all()
    likely = study.predictions[["prob_female", "prob_male"]].idxmax(axis=1).str.removeprefix("prob_")
    assert (table["predicted"] == likely).all()


def test_the_file_of_predictions_names_the_classes_too(study):
    table = read_tsv(study.run_dir / "predictions.tsv")

    columns = ["participant_id", "session_id", "seed", "fold", "target", "label", "predicted"]
    assert list(table) == list(study.predictions) == [*columns, "prob_female", "prob_male"]
    assert (table["fold"] + 1 == study.predictions["fold"]).all()  # files count from 0
    for name in ("label", "predicted"):
        assert table[name].tolist() == study.predictions[name].tolist()
    assert (table["label"] == np.array(["female", "male"])[table["target"]]).all()


def test_every_score_has_its_chance_level(study):
    scores = study.scores.set_index("metric")

    assert scores.loc[["auroc", "auroc_pooled", "balanced_accuracy"], "chance"].tolist() == [0.5] * 3
    assert scores.loc["accuracy", "chance"] == 0.5  # the share of the larger of two equal classes
    assert scores.loc["brier", "chance"] == 0.25
    assert scores["chance"].notna().all()


def test_a_target_as_the_table_spells_it(study, maps):
    again = study.explain(["GradCAM"], target="M", output="logit_difference")  # the existing maps are kept
    assert set(again.table["explained"]) == {"male"}
    assert len(again.table) == len(maps.table) / 2
    assert read_json(sidecar(again.table["path"].iloc[0]))["TargetRule"] == "male"


def test_mean_map_of_a_class(maps):
    mean_img = maps.mean_img("GradCAM", label="male")

    paths = maps.table.query("label == 'male' and method == 'GradCAM'")["path"]
    expected = np.mean([nib.load(path).get_fdata() for path in paths], axis=0)
    np.testing.assert_allclose(mean_img.get_fdata(), expected, atol=1e-6 * np.abs(expected).max())
    of_table = maps.mean_img("GradCAM", label="M")  # as a table may spell it
    np.testing.assert_array_equal(of_table.get_fdata(), mean_img.get_fdata())


def test_comparison_of_two_methods(maps, study):
    agreement = maps.agreement()

    summary = read_tsv(study.run_dir / "evaluation" / "summary.tsv").query("table == 'agreement'")
    assert set(summary["method"]) == {"GradCAM × MeaningfulPerturbation"}
    for column in ("metric", "top_percent", "mean", "ci_low", "ci_high", "n"):
        pd.testing.assert_series_equal(agreement[column], summary[column].reset_index(drop=True))
    assert set(agreement["method_a"]) == {"GradCAM"}
    assert set(agreement["method_b"]) == {"MeaningfulPerturbation"}


def test_report_inline(study, maps):
    page = study.report()

    assert page.path == study.run_dir / "report.html"
    assert page._repr_html_().startswith("<iframe srcdoc=")
    assert "GradCAM" in page._repr_html_()


# -- the other objects of the design -------------------------------------------------------------
def test_scores_have_intervals_and_chance(study):
    scores = study.scores.set_index("metric")
    metrics = read_json(study.run_dir / "metrics.json")
    assert scores.loc["auroc", "value"] == metrics["test/auroc"]
    assert (scores["ci_low"] <= scores["value"]).all()
    assert (scores["value"] <= scores["ci_high"]).all()
    assert scores.loc[["auroc", "balanced_accuracy"], "chance"].tolist() == [0.5, 0.5]


def test_several_seeds_are_averaged_unless_one_is_named(maps, study):
    folder = study.run_dir / "attributions"
    name = "sub-0001_space-MNI152_desc-GradCAM_attribution.nii.gz"
    by_seed = [nib.load(folder / f"seed-{seed}" / "sub-0001" / "anat" / name) for seed in (0, 1)]
    for seed, img in enumerate(by_seed):
        found = maps.img("sub-0001", "GradCAM", seed=seed)
        np.testing.assert_array_equal(found.get_fdata(), img.get_fdata())
        np.testing.assert_array_equal(found.affine, img.affine)
    expected = np.mean([img.get_fdata() for img in by_seed], axis=0)
    np.testing.assert_allclose(maps.img("sub-0001", "GradCAM").get_fdata(), expected, rtol=1e-5, atol=1e-9)
    assert maps.seeds == [0, 1]


def test_the_mean_map_is_the_group_map_of_the_evaluation(maps, study):
    maps.agreement()
    name = "tpl-MNI152_cohort-female_desc-GradCAM+mean_statmap.nii.gz"
    on_disk = nib.load(study.run_dir / "group" / "tpl-MNI152" / "anat" / name)
    mean = maps.mean_img("GradCAM", label="female").get_fdata()
    np.testing.assert_allclose(mean, on_disk.get_fdata(), atol=1e-6 * np.abs(mean).max())


def test_every_map_of_the_table_exists(maps):
    table = maps.table
    assert len(table) == len(maps) == 16 * 2 * 2  # participants, methods, seeds
    assert all(path.exists() and sidecar(path).exists() for path in table["path"])
    assert set(table["explained"]) == {"male"}
    assert set(table["output"]) == {"logit_difference"}


def test_images_below_maps_and_true_places(maps, cohort):
    img = maps.img("sub-0001", "GradCAM")
    t1w_img, truth_img = maps.t1w_img("sub-0001"), maps.truth_img("sub-0001")
    for other in (t1w_img, truth_img):
        np.testing.assert_array_equal(other.affine, img.affine)
    truth = truth_img.get_fdata() > 0
    assert (t1w_img.get_fdata()[truth] > 0).mean() > 0.9
    center_mm = nib.affines.apply_affine(img.affine, np.argwhere(truth).mean(0))
    assert np.linalg.norm(center_mm - [-34, -20, -14]) < 6
    assert maps.sidecar("sub-0001", "GradCAM")["TargetName"] == "male"


def test_sessions_are_needed_where_there_are_several(maps):
    several = xb.open_maps(maps._run.path)
    first = several._rows["participant_id"].eq("sub-0001") & several._rows["seed"].eq(0)
    several._rows.loc[first, "session_id"] = "ses-1"  # as if seed 0 were a session of its own
    with pytest.raises(ConfigError, match=r"sub-0001 has several sessions; session_id is needed, one of"):
        several.img("sub-0001", "GradCAM")
    one = several.img("sub-0001", "GradCAM", session_id="ses-1")
    np.testing.assert_array_equal(one.get_fdata(), maps.img("sub-0001", "GradCAM", seed=0).get_fdata())
    with pytest.raises(ConfigError, match=r"there is no session of sub-0001: 'ses-2'; there are "):
        several.img("sub-0001", "GradCAM", session_id="ses-2")


def test_localization_is_that_of_the_evaluation(maps, study):
    table = maps.localization()
    assert set(table["method"]) == set(maps.methods)
    metrics = read_json(study.run_dir / "metrics.json")
    rra = table.query("method == 'GradCAM' and metric == 'rra'").iloc[0]
    assert rra["mean"] == pytest.approx(metrics["localization/GradCAM/rra"])
    assert 0 < rra["chance"] < 0.1


def test_regions_take_an_image_and_a_table_of_names(maps):
    img = maps.img("sub-0001", "GradCAM")
    x_mm = nib.affines.apply_affine(img.affine, np.stack(np.indices(img.shape), -1))[..., 0]
    inside = nib.load(next(maps._run.path.glob("images/*T1w.nii.gz"))).get_fdata() > 0
    labels = np.where(inside, np.where(x_mm < 0, 1, 2), 0).astype(np.int16)
    lut = pd.DataFrame({"index": [1, 2], "name": ["left half", "right half"]})
    table = maps.regions(nib.Nifti1Image(labels, img.affine), lut)
    assert set(table["region"]) == {"left half", "right half"}
    assert len(table) == 2 * len(maps)
    shares = table.groupby(["participant_id", "seed", "method"])["mass_share"].sum().dropna()
    assert shares.between(0.9, 1.0 + 1e-9).all()


def test_groups_are_compared_with_the_confounds_that_are_named(maps, study):
    table = maps.compare_groups(confounds=["age"], n_perm=20)
    assert set(table["method"]) == {*maps.methods, "image"}
    assert table["n_voxels"].gt(1000).all()
    record = read_json(sidecar(RunDirectory(study.run_dir).group_map("GradCAM", "male-minus-female", "t")))
    assert "age" in str(record)
    with pytest.raises(ConfigError, match=r"there is no column 'weight'; there are .*age"):
        maps.compare_groups(confounds=["weight"])
    study.report()  # what was refused has changed nothing


def test_the_viewer_shows_a_participant(maps):
    viewer = maps.view("sub-0002")
    assert viewer._scene.title.startswith("sub-0002")
    with pytest.raises(ConfigError, match="there is no participant 'sub-2'"):
        maps.view("sub-2")


def test_studies_and_maps_are_read_from_disk(study, maps):
    again = xb.open_study(study.run_dir)
    pd.testing.assert_frame_equal(again.predictions, study.predictions)
    for folder in (study.run_dir, study.run_dir / "attributions"):
        pd.testing.assert_frame_equal(xb.open_maps(folder).table, maps.table)
    assert again.maps.methods == maps.methods
    assert repr(again) == "Study(16 participants, 2 folds, seeds 0, 1; maps: GradCAM, MeaningfulPerturbation)"


def test_methods_are_named_by_name_class_or_partial(study, maps):
    before = maps.table["path"].iloc[0].stat().st_mtime_ns
    again = study.explain([xb.MeaningfulPerturbation, "GradCAM"])  # settings and maps are kept
    assert again.methods == ["MeaningfulPerturbation", "GradCAM"]
    assert maps.table["path"].iloc[0].stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"n_iter: 2 before, 3 now"):
        study.explain([partial(xb.MeaningfulPerturbation, n_iter=3)])


def test_a_study_continues_and_refuses_other_settings(cohort, study):
    arguments = {"n_folds": 2, "seeds": (0, 1), "model_settings": SMALL_NETWORK, "run_dir": study.run_dir}
    again = xb.cross_validate(cohort, max_epochs=1, **arguments)
    assert len(again.predictions) == len(study.predictions)
    with pytest.raises(ConfigError, match=r"trainer.max_epochs: 1 before, 2 now"):
        xb.cross_validate(cohort, max_epochs=2, **arguments)


def test_the_network_of_a_fold_gives_its_predictions(study):
    rows = study.predictions.query("fold == 2 and seed == 1")
    logits = study.network(fold=2, seed=1)(study.inputs(rows["participant_id"].tolist()))
    expected = rows[["prob_female", "prob_male"]].to_numpy()
    np.testing.assert_allclose(logits.softmax(1).detach().numpy(), expected, atol=1e-5)
    assert {"train/loss", "val/loss"} <= set(study.history(fold=2, seed=1)["metric"])


def test_participants_have_the_fold_in_which_they_are_tested(study, maps):
    folds = study.predictions.drop_duplicates("participant_id").set_index("participant_id")["fold"]
    assert set(folds) == set(maps.table["fold"]) == {1, 2}
    participants = study.participants.set_index("participant_id")
    pd.testing.assert_series_equal(participants["fold"], folds.reindex(participants.index))


def test_the_reference_is_of_training_participants(study):
    participants = study.participants.query("fold != 1 and label == 'male'")["participant_id"]
    mean = study.reference(fold=1).class_means[1]
    volumes = study.inputs(participants.tolist())
    spread = (volumes.mean(0) - mean).abs().max() / volumes.std(0).max()
    assert spread < 1  # training participants less those of validation
    assert study.reference(fold=1, n_volumes=4).volumes.shape[0] == 4


def test_networks_are_compared_with_brain_size(study, tmp_path):
    with pytest.raises(ConfigError, match="there is no baseline; set brain_size_column"):
        study.compare_baselines()
    with pytest.raises(ConfigError, match=r"there is no baseline 'pca'; there are .*pca_logistic"):
        study.compare_baselines(["pca"])
    cohort = xb.load_cohort("synthetic", n_subjects=16, brain_size_column="brain_volume_ml")
    run_dir = tmp_path / "size"
    sized = xb.cross_validate(cohort.prepare("t1w_4mm"), "shallow", n_folds=2, max_epochs=1, run_dir=run_dir)
    table = sized.compare_baselines().set_index(["name", "metric"])
    scores = sized.scores.set_index("metric")
    assert table.loc[("network", "auroc"), "value"] == pytest.approx(scores.loc["auroc", "value"])
    assert 0 <= table.loc[("brain_size", "auroc"), "value"] <= 1
    more = sized.compare_baselines(["linear_svm"])
    assert set(more["name"]) == {"network", "brain_size", "linear_svm"}
    assert set(sized.compare_baselines()["name"]) == set(more["name"])  # what is fitted is kept


def test_tables_of_the_evaluation_are_read_by_name(study, maps):
    clusters = study.evaluation("group_clusters")
    assert {"method", "x_mm", "y_mm", "z_mm", "peak_t"} <= set(clusters.columns)
    with pytest.raises(ConfigError, match=r"there is no table 'clusters'; there are .*group_clusters"):
        study.evaluation("clusters")


def test_statistical_maps_are_read_by_name(study, maps):
    name = "tpl-MNI152_desc-GradCAM+male+minus+female+t_statmap.nii.gz"
    path = study.run_dir / "group" / "tpl-MNI152" / "anat" / name
    t_img = maps.group_img("GradCAM")
    np.testing.assert_array_equal(t_img.get_fdata(), nib.load(path).get_fdata())
    assert maps.group_img("image").shape == t_img.shape
    with pytest.raises(ConfigError, match=r"there is no statistical map of 'GradCam'; there are GradCAM, "):
        maps.group_img("GradCam")
    with pytest.raises(ConfigError, match=r"there is no statistic of GradCAM: 'z'; there are "):
        maps.group_img("GradCAM", stat="z")
    with pytest.raises(ConfigError, match="there is no map of GradCAM, t: 'female-minus-male'; there are"):
        maps.group_img("GradCAM", "female-minus-male")


def test_regions_are_compared_between_classes(maps, small_run):
    img = maps.img("sub-0001", "GradCAM")
    x_mm = nib.affines.apply_affine(img.affine, np.stack(np.indices(img.shape), -1))[..., 0]
    inside = nib.load(next(maps._run.path.glob("images/*T1w.nii.gz"))).get_fdata() > 0
    labels_img = nib.Nifti1Image(np.where(inside, np.where(x_mm < 0, 1, 2), 0).astype(np.int16), img.affine)
    lut = pd.DataFrame({"index": [1, 2], "name": ["left half", "right half"]})
    table = maps.compare_regions(labels_img, lut, n_perm=50)
    assert set(table["class_a"]) == {"female"}
    assert set(table["class_b"]) == {"male"}
    assert "age" in table["confounds"].iloc[0]
    unadjusted = maps.compare_regions(labels_img, lut, confounds=[], n_perm=50)
    np.testing.assert_allclose(
        unadjusted["mean_b"] - unadjusted["mean_a"], unadjusted["difference"], rtol=1e-6
    )
    with pytest.raises(ConfigError, match="no column 'agee'"):
        maps.compare_regions(labels_img, lut, confounds=["agee"])
    assert table["p"].between(1 / 51, 1).all()
    predicted = xb.open_study(small_run.path).maps
    with pytest.raises(ConfigError, match="GradCAM: "):
        predicted.compare_regions(labels_img, lut)


def test_networks_are_evaluated_on_masked_images(study, maps):
    one = xb.Maps(study.run_dir, ["GradCAM"])
    table = one.validate_masks(areas=[5], n_random=1)
    pd.testing.assert_frame_equal(study.evaluation("mask_validation"), table)
    assert set(table["control"]) == {"none", "map", "random"}
    assert set(table["method"]) == {"none", "GradCAM"}
    whole = table.query("control == 'none' and metric == 'auroc'")["value"].iloc[0]
    assert whole == pytest.approx(study.scores.set_index("metric").loc["auroc", "value"])


# -- names that do not exist ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "valid"),
    [
        (lambda s, m: m.img("sub-0001", "GradCam"), "method 'GradCam'; there are GradCAM, MeaningfulPert"),
        (lambda s, m: m.img("sub-1", "GradCAM"), "participant 'sub-1'; there are sub-0001, "),
        (lambda s, m: m.img("sub-0001", "GradCAM", seed=2), "seed 2; there are 0, 1"),
        (lambda s, m: m.img("sub-0001", "GradCAM", session_id="ses-1"), "session of sub-0001: 'ses-1'"),
        (lambda s, m: m.mean_img("GradCAM", label="person"), "label 'person'; there are female, male"),
        (lambda s, m: s.explain(["Gradcam"]), "method 'Gradcam'; there are .*GradCAM, .*Occlusion"),
        (lambda s, m: s.explain(["GradCAM"], target="boy"), "target 'boy'; there are .*female, male"),
        (lambda s, m: s.explain(["GradCAM"], seeds=[7]), "seed 7; there are 0, 1"),
        (lambda s, m: s.network(3), "fold 3; there are 1, 2"),
        (lambda s, m: s.history(1, seed=3), "seed 3; there are 0, 1"),
        (lambda s, m: s.inputs(["sub-1"]), "participant 'sub-1'; there are sub-0001, "),
        (lambda s, m: xb.load_cohort("bidz"), "layout 'bidz'; there are bids, .*synthetic, table"),
        (lambda s, m: xb.load_cohort("synthetic", n=3), "'n'; there are n_subjects, "),
        (lambda s, m: xb.load_cohort("bids", ".", n=3), "'n'; there are layout, root"),
    ],
)
def test_unknown_names_list_the_valid_ones(study, maps, call, valid):
    with pytest.raises(ConfigError) as error:
        call(study, maps)
    assert re.search(f"there is no .*{valid}", one_line(error))

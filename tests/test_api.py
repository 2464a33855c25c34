"""The objects: a study from participants to report in a few lines, with known answers and refusals."""

from __future__ import annotations

import doctest
import importlib
import logging
import re
from functools import partial

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import xai_brain as xb
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid
from xai_brain.io.problems import DataError
from xai_brain.parallel.verbosity import LOGGER
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar

SMALL_NETWORK = {"channels": [2, 3, 4]}
MODULES = [f"study.{name}" for name in ("card", "cohort", "cross_validate", "study")]
MODULES += [f"attribution.methods.{name}" for name in ("grad_cam", "guided_backprop")]
MODULES += [
    "atlas.atlas",
    "attribution.methods.meaningful_perturbation",
    "attribution.network_outputs",
    "attribution.reference",
    "config.build",
    "config.planted_effect",
    "data.folds.splits",
    "models.module",
    "models.networks.kan2020",
    "runs.provenance",
    "study.trained_networks",
    *(f"study.maps.{name}" for name in ("images", "maps", "opening")),
]


@pytest.fixture(scope="module")
def cohort():
    return xb.load_cohort("synthetic", n_subjects=16).prepare("t1w_4mm")


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
def test_a_cohort_has_a_table_a_figure_and_a_grid(cohort):
    assert cohort.table["participant_id"].nunique() == len(cohort) == 16
    assert cohort.class_names == ["female", "male"]
    assert cohort.grid == "t1w_4mm"
    assert np.load(cohort.table["volume_path"].iloc[0]).shape == get_grid("t1w_4mm").shape
    figure = cohort.plot()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "<table" in cohort._repr_html_()


def test_a_cohort_can_be_prepared_again_on_another_grid(cohort):
    other = cohort.prepare("t1w_58x70x58")
    assert other.grid == "t1w_58x70x58"
    assert np.load(other.table["volume_path"].iloc[0]).shape == (58, 70, 58)
    assert list(other.table.columns) == list(cohort.table.columns)


def test_columns_of_numbers_are_numeric(bids_tree):
    path = bids_tree / "participants.tsv"
    table = pd.read_csv(path, sep="\t")
    table = table.assign(icv=["1450.5", "n/a", *["1500"] * 4], mmse=30, code="007", site=1, score="12-14")
    table.assign(family_id=3).to_csv(path, sep="\t", index=False)
    cohort = xb.load_cohort("bids", bids_tree)
    kinds = cohort.table.dtypes
    assert kinds[["age", "icv", "mmse"]].map(pd.api.types.is_numeric_dtype).all()
    assert cohort.table["icv"].sum() == 1450.5 + 4 * 1500
    assert cohort.table["icv"].isna().sum() == 1
    for name in ("participant_id", "label", "sex", "code", "site", "family_id", "score"):
        assert cohort.table[name].map(type).eq(str).all(), name
    assert set(cohort.table["code"]) == {"007"}


def test_a_label_of_numbers_stays_text(bids_tree):
    path = bids_tree / "participants.tsv"
    table = pd.read_csv(path, sep="\t")
    table.assign(group=[1, 2] * 3).to_csv(path, sep="\t", index=False)
    cohort = xb.load_cohort("bids", bids_tree, label="group")
    assert cohort.class_names == ["1", "2"]
    assert cohort.table["group"].tolist() == cohort.table["label"].tolist() == ["1", "2"] * 3


def test_excluded_participants_are_listed(bids_tree):
    table = pd.read_csv(bids_tree / "participants.tsv", sep="\t")
    table.assign(sex=["n/a", *table["sex"][1:]]).to_csv(bids_tree / "participants.tsv", sep="\t", index=False)
    cohort = xb.load_cohort("bids", bids_tree, on_error="skip")
    assert len(cohort) == 5
    assert cohort.excluded["participant_id"].tolist() == ["sub-00"]
    with pytest.raises(DataError, match="sub-00"):
        xb.load_cohort("bids", bids_tree)


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


def test_prepared_volumes_of_a_cohort(cohort):
    volumes = cohort.volumes()
    assert volumes.shape == (16, *get_grid("t1w_4mm").shape)
    np.testing.assert_array_equal(volumes[3], np.load(cohort.table["volume_path"].iloc[3]))
    np.testing.assert_array_equal(cohort.affine, get_grid("t1w_4mm").affine)
    with pytest.raises(ConfigError, match="not prepared"):
        xb.load_cohort("synthetic", n_subjects=16).volumes()


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


@pytest.mark.parametrize(
    ("arguments", "valid"),
    [
        ({"model": "kan"}, "model 'kan'; there are .*kan2020"),
        ({"folds": "random"}, "folds 'random'; there are .*stratified"),
        ({"augmentation": "all"}, "augmentation 'all'; there are .*none"),
        ({"trainer": {"epochs": 3}}, "'epochs'; there are max_epochs"),
    ],
)
def test_unknown_arguments_of_a_study_list_the_valid_ones(cohort, tmp_path, arguments, valid):
    with pytest.raises(ConfigError) as error:
        xb.cross_validate(cohort, run_dir=tmp_path / "run", **arguments)
    assert re.search(f"there is no .*{valid}", one_line(error))
    assert not (tmp_path / "run").exists()


def test_grids_are_listed_and_needed(cohort, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no grid 't1w_3mm'; there are .*t1w_4mm"):
        cohort.prepare("t1w_3mm")
    with pytest.raises(ConfigError, match=r"not prepared: call cohort.prepare\(grid\) first; grids are"):
        xb.cross_validate(xb.load_cohort("synthetic", n_subjects=16), run_dir=tmp_path / "run")


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no study; xai_brain.cross_validate makes one"):
        xb.open_study(tmp_path)
    with pytest.raises(ConfigError, match=r"there are no maps; Study.explain makes them"):
        xb.open_maps(tmp_path)
    with pytest.raises(ConfigError, match="has no report card"):
        xb.ReportCard(tmp_path)


# -- report card ---------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_report_card_of_a_planted_effect(cohort, tmp_path):
    planted = xb.PlantedEffect(kind="intensity", size=3.0, center_mm=[34, -20, -10], radius_mm=22.0)
    card = xb.report_card(
        cohort,
        methods=["GradCAM", "Saliency"],
        metrics=["rra", "pointing"],
        baselines=["RandomMap"],
        planted=planted,
        model_settings=SMALL_NETWORK,
        seeds=(0,),
        max_epochs=1,
        n_bootstrap=50,
        card_settings={"n_sanity": 2},
        run_dir=tmp_path / "card",
    )
    assert set(card.table["method"]) == {"GradCAM", "Saliency", "RandomMap"}
    assert set(card.verdicts["method"]) == {"GradCAM", "Saliency", "RandomMap"}
    assert card.verdicts["believe"].isin(["yes", "with care", "no", "not rated"]).all()
    assert card.plot()._repr_png_().startswith(b"\x89PNG")
    assert set(card.maps.methods) == {"GradCAM", "Saliency", "RandomMap"}
    assert repr(xb.ReportCard(card.run_dir)) == repr(card)
    assert card.study.class_names == ["without", "with"]
    with pytest.raises(ConfigError, match=r"'n_sane'; there are .*n_sanity"):
        xb.report_card(cohort, planted=planted, card_settings={"n_sane": 2}, run_dir=tmp_path / "none")
    with pytest.raises(ConfigError, match=r"planted.kind is needed"):
        xb.report_card(cohort, planted=xb.PlantedEffect(), run_dir=tmp_path / "none")


# -- documentation -------------------------------------------------------------------------------
def test_public_names_are_listed():
    assert {"load_cohort", "cross_validate", "open_study", "open_maps", "report_card"} <= set(dir(xb))
    assert {"Cohort", "Study", "Maps", "ReportCard", "PlantedEffect"} <= set(dir(xb))


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_the_docstrings(module, small_run, cohort, monkeypatch):
    names = {"run_dir": small_run.path, "cohort": cohort}
    names |= {"study": xb.open_study(small_run.path), "maps": xb.open_maps(small_run.path)}
    monkeypatch.setattr(LOGGER, "level", logging.WARNING)  # how long work takes is not part of an example
    assert doctest.testmod(importlib.import_module(f"xai_brain.{module}"), extraglobs=names).failed == 0

"""The evaluate stage on classes: what is compared, what is refused, and what is written."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import awkward_affine
from group_runs import BRAIN, COMMON, PLACE, SHAPE, N, evaluated, map_of, settings, write_run
from scipy import ndimage

from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import load_img, save_img
from xai_brain.io.problems import DataError
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar, write_json, write_tsv
from xai_brain.study.evaluation import groups as stage
from xai_brain.study.evaluation.class_maps import write_class_maps
from xai_brain.study.evaluation.found_maps import find_maps
from xai_brain.study.evaluation.groups import evaluate_groups


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_the_planted_difference_is_written_with_its_place_and_every_setting(run):
    row = evaluated(run).loc["GradCAM"]
    t_path = run.group_map("GradCAM", "male-minus-female", "t")
    img = load_img(t_path)
    np.testing.assert_allclose(img.affine, awkward_affine(), atol=1e-5)
    found = np.abs(img.get_fdata()) > row["threshold_t"]
    truth = np.zeros(SHAPE, bool)
    truth[PLACE] = True
    assert not (found & ~truth).any()
    assert (found & truth).sum() == row["n_significant"] >= 25
    assert (img.get_fdata()[~BRAIN] == 0).all()
    logp = load_img(run.group_map("GradCAM", "male-minus-female", "logpfwe")).get_fdata()
    np.testing.assert_array_equal(10 ** -logp[BRAIN] <= 0.05 + 1e-6, found[BRAIN])
    about = read_json(sidecar(t_path))
    assert about["NumberOfSubjects"] == {"female": 12, "male": 12}
    assert about["Confounds"] == ["age", "fold=1", "fold=2"]
    assert about["DroppedConfounds"] == {"site": "the same for all"}
    assert about["DegreesOfFreedom"] == row["dof"] == 24 - 2 - 3
    assert about["NumberOfPermutations"] == 99
    assert "does not imply that the brains differ" in about["MeaningOfP"]
    clusters = read_tsv(run.evaluation("group_clusters"))
    centre = awkward_affine() @ [5, 6, 7, 1]
    peak = clusters.iloc[0][["x_mm", "y_mm", "z_mm"]].to_numpy(float)
    assert np.linalg.norm(peak - centre[:3]) < 4.5
    assert read_json(run.metrics)["group/GradCAM/male-minus-female/n_significant"] == row["n_significant"]


@pytest.mark.parametrize("least", [1, 5, 10_000])
def test_the_minimum_extent_of_clusters_is_stated_and_applied(run, least):
    rows = evaluated(run, f"evaluation.group.min_cluster_voxels={least}", "evaluation.group.alpha=0.3")
    t = load_img(run.group_map("GradCAM", "male-minus-female", "t"))
    row = rows.loc["GradCAM"]
    _, n_all = ndimage.label(t.get_fdata() > row["threshold_t"])
    n_all += ndimage.label(t.get_fdata() < -row["threshold_t"])[1]
    table = run.evaluation("group_clusters")
    voxel_mm3 = abs(np.linalg.det(awkward_affine()[:3, :3]))
    clusters = read_tsv(table).query("method == 'GradCAM'") if table.exists() else pd.DataFrame()
    sizes = clusters["size_mm3"].dropna() if len(clusters) else []
    assert all(size >= least * voxel_mm3 - 1 for size in sizes)
    assert len(sizes) + row["n_small_clusters"] == n_all
    assert row["min_cluster_voxels"] == least
    about = read_json(sidecar(run.group_map("GradCAM", "male-minus-female", "t")))
    assert about["MinimumClusterVoxels"] == least


def test_maps_of_the_predicted_class_are_refused_with_the_remedy(run, capsys):
    row = evaluated(run).loc["GuidedBackprop"]
    assert "explain.target=<one class> explain.output=logit_difference" in row["reason"]
    assert "GuidedBackprop: maps are not tested" in capsys.readouterr().out
    assert not list((run.path / "group").rglob("*GuidedBackprop*"))


def test_t_is_that_of_the_mean_over_seeds_and_empty_maps_are_counted(run, capsys):
    for seed in (0, 1):
        save_img(np.zeros(SHAPE, np.float32), awkward_affine(), map_of(run, "sub-05", seed))
    save_img(np.zeros(SHAPE, np.float32), awkward_affine(), map_of(run, "sub-06", 1))
    outside = np.where(BRAIN, 0, 1).astype(np.float32)
    save_img(outside, awkward_affine(), map_of(run, "sub-07", 0))
    row = evaluated(run, "evaluation.group.confounds=[]").loc["GradCAM"]
    assert (row["n_empty"], row["n_first"], row["n_second"]) == (1, 12, 11)
    assert "1 participants excluded: their maps are empty" in capsys.readouterr().out
    means = {False: [], True: []}
    for i in (i for i in range(N) if i != 5):
        seeds = {6: (0,), 7: (1,)}.get(i, (0, 1))
        maps = [load_img(map_of(run, f"sub-{i:02d}", seed)).get_fdata()[BRAIN] for seed in seeds]
        means[bool(i % 2)].append(np.mean(maps, axis=0))
    from scipy.stats import ttest_ind

    t = load_img(run.group_map("GradCAM", "male-minus-female", "t")).get_fdata()[BRAIN]
    np.testing.assert_allclose(t, ttest_ind(means[True], means[False]).statistic, rtol=1e-5, atol=1e-5)


def test_a_map_that_holds_nan_stops_the_comparison(run):
    save_img(np.full(SHAPE, np.nan, np.float32), awkward_affine(), map_of(run, "sub-06", 1))
    with pytest.raises(DataError, match=r"sub-06.*holds NaN or infinite values; remove it"):
        evaluated(run, "evaluation.group.confounds=[]")


def test_a_missing_age_is_told_and_the_subject_left_out(run, capsys):
    table = read_tsv(run.participants)
    table.loc[4, "age"] = np.nan
    write_tsv(table, run.participants)
    row = evaluated(run).loc["GradCAM"]
    assert (row["n_left_out"], row["n_first"]) == (1, 11)
    message = capsys.readouterr().out
    assert message.count("male-minus-female: 1 participants excluded: 1 with no age") == 1
    assert message.count("confound site dropped: the same for all") == 1
    about = read_json(sidecar(run.group_map("GradCAM", "male-minus-female", "t")))
    assert about["LeftOut"] == {"sub-04": "no age"}


def test_one_reason_for_several_methods_is_stated_once(run, capsys):
    for path in run.path.rglob("*_desc-GradCAM_attribution.json"):
        write_json(read_json(path.with_name(path.name.replace("GradCAM", "GuidedBackprop"))), path)
    evaluated(run)
    lines = [line for line in capsys.readouterr().out.splitlines() if "not tested" in line]
    assert len(lines) == 1
    assert lines[0].startswith("evaluate: GradCAM, GuidedBackprop: maps are not tested: maps explain")


def test_the_images_are_tested_too_and_the_overlap_measured(run, tmp_path, monkeypatch):
    table = read_tsv(run.participants)
    rng = np.random.default_rng(1)
    paths = []
    for i in range(N):
        volume = rng.normal(size=SHAPE)
        volume[PLACE] += 3 * (i % 2)
        paths.append(tmp_path / f"{i}.npy")
        np.save(paths[-1], np.where(BRAIN, volume, 0).astype(np.float32))
    monkeypatch.setattr(stage, "prepared_cohort", lambda cfg, run: table.assign(volume_path=paths))
    monkeypatch.setattr(stage, "same_cohort", lambda cohort, run: cohort)
    rows = evaluated(run, "evaluation.group.images=true")
    assert rows.loc["image", "confounds"] == "age"  # folds are of networks
    assert rows.loc["image", "n_significant"] >= 20
    overlap = read_tsv(run.evaluation("group_overlap")).set_index(["map", "metric", "top_percent"])["value"]
    assert overlap["t", "dice", 3] > 0.8  # the place is 27 of 960 voxels, about 3 %
    assert overlap["difference", "dice", 3] > 0.8
    assert (
        "brains differ"
        not in read_json(sidecar(run.group_map("image", "male-minus-female", "t")))["MeaningOfP"]
    )

    def gone(cfg, run):
        raise DataError("/data: no such folder")

    monkeypatch.setattr(stage, "prepared_cohort", gone)
    rows = evaluated(run, "evaluation.group.images=true", "evaluation.group.fwhm_mm=6")
    assert rows.loc["image", "reason"] == "the cohort cannot be read"
    assert rows.loc["GradCAM", "n_significant"] > 0


def test_group_maps_of_two_methods_are_compared_with_each_other(run):
    assert not run.evaluation("group_agreement").exists()
    for path in run.path.rglob("*_desc-GuidedBackprop_attribution.json"):
        write_json(COMMON, path)
    evaluated(run, "evaluation.top_percents=[3,10]")
    table = read_tsv(run.evaluation("group_agreement"))
    assert set(table["comparison"]) == {"male-minus-female"}
    assert set(zip(table["method_a"], table["method_b"], strict=True)) == {("GradCAM", "GuidedBackprop")}
    found = table.set_index(["map", "metric", "top_percent"])["value"].sort_index()
    from scipy.stats import spearmanr

    for what in ("t", "difference"):
        paths = (run.group_map(m, "male-minus-female", what) for m in ("GradCAM", "GuidedBackprop"))
        a, b = (load_img(path).get_fdata()[BRAIN] for path in paths)
        assert found.loc[what, "spearman"].item() == pytest.approx(
            spearmanr(np.abs(a), np.abs(b))[0], abs=1e-4
        )
        expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert found.loc[what, "cosine"].item() == pytest.approx(expected, abs=1e-5)
    assert found["t", "dice", 3] > 0.9  # both hold the same planted place, 27 of 960 voxels
    assert set(found.loc["t", "dice"].index) == {3, 10}


def test_mean_spread_and_median_of_a_class(run):
    cfg = settings()
    means, brain_masks, n_empty = write_class_maps(run, find_maps(cfg, run))
    women = [
        np.mean([load_img(map_of(run, f"sub-{i:02d}", seed)).get_fdata() for seed in (0, 1)], axis=0)
        for i in range(0, N, 2)
    ]
    for stat, expected in (
        ("mean", np.mean(women, 0)),
        ("sd", np.std(women, 0, ddof=1)),
        ("median", np.median(women, 0)),
    ):
        path = run.group_map("GradCAM", "class-female", stat)
        np.testing.assert_allclose(load_img(path).get_fdata(), expected, atol=1e-5)
        about = read_json(sidecar(path))
        assert (about["NumberOfSubjects"], about["NumberOfMaps"]) == (12, 24)
    np.testing.assert_allclose(means["female"]["GradCAM"], np.mean(women, 0), atol=1e-5)
    np.testing.assert_array_equal(brain_masks["male"], BRAIN)
    assert n_empty == {"GradCAM": 0, "GuidedBackprop": 0}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scaling=max", r"evaluation\.group\.scaling=max: one of none, l2, rank"),
        (
            "n_perm=18",
            r"n_perm=18: with fewer than 19 permutations no p can reach evaluation\.group\.alpha=0\.05",
        ),
        ("alpha=5", r"evaluation\.group\.alpha=5\.0: a number between 0 and 1"),
        ("cluster_p=3.1", r"evaluation\.group\.cluster_p=3\.1: a number between 0 and 1"),
        ("min_cluster_voxels=0", r"evaluation\.group\.min_cluster_voxels=0: at least 1"),
        ("fwhm_mm=-1", r"evaluation\.group\.fwhm_mm=-1\.0: at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        settings(f"evaluation.group.{override}")


def test_an_unknown_confound_is_named(run):
    cfg = settings("evaluation.group.confounds=[agee]")
    with pytest.raises(ConfigError, match="has no column 'agee'; there are participant_id"):
        evaluate_groups(cfg, run, find_maps(cfg, run))


@pytest.fixture
def number_run(run) -> RunDirectory:
    """The maps explain a dose, which is higher where the maps of one place are higher."""
    for path in run.path.rglob("*_attribution.json"):
        write_json({"TargetName": "dose", "Output": "value", "TargetRule": "dose"}, path)
    table = read_tsv(run.participants)
    dose = 0.5 + table["target"] + np.random.default_rng(5).uniform(0, 0.3, N)
    write_tsv(table.assign(dose=dose, target=dose, label=dose.map("{:g}".format)), run.participants)
    return run


def test_maps_of_a_number_are_tested_for_their_association_with_it(number_run):
    rows = evaluated(number_run, "task=regression", "data.label=dose")
    row = rows.loc["GradCAM"]
    assert row["comparison"] == "contrast-dose"
    assert row["n_subjects"] == N
    assert "n_first" not in rows
    assert row["confounds"] == "age, sex=male, fold=1, fold=2"
    truth = np.zeros(SHAPE, bool)
    truth[PLACE] = True
    t = load_img(number_run.group_map("GradCAM", "contrast-dose", "t")).get_fdata()
    found = t > row["threshold_t"]
    assert found.sum() == row["n_significant"] == 0  # the sexes are the two halves of the doses
    about = read_json(sidecar(number_run.group_map("GradCAM", "contrast-dose", "slope")))
    assert about["Association"] == "dose"
    assert about["NumberOfSubjects"] == N
    assert "associated with the number over participants" in about["MeaningOfP"]

    own = ("task=regression", "data.label=dose", "evaluation.group.confounds=[age,fold]")
    row = evaluated(number_run, *own).loc["GradCAM"]
    t = load_img(number_run.group_map("GradCAM", "contrast-dose", "t")).get_fdata()
    found = t > row["threshold_t"]
    assert not (found & ~truth).any()
    assert found.sum() == row["n_significant"] >= 25
    slope = load_img(number_run.group_map("GradCAM", "contrast-dose", "slope")).get_fdata()
    assert slope[PLACE].mean() == pytest.approx(3, abs=0.4)  # 3 more in the maps for each unit of the dose
    off = settings(*own, "evaluation.group.n_perm=0")
    evaluate_groups(off, number_run, find_maps(off, number_run))
    assert not list((number_run.path / "group").rglob("*contrast*"))


def test_a_number_of_several_sessions_is_averaged():
    from xai_brain.study.confounds import group_participants
    from xai_brain.task.regression import Regression

    table = pd.DataFrame(
        {"participant_id": ["a", "a", "b"], "target": [60.0, 64.0, 30.0], "age": [60, 64, 30]}
    )
    found = group_participants(Regression(("age",)), table)
    assert found[["participant_id", "target"]].to_numpy().tolist() == [["a", 62.0], ["b", 30.0]]

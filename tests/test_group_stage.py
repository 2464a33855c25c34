"""The evaluate stage on classes: what is compared, what is refused, what is written and resumed."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import awkward_affine
from scipy import ndimage

from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import load_img, save_img
from xai_brain.io.problems import DataError
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar, write_json, write_tsv
from xai_brain.study.evaluation import groups as stage
from xai_brain.study.evaluation.class_maps import write_class_maps
from xai_brain.study.evaluation.found_maps import find_maps
from xai_brain.study.evaluation.groups import evaluate_groups, groups_are_compared

SHAPE, N = (10, 12, 14), 24
PLACE = (slice(4, 7), slice(5, 8), slice(6, 9))
BRAIN = np.zeros(SHAPE, bool)
BRAIN[1:-1, 1:-1, 1:-1] = True
COMMON = {"TargetName": "male", "Output": "logit_difference", "TargetRule": "male"}


def settings(*overrides):
    common = ["data=synthetic", "attribution=[grad_cam,guided_backprop]", "seeds=[0,1]"]
    common += ["evaluation.group.n_perm=99", "evaluation.group.images=false"]
    return read_config(compose("run", [*common, *overrides]))


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """Maps of two seeds and two methods; men have more in one place.

    GuidedBackprop explains the predicted class.
    """
    rng, run = np.random.default_rng(0), RunDirectory(tmp_path / "run")
    ids, sex = [f"sub-{i:02d}" for i in range(N)], np.where(np.arange(N) % 2, "male", "female")
    people = {"participant_id": ids, "session_id": "", "label": sex, "sex": sex, "target": np.arange(N) % 2}
    people |= {"age": rng.uniform(20, 80, N), "site": "HH"}
    write_tsv(pd.DataFrame(people), run.participants)
    run.config.write_text("seeds: [0, 1]\n")
    rows = []
    for seed in (0, 1):
        for i, participant_id in enumerate(ids):
            rows.append({"participant_id": participant_id, "session_id": "", "seed": seed, "fold": i % 3})
            save_img((200 * BRAIN).astype(np.uint8), awkward_affine(), run.image(participant_id, ""))
            for method in ("GradCAM", "GuidedBackprop"):
                values = rng.normal(size=SHAPE)
                values[PLACE] += 3 * (i % 2)
                path = run.attribution(participant_id, "", method, seed)
                save_img(values.astype(np.float32), awkward_affine(), path)
                predicted = {**COMMON, "TargetName": str(sex[i]), "TargetRule": "predicted"}
                write_json(COMMON if method == "GradCAM" else predicted, sidecar(path))
    write_tsv(pd.DataFrame(rows), run.predictions)
    return run


def evaluated(run, *overrides):
    cfg = settings(*overrides)
    assert not groups_are_compared(cfg, run, find_maps(cfg, run))
    evaluate_groups(cfg, run, find_maps(cfg, run))
    return read_tsv(run.evaluation("group_tests")).set_index("method")


def map_of(run, participant_id, seed=0):
    return run.attribution(participant_id, "", "GradCAM", seed)


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


def test_nothing_is_done_twice_and_old_results_do_not_stay(run):
    evaluated(run)
    t_path = run.group_map("GradCAM", "male-minus-female", "t")
    before = t_path.stat().st_mtime_ns
    cfg = settings()
    assert groups_are_compared(cfg, run, find_maps(cfg, run))
    assert t_path.stat().st_mtime_ns == before
    rank = settings("evaluation.group.scaling=rank")
    assert not groups_are_compared(rank, run, find_maps(rank, run))
    evaluate_groups(rank, run, find_maps(rank, run))
    assert read_json(sidecar(t_path))["SubjectScaling"] == "rank"
    off = settings("evaluation.group.n_perm=0")
    assert not groups_are_compared(off, run, find_maps(off, run))
    evaluate_groups(off, run, find_maps(off, run))
    assert not t_path.exists()
    assert not run.evaluation("group_tests").exists()
    assert not [name for name in read_json(run.metrics) if name.startswith("group/")]


def test_one_reason_for_several_methods_is_stated_once(run, capsys):
    for path in run.path.rglob("*_desc-GradCAM_attribution.json"):
        write_json(read_json(path.with_name(path.name.replace("GradCAM", "GuidedBackprop"))), path)
    evaluated(run)
    lines = [line for line in capsys.readouterr().out.splitlines() if "not tested" in line]
    assert len(lines) == 1
    assert lines[0].startswith("evaluate: GradCAM, GuidedBackprop: maps are not tested: maps explain")


@pytest.fixture
def tested(monkeypatch):
    """The number of participants in each permutation test that is computed."""
    counts, original = [], stage.voxelwise_test

    def count(maps, rows, *arguments, **settings):
        counts.append(len(rows))
        return original(maps, rows, *arguments, **settings)

    monkeypatch.setattr(stage, "voxelwise_test", count)
    return counts


def tables_of(run):
    names = ("group_tests", "group_clusters", "group_agreement")
    return {name: run.evaluation(name).read_text() for name in names if run.evaluation(name).exists()}


def test_tests_of_other_methods_are_kept_if_a_method_is_added(run, tested, capsys):
    for path in run.path.rglob("*_desc-GuidedBackprop_attribution.json"):
        write_json(COMMON, path)
    alone = "attribution=[grad_cam]"
    evaluated(run, alone)
    assert len(tested) == 1
    t_path = run.group_map("GradCAM", "male-minus-female", "t")
    before = t_path.stat().st_mtime_ns
    evaluated(run)
    assert len(tested) == 2
    assert t_path.stat().st_mtime_ns == before
    assert "existing group tests are kept: GradCAM\n" in capsys.readouterr().out
    kept, metrics = tables_of(run), read_json(run.metrics)
    shutil.rmtree(run.path / "group")
    evaluated(run)
    assert len(tested) == 4
    assert tables_of(run) == kept
    assert read_json(run.metrics) == metrics
    evaluated(run, alone)  # nothing of the other method stays
    assert len(tested) == 4
    assert not [path for path in run.path.rglob("*GuidedBackprop*") if "attributions" not in path.parts]


@pytest.mark.parametrize("change", ["nothing", "map", "result", "participants", "setting"])
def test_a_test_is_kept_unless_anything_it_depends_on_has_changed(run, tested, change):
    evaluated(run)
    more = ["evaluation.top_percents=[7]"]  # by which the stage is to be repeated
    if change == "map":
        path = map_of(run, "sub-03")
        save_img(load_img(path).get_fdata().astype(np.float32)[::-1], awkward_affine(), path)
    if change == "result":
        run.group_map("GradCAM", "male-minus-female", "t").write_bytes(b"altered")
    if change == "participants":
        write_tsv(read_tsv(run.participants).assign(age=np.arange(N)[::-1]), run.participants)
    if change == "setting":
        more.append("evaluation.group.scaling=rank")
    evaluated(run, *more)
    assert len(tested) == (1 if change == "nothing" else 2)


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

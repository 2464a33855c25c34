"""Regional benchmark: doses, residuals, scores by hand, and a small benchmark that is continued."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from xai_brain import RegionalBenchmark, compose, load_cohort, regional_benchmark, run
from xai_brain.atlas.atlas import load_atlas
from xai_brain.atlas.bilateral import labels_of_regions, numbered_regions, regions_with_rest
from xai_brain.atlas.lookup_tables import AtlasError
from xai_brain.config.planted_effect import PlantedEffect, PlantedError
from xai_brain.config.setting import ConfigError
from xai_brain.data.planted.doses import InnerDeformation, IntensityDoses, VolumeDoses, independent_doses
from xai_brain.data.planted.local_change import jacobian_determinant
from xai_brain.data.planted.placement import place_of_mask, world_mm
from xai_brain.io.nifti import Grid, get_grid, load_img
from xai_brain.metrics.regional.scores import RegionalTruth, dilated, mirrored, suprathreshold
from xai_brain.metrics.regional.summary import ALL_REGIONS, LEARNT_REGIONS, summarise
from xai_brain.runs.directory import read_json, read_tsv
from xai_brain.statistics.continuous.residuals import residuals_of_others
from xai_brain.study.benchmarks import units
from xai_brain.study.commands.settings import check_inexpensively

SHAPE = (20, 22, 24)
# voxel 9.5 along x lies at 0 mm, so that the grid is symmetric
AFFINE = np.array([[-2.0, 0, 0, 19], [0, 2, 0, -20], [0, 0, 2, -22], [0, 0, 0, 1]])


# -- regions -----------------------------------------------------------------------------------
def small_atlas():
    labels = np.zeros(SHAPE, np.int16)
    labels[2:5, 5:9, 5:9], labels[15:18, 5:9, 5:9] = 1, 2  # x is flipped: low indices are right
    labels[8:12, 12:18, 12:18] = 3
    names = pd.DataFrame({"index": [1, 2, 3], "name": ["Nucleus_R", "Nucleus_L", "Stem"]})
    return load_atlas(nib.Nifti1Image(labels, AFFINE), names, "small")


def test_a_name_without_its_side_is_both_sides():
    atlas = small_atlas()
    assert labels_of_regions(atlas, ["nucleus", "Stem"]) == {"nucleus": (1, 2), "Stem": (3,)}
    assert labels_of_regions(atlas, ["Nucleus_L"]) == {"Nucleus_L": (2,)}
    one_side = regions_with_rest(atlas, labels_of_regions(atlas, ["Nucleus_L"]))
    assert one_side == {"Nucleus_L": (2,), "Nucleus": (1,), "Stem": (3,)}
    with pytest.raises(AtlasError, match="share a label"):
        labels_of_regions(atlas, ["Nucleus", "Nucleus_L"])
    with pytest.raises(AtlasError, match=r"no region 'Nuclus'; did you mean 'Nucleus'\?"):
        labels_of_regions(atlas, ["Nuclus"])


def test_regions_are_numbered_in_their_order():
    atlas = small_atlas()
    numbered = numbered_regions(atlas, {"Stem": (3,), "Nucleus": (1, 2)}, Grid("small", SHAPE, AFFINE))
    assert numbered[9, 14, 14] == 1
    assert numbered[3, 6, 6] == numbered[16, 6, 6] == 2
    assert numbered[0, 0, 0] == 0


# -- doses -------------------------------------------------------------------------------------
IDS = [f"sub-{i:03d}" for i in range(40)]


def test_doses_are_independent_standard_and_those_of_the_id():
    doses = independent_doses(IDS, list("abcdef"))
    np.testing.assert_allclose(np.corrcoef(doses.to_numpy().T), np.eye(6), atol=1e-12)
    np.testing.assert_allclose(doses.mean(), 0, atol=1e-12)
    np.testing.assert_allclose(doses.std(ddof=0), 1)
    pd.testing.assert_frame_equal(independent_doses(IDS[::-1], list("abcdef")), doses[::-1])
    assert not np.allclose(doses, independent_doses(IDS, list("abcdef"), random_state=1))
    with pytest.raises(PlantedError, match="at least 8"):
        independent_doses(IDS[:7], list("abcdef"))


def test_an_intensity_dose_moves_the_mean_of_its_region_only():
    brain = np.ones(SHAPE, bool)
    brain[3, 6, 6] = False
    masks = {"a": np.zeros(SHAPE, bool), "b": np.zeros(SHAPE, bool)}
    masks["a"][2:5, 5:9, 5:9], masks["b"][10:12, 3:5, 3:5] = True, True
    volume = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    changed = IntensityDoses(masks, 3.0, {"a": 0.5, "b": 0.1}).changed(volume, brain, {"a": 2.0, "b": -1.0})
    np.testing.assert_allclose((changed - volume)[masks["a"] & brain], 3.0, atol=1e-5)
    np.testing.assert_allclose((changed - volume)[masks["b"]], -0.3, atol=1e-5)
    outside = ~(masks["a"] & brain) & ~masks["b"]
    assert (changed == volume)[outside].all()


def test_a_volume_dose_enlarges_the_centre_and_changes_nothing_outside_the_label():
    grid = Grid("small", SHAPE, AFFINE)
    mask = np.zeros(SHAPE, bool)
    mask[4:16, 5:17, 6:18] = True
    volume = np.zeros(SHAPE, np.float32)
    volume[8:12, 9:13, 10:14] = 1.0
    doses = VolumeDoses({"a": [mask]}, AFFINE, {"a": mask}, grid, 20.0, 1.5)
    brain = np.ones(SHAPE, bool)
    larger, smaller = (doses.changed(volume, brain, {"a": dose}) for dose in (1.0, -1.0))
    assert larger.sum() > 1.1 * volume.sum()
    assert smaller.sum() < 0.9 * volume.sum()
    assert (larger == volume)[~mask].all()
    np.testing.assert_allclose(doses.changed(volume, brain, {"a": 0.0}), volume)
    with pytest.raises(PlantedError, match="would fold"):
        VolumeDoses({"a": [mask]}, AFFINE, {"a": mask}, grid, 80.0, 2.0)


def test_the_local_volume_of_a_bent_region_changes_by_the_dose():
    grid = Grid("small", SHAPE, AFFINE)
    mask = np.zeros(SHAPE, bool)
    mask[4:16, 4:9, 6:12], mask[4:9, 4:18, 6:12] = True, True  # its centroid lies near the inner corner
    place = place_of_mask(mask, AFFINE, "bent", PlantedEffect(kind="intensity"))
    change = InnerDeformation(place, grid, 0.3, "bent")
    content = jacobian_determinant(lambda x: change.pullback(x, 0.02), world_mm(grid)[change.core])
    assert (1 / content).mean() == pytest.approx(1.02, abs=0.002)
    outside = world_mm(grid)[~change.zone]
    np.testing.assert_array_equal(change.pullback(outside, 0.3), outside)


# -- residuals ---------------------------------------------------------------------------------
def test_residuals_are_fitted_to_training_participants_only():
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(60, 1))
    measures = pd.DataFrame(shared + rng.normal(size=(60, 3)) + [5, 0, 100], columns=list("abc"))
    is_training = np.arange(60) < 45
    found = residuals_of_others(measures, is_training)
    for name in "abc":
        others = measures.drop(columns=name)[is_training].to_numpy()
        for other in others.T:
            assert np.corrcoef(found.loc[is_training, name], other)[0, 1] == pytest.approx(0, abs=1e-10)
    design = np.column_stack([np.ones(45), measures.loc[is_training, ["b", "c"]]])
    weights = np.linalg.lstsq(design, measures.loc[is_training, "a"], rcond=None)[0]
    expected = measures["a"] - np.column_stack([np.ones(60), measures[["b", "c"]]]) @ weights
    np.testing.assert_allclose(found["a"], expected, atol=1e-10)

    altered = measures.copy()
    altered.loc[50:] += rng.normal(size=(10, 3)) * 10
    again = residuals_of_others(altered, is_training)
    np.testing.assert_array_equal(again[:50], found[:50])  # the fit does not depend on tested participants


def test_residuals_of_dependent_measures_are_refused():
    measures = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "b"])
    measures["c"] = 2 * measures["a"] - measures["b"]
    with pytest.raises(ValueError, match="a: is a linear combination"):
        residuals_of_others(measures, np.ones(20, bool))
    with pytest.raises(ValueError, match="need 5"):
        residuals_of_others(measures, np.arange(20) < 4)
    with pytest.raises(ValueError, match="b: is the same for all"):
        residuals_of_others(measures.assign(b=1.0), np.ones(20, bool))


# -- scores ------------------------------------------------------------------------------------
def without_smoothing(monkeypatch):
    monkeypatch.setattr("xai_brain.metrics.regional.scores.ndimage.gaussian_filter", lambda x, *_, **__: x)


def test_the_threshold_is_the_99th_percentile_of_the_brain(monkeypatch):
    without_smoothing(monkeypatch)
    brain = np.zeros(SHAPE, bool)
    brain[:10, :10, :10] = True  # 1000 voxels
    values = np.zeros(SHAPE)
    values[brain] = -np.arange(1000)
    values[15, 15, 15] = 1e6  # outside the brain
    kept = suprathreshold(values, brain)
    assert kept[brain][989] == 0
    assert kept[brain][990:].tolist() == list(range(990, 1000))
    assert kept[~brain].max() == 0


def test_smoothing_has_a_width_of_two_voxels():
    point = np.zeros((25, 25, 25))
    point[12, 12, 12] = -1
    kept = suprathreshold(point, np.ones(point.shape, bool))
    assert kept[12, 12, 13] / kept[12, 12, 12] == pytest.approx(0.5, abs=0.01)  # half at 1 voxel


def test_scores_by_hand(monkeypatch):
    without_smoothing(monkeypatch)
    brain = np.ones(SHAPE, bool)
    regions = np.zeros(SHAPE, int)
    regions[2:4, 5:7, 5:7], regions[12:14, 15, 15] = 1, 2  # right of the midline, left of it
    truth = RegionalTruth(regions, 1, AFFINE)
    values = np.zeros(SHAPE)
    values[2, 5, 5] = -5.0  # in the region
    values[5, 6, 6] = 2.0  # two voxels away from it
    values[17, 5, 5] = 1.0  # in the mirrored region
    values[13, 15, 15] = 2.0  # in region 2, whose mean of 1 is above 5 / 8
    assert truth.scores(values, brain) == pytest.approx(
        {"rma": 0.5, "top_region": 0.0, "false_positive": 0.3, "rma_mirrored": 0.1}
    )
    values[13, 15, 15] = 1.0  # mean 0.5
    assert truth.scores(values, brain)["top_region"] == 1.0
    n = brain.sum()
    chance = truth.chance(brain)
    assert chance["rma"] == chance["rma_mirrored"] == 8 / n
    assert chance["top_region"] == 1 / 2
    assert chance["false_positive"] == 1 - dilated(truth.region).sum() / n
    empty = truth.scores(np.zeros(SHAPE), brain)
    assert (empty["rma"], empty["top_region"]) == (0, 0)
    assert np.isnan([empty["false_positive"], empty["rma_mirrored"]]).all()


def test_a_region_is_dilated_by_two_steps():
    region = np.zeros(SHAPE, bool)
    region[9, 9, 9] = True
    grown = np.argwhere(dilated(region)) - 9
    assert np.abs(grown).sum(1).max() == 2
    assert len(grown) == 25  # voxels at a city-block distance of at most 2


def test_a_region_is_mirrored_at_the_plane_x_0():
    region = np.zeros(SHAPE, bool)
    region[2:4, 5, 5] = True
    assert np.argwhere(mirrored(region, AFFINE)).tolist() == [[16, 5, 5], [17, 5, 5]]
    shifted = AFFINE.copy()
    shifted[0, 3] = 60.0  # most mirrored voxels lie outside the grid
    assert not mirrored(region, shifted).any()
    both = region | mirrored(region, AFFINE)
    assert RegionalTruth(both.astype(int), 1, AFFINE).mirror is None
    assert RegionalTruth(region.astype(int), 1, AFFINE).mirror is not None


def test_both_means_over_regions_are_reported():
    networks = pd.DataFrame(
        {"region": ["a", "b"], "mean": [0.6, 0.1], "ci_low": [0.4, -0.2], "ci_high": [0.8, 0.4], "n": 4}
    )
    scores = pd.DataFrame(
        [
            {"participant_id": i, "region": region, "method": "M", "metric": "rma", "value": v, "chance": 0.1}
            for region, values in (("a", [0.2, 0.4, 0.6, 0.8]), ("b", [0.0, 0.0, 0.2, 0.2]))
            for i, v in enumerate(values)
        ]
    )
    table = summarise(scores, networks, n_bootstrap=200).set_index(["region", "metric"])
    assert table.loc[("a", "pearson_r"), ["method", "mean", "chance"]].tolist() == ["network", 0.6, 0]
    assert table.loc[("a", "rma"), "mean"] == pytest.approx(0.5)
    assert table.loc[(ALL_REGIONS, "rma"), "mean"] == pytest.approx(0.3)
    assert table.loc[(LEARNT_REGIONS, "rma"), "mean"] == pytest.approx(0.5)
    row = table.loc[(ALL_REGIONS, "rma")]
    assert 0.1 <= row["ci_low"] < row["mean"] < row["ci_high"] <= 0.5
    assert (row["n"], row["chance"]) == (4, pytest.approx(0.1))


# -- the benchmark -----------------------------------------------------------------------------
SETTINGS = [
    "experiment=siegel",
    "regional.regions=[Nucleus,Stem]",
    "attribution=[saliency,grad_cam]",
    "~attribution.MeaningfulPerturbationQuick",
    "~attribution.MeaningfulPerturbationFine",
    "model.channels=2",
    "trainer.max_epochs=1",
    "trainer.tensorboard=false",
    "evaluation.n_bootstrap=50",
    "data.num_workers=1",
]


@pytest.fixture(scope="module")
def small_cohort(tmp_path_factory):
    """Folder of 24 embedded participants with measures, and an atlas of three labels."""
    folder = tmp_path_factory.mktemp("regional")
    cohort = load_cohort("synthetic", n_subjects=24, cache_dir=folder / "cache")
    root = cohort.table["t1w_path"].map(str).iloc[0].split("/sub-")[0]
    grid = get_grid("t1w_4mm")
    labels = np.zeros(grid.shape, np.int16)
    centre = np.rint(np.linalg.inv(grid.affine) @ [0, -20, 0, 1])[:3].astype(int)
    for index, step in ((1, 6), (2, -6), (3, 0)):
        x, y, z = centre + np.array([step, 0, 4 if index == 3 else 0])
        labels[x - 2 : x + 3, y - 2 : y + 3, z - 2 : z + 3] = index
    path = folder / "atlas-small_dseg.nii.gz"
    nib.Nifti1Image(labels, grid.affine).to_filename(path)
    names = pd.DataFrame({"index": [1, 2, 3], "name": ["Nucleus_R", "Nucleus_L", "Stem"]})
    names.to_csv(folder / "atlas-small_dseg.tsv", sep="\t", index=False)
    return SimpleNamespace(root=root, atlas=path, cache=folder / "cache", labels=labels)


def settings_of(cohort, run_dir, *more):
    of_cohort = [
        f"data.root={cohort.root}",
        f"regional.atlas={cohort.atlas}",
        f"data.cache_dir={cohort.cache}",
    ]
    return compose("run", [*SETTINGS, *of_cohort, f"run_dir={run_dir}", *more])


def times(folder, pattern):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob(pattern))}


@pytest.fixture(scope="module")
def interrupted(small_cohort, tmp_path_factory):
    """Folder of a benchmark that was interrupted before the maps of its second region; times of its files."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    explain_run = units.explain_run

    def explain(config):
        if config.name == "Stem":
            raise KeyboardInterrupt
        return explain_run(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "explain_run", explain)
        with pytest.raises(KeyboardInterrupt):
            run(settings_of(small_cohort, folder))
    assert not (folder / "siegel.tsv").exists()
    return folder, times(folder, "*.ckpt") | times(folder, "*_attribution.nii.gz") | times(
        folder, "*_T1w.nii.gz"
    )


@pytest.fixture(scope="module")
def finished(interrupted, small_cohort):
    """A finished benchmark of two regions; do not change it except for what a repeated command restores."""
    return run(settings_of(small_cohort, interrupted[0]))


@pytest.mark.slow
def test_an_interrupted_benchmark_goes_on_with_what_is_missing(interrupted, finished):
    before = interrupted[1]
    assert sum(path.suffix == ".ckpt" for path in before) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(finished.path.rglob("*_attribution.nii.gz"))) == 2 * 4 * 5


@pytest.mark.slow
def test_a_benchmark_has_a_row_for_every_region_method_and_metric(finished):
    table = read_tsv(finished.path / "siegel.tsv")
    assert list(table) == ["region", "method", "metric", "mean", "ci_low", "ci_high", "n", "chance"]
    methods = {"Saliency", "GradCAM", "CorrelationMap", "OppositeDifference"}
    assert set(table["method"]) == {*methods, "network"}
    assert {"Nucleus", "Stem", ALL_REGIONS} <= set(table["region"])
    assert (table.loc[table["method"] == "network", "metric"] == "pearson_r").all()
    rma = table[(table["metric"] == "rma") & (table["region"] == "Stem")]
    assert len(rma) == len(methods)
    assert (rma["n"] == 5).all()
    assert rma["mean"].between(0, 1).all()
    page = finished.report.read_text()
    assert all(text in page for text in ("0.051", "LRP 0.198", "Saliency", "Stem", "2508.02560"))
    assert (finished.path / "siegel.png").stat().st_size > 10_000


@pytest.mark.slow
def test_images_of_all_regions_are_the_same_and_their_doses_are_uncorrelated(finished, small_cohort):
    participants = read_tsv(finished.path / "cohort" / "participants.tsv")
    assert np.corrcoef(participants["Nucleus"], participants["Stem"])[0, 1] == pytest.approx(0, abs=1e-4)
    runs = [finished.path / "regions" / name for name in ("Nucleus", "Stem")]
    first, second = (read_json(path / "provenance.json")["inputs_sha256"] for path in runs)
    assert first == second
    folds = [read_tsv(path / "folds.tsv") for path in runs]
    pd.testing.assert_frame_equal(*folds)
    row = participants.set_index("participant_id").iloc[0]
    image = next((finished.path / "cohort" / row.name).rglob("*_T1w.nii.gz"))
    changed = np.asanyarray(load_img(image).dataobj)
    table = (
        load_cohort("bids", small_cohort.root, cache_dir=small_cohort.cache)
        .prepare("t1w_4mm", n_jobs=1)
        .table
    )
    original = np.load(table.set_index("participant_id").loc[row.name, "volume_path"])
    difference = changed - original
    assert np.abs(difference[small_cohort.labels == 0]).max() < 1e-5
    steps = {
        name: difference[small_cohort.labels == label].mean() for name, label in (("Nucleus", 1), ("Stem", 3))
    }
    assert all(np.sign(step) == np.sign(row[name]) for name, step in steps.items())


@pytest.mark.slow
def test_a_map_that_was_removed_is_made_again(finished, small_cohort):
    before = (finished.path / "siegel.tsv").read_text()
    one_map = next((finished.path / "regions" / "Stem").rglob("*desc-Saliency_attribution.nii.gz"))
    one_map.unlink()
    (finished.path / "siegel.tsv").unlink()
    run(settings_of(small_cohort, finished.path))
    assert one_map.exists()
    assert (finished.path / "siegel.tsv").read_text() == before
    result = RegionalBenchmark(finished.path)
    assert result.study("Stem").maps.table["method"].nunique() == 4
    assert "of 2 regions learned" in repr(result)
    assert len(result.plot().axes) == 2


@pytest.mark.slow
def test_other_settings_in_the_same_folder_are_refused(finished, small_cohort):
    with pytest.raises(ConfigError, match=r"other settings or images.*overwrite=true"):
        run(settings_of(small_cohort, finished.path, "regional.size=4"))
    with pytest.raises(ConfigError, match="only `xai-brain run` continues"):
        check_inexpensively("report", [f"run_dir={finished.path}"])


@pytest.mark.slow
def test_measures_of_the_table_are_used_in_python(small_cohort, tmp_path):
    ids = read_tsv(Path(small_cohort.root) / "participants.tsv")["participant_id"]
    rng = np.random.default_rng(0)
    shared = rng.normal(size=len(ids))
    measures = pd.DataFrame(
        {
            "participant_id": ids,
            "left": shared + rng.normal(size=len(ids)),
            "stem": shared + rng.normal(size=len(ids)),
        }
    )
    measures.to_csv(tmp_path / "measures.tsv", sep="\t", index=False)
    cohort = load_cohort(
        "bids", small_cohort.root, cache_dir=small_cohort.cache,
        tables=["participants.tsv", str(tmp_path / "measures.tsv")],
    ).prepare("t1w_4mm", n_jobs=1)  # fmt: skip
    result = regional_benchmark(
        cohort, small_cohort.atlas, ["Nucleus_L", "Stem"], columns=["left", "stem"], methods=["Saliency"],
        run_dir=tmp_path / "measured", model_settings={"channels": 2}, n_bootstrap=20,
        trainer={"max_epochs": 1, "tensorboard": False},
    )  # fmt: skip
    written = read_tsv(tmp_path / "measured" / "cohort" / "participants.tsv").set_index("participant_id")
    train = written["division"] == "train"
    own = measures.set_index("participant_id").loc[written.index]
    assert np.corrcoef(written.loc[train, "Nucleus_L"], own.loc[train, "stem"])[0, 1] == pytest.approx(
        0, abs=1e-4
    )
    assert np.corrcoef(written["Nucleus_L"], own["left"])[0, 1] > 0.5
    mirrored_rows = result.table[result.table["metric"] == "rma_mirrored"]
    assert set(mirrored_rows["region"]) == {"Nucleus_L", ALL_REGIONS} | (
        {LEARNT_REGIONS} if "Nucleus_L" in result.learned_regions else set()
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("regional.regions=[Stem]", "two or more"),
        ("regional.atlas=null", "no value for regional.atlas"),
        ("regional.columns=[a]", "one column for each of the 2"),
        ("regional.kind=shape", "one of intensity, volume"),
        ("shard=1/2", "is not divided"),
        ("seeds=[0,1]", "one network per region"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(override, message, tmp_path):
    given = ["data.root=.", "regional.atlas=a.nii.gz", f"run_dir={tmp_path / 'new'}"]
    with pytest.raises(ConfigError, match=message):
        run(compose("run", [*SETTINGS, *given, override]))

"""A small regional benchmark: it is continued, its table, and settings that are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from xai_brain import RegionalBenchmark, compose, load_cohort, regional_benchmark, run
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid, load_img
from xai_brain.metrics.regional.summary import ALL_REGIONS, LEARNT_REGIONS
from xai_brain.runs.directory import read_json, read_tsv
from xai_brain.study.benchmarks import units
from xai_brain.study.commands.settings import check_inexpensively

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

"""The stage that tests networks through masks of their training subjects, and training again."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from xai_brain import compose
from xai_brain.config.saved import stage_settings
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import load_img, save_img
from xai_brain.metrics.mask_validation import CONDITION
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar
from xai_brain.stages.report import report
from xai_brain.stages.validate import validate
from xai_brain.study.evaluation.context import EvaluationContext
from xai_brain.study.participants import prepared_cohort, same_cohort
from xai_brain.study.training.folds import split_prepared_fold
from xai_brain.study.training.masked_training import (
    masked_volumes,
    read_retrained_predictions,
    retrain_masked,
)
from xai_brain.study.training.networks import load_networks


def test_settings_that_cannot_be():
    for text, message in [
        ("areas=[]", "one or more different sizes are needed"),
        ("areas=[5,5]", "one or more different sizes are needed"),
        ("areas=[100]", "a number between 0 and 100 is needed"),
        ("removal=mean", "one of zero, blur, training_mean"),
        ("n_random=0", "at least 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            compose("validate", ["data=synthetic", f"evaluation.masks.{text}"])


SETTINGS = [
    "evaluation.masks.areas=[5,20]",
    "evaluation.masks.n_subjects=3",
    "evaluation.masks.n_random=2",
    "evaluation.n_bootstrap=50",
]


@pytest.fixture(scope="module")
def validated(small_run, tmp_path_factory):
    """A copy of the small run without any map of a test subject, and with masks."""
    path = tmp_path_factory.mktemp("masks") / "run"
    shutil.copytree(small_run.path, path)
    shutil.rmtree(path / "attributions")
    img = load_img(next((path / "images").glob("*_T1w.nii.gz")))
    labels = np.zeros(img.shape, np.uint8)
    middle = img.shape[2] // 2
    labels[:, :, middle : middle + 2], labels[:, :, middle + 2] = 1, 5  # a tenth of the brain
    save_img(labels, img.affine, path.parent / "atlas.nii.gz")
    (path.parent / "atlas.tsv").write_text("index\tname\n1\tlower\n5\tupper\n")
    atlas = [f"evaluation.atlas={path.parent / 'atlas.nii.gz'}"]
    atlas += [f"evaluation.atlas_table={path.parent / 'atlas.tsv'}"]
    return validate(stage_settings("validate", [f"run_dir={path}", *SETTINGS, *atlas]))


def context_of(run):
    cfg = stage_settings("validate", [f"run_dir={run.path}", *SETTINGS])
    cohort = same_cohort(prepared_cohort(cfg, run), run)
    ((network,), *_) = load_networks(cfg, run).values()
    rows = read_tsv(run.predictions).query("fold == 0 and seed == 0").reset_index(drop=True)
    return EvaluationContext(cfg, run, cohort, network, network.load(cfg), rows)


def test_only_training_subjects_are_explained(validated):
    cfg = stage_settings("validate", [f"run_dir={validated.path}"])
    folds, people = read_tsv(validated.folds), read_tsv(validated.participants)
    records = sorted((validated.path / "evaluation" / "masks").glob("desc-*_fold-*.json"))
    assert len(records) == 3 * 2  # methods and folds
    for record in records:
        fold = int(record.stem.rpartition("-")[2])
        parts = split_prepared_fold(cfg, people, folds, fold)
        explained = set(read_json(record)["Explained"])
        assert len(explained) == 6
        assert explained <= set(parts["train"]["participant_id"])
        assert not explained & set(parts["test"]["participant_id"])
    assert not (validated.path / "attributions").exists()  # none was needed or made


def test_tables_images_and_figures(validated):
    table, masked = (read_tsv(validated.evaluation(f"mask_{name}")) for name in ("validation", "predictions"))
    metrics, predictions = read_json(validated.metrics), read_tsv(validated.predictions)
    whole = table[table["control"] == "none"].set_index("metric")
    for metric in ("accuracy", "balanced_accuracy", "auroc"):
        assert whole.loc[metric, "value"] == pytest.approx(metrics[f"test/{metric}"], abs=1e-9)
    names = {column.removeprefix("prob_") for column in predictions if column.startswith("prob_")}
    maps = table[table["control"] == "map"]
    assert set(maps["mask"]) == {"joint", *names}
    assert set(maps["method"]) == {"GradCAM", "GuidedBackprop", "MeaningfulPerturbation"}
    assert len(maps) == 3 * 3 * 2 * 2 * 3  # methods, masks, areas, sides, metrics
    assert maps["above_random"].notna().all()
    assert not table["retrained"].any()
    regions = table[table["control"] == "regions"]
    assert set(regions["area_percent"]) == {5.0}  # the regions end before a fifth of the brain
    assert len(regions) == 3 * 2 * 3  # methods, sides, metrics
    assert regions["above_random"].notna().all()
    conditions = masked.groupby([*CONDITION, "draw", "seed"])["participant_id"]
    assert (conditions.nunique() == predictions["participant_id"].nunique()).all()
    row = maps.query("method == 'GradCAM' and mask == 'joint' and kept == 'mask' and area_percent == 20")
    value = row.set_index("metric").loc["auroc", "value"]
    assert metrics["masks/GradCAM/keep_20/auroc"] == pytest.approx(value)
    image = next(iter((validated.path / "images").glob("*_T1w.nii.gz")))
    for area in (5, 20):
        path = validated.group_map("GradCAM", f"mask-joint-top{area}", "share")
        shares = np.asanyarray(load_img(path).dataobj)
        np.testing.assert_allclose(load_img(path).affine, load_img(image).affine)
        assert set(np.unique(shares)) <= {0, 0.5, 1}  # of two networks
        brain = load_img(next((validated.path / "evaluation" / "masks").glob("*GradCAM*joint_place.nii.gz")))
        n_brain = (np.asanyarray(brain.dataobj) > 0).sum()
        assert shares.sum() / n_brain == pytest.approx(area / 100, rel=0.02)
        assert read_json(sidecar(path))["NumberOfNetworks"] == 2


def test_a_second_start_does_what_is_missing_only(validated, capsys):
    run = RunDirectory(validated.path)
    again = [f"run_dir={run.path}"]
    capsys.readouterr()
    validate(stage_settings("validate", again))
    assert "validate: nothing to do" in capsys.readouterr().out
    tables = [run.evaluation(f"mask_{name}") for name in ("validation", "predictions")]
    before = [path.read_bytes() for path in tables]
    units = {path: path.stat().st_mtime_ns for path in (run.path / "evaluation" / "masks").glob("desc-*.tsv")}
    lost = run.path / "evaluation" / "masks" / "desc-GradCAM_seed-0_fold-1.json"
    lost.unlink()  # as after a kill in the middle of it
    validate(stage_settings("validate", again))
    assert [path.read_bytes() for path in tables] == before
    changed = {path.stem for path, time in units.items() if path.stat().st_mtime_ns != time}
    assert changed == {lost.stem}


def test_the_report_tells_of_the_masks(validated):
    html = report(stage_settings("report", [f"run_dir={validated.path}"])).report.read_text()
    section = html.split('id="masks"')[1].split("</section>")[0]
    table = read_tsv(validated.evaluation("mask_validation"))
    shown = table[table["metric"] == "auroc"].iloc[0]
    assert f"{shown['value']:.2f}" in section


def test_methods_and_classes_that_do_not_exist(validated):
    for text, message in [
        ("methods=[]", "at least one is needed"),
        ("methods=[GradCam]", "no 'GradCam'"),
        ("which=[women]", "no 'women'; there are joint"),
    ]:
        cfg = stage_settings("validate", [f"run_dir={validated.path}", f"evaluation.masks.{text}"])
        before = validated.config.read_bytes()
        with pytest.raises(ConfigError, match=message):
            validate(cfg)
        assert validated.config.read_bytes() == before  # nothing of it is kept


def test_a_run_without_networks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="masks need those of `xai-brain train`"):
        validate(compose("validate", ["data=synthetic", f"run_dir={tmp_path / 'nothing'}"]))
    assert not (tmp_path / "nothing").exists()


# -- training again --------------------------------------------------------------------------------
def test_masked_volumes_are_the_images_inside_and_the_training_mean_outside(validated, tmp_path):
    context = context_of(validated)
    left = np.zeros(context.inputs.shape[2:], bool)
    left[10:20, 15:25, 12:20] = True
    part = context.training.iloc[:2]
    masked = masked_volumes(context, part, left, tmp_path / "part")
    mean = np.mean([np.load(path) for path in context.training["volume_path"]], axis=0)
    for old, new in zip(part["volume_path"], masked["volume_path"], strict=True):
        image, found = np.load(old), np.load(new)
        assert (found[left] == image[left]).all()
        np.testing.assert_allclose(found[~left], mean[~left], atol=1e-5)
    assert (masked["target"] == part["target"]).all()


@pytest.mark.slow
def test_training_again_on_whole_images_gives_the_network_of_the_run(validated, tmp_path):
    context = context_of(validated)
    path = tmp_path / "again.tsv"
    retrain_masked(context, np.ones(context.inputs.shape[2:], bool), path)
    retrained = read_retrained_predictions(context.rows, path)
    np.testing.assert_allclose(retrained, context.rows[retrained.columns], atol=1e-5)


@pytest.mark.slow
def test_training_again_is_told_apart_and_not_repeated(validated, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(validated.path, path)
    more = [
        "evaluation.masks.retrain=true",
        "evaluation.masks.methods=[GradCAM]",
        "evaluation.masks.areas=[20]",
    ]
    more += ["evaluation.masks.which=[joint]"]  # and no regions: they end before a fifth of the brain
    run = validate(stage_settings("validate", [f"run_dir={path}", *more]))
    table = read_tsv(run.evaluation("mask_validation"))
    again = table[table["retrained"]]
    assert set(again["control"]) == {"map", "random"}
    assert set(again["kept"]) == {"mask", "complement"}
    assert again.loc[again["control"] == "map", "above_random"].notna().all()
    assert "masks/GradCAM/keep_20_retrained/auroc" in read_json(run.metrics)
    assert len(list((path / "evaluation" / "masks" / "retrained").glob("*.tsv"))) == 2 * 2 * 2
    capsys.readouterr()
    validate(stage_settings("validate", [f"run_dir={path}"]))
    assert "nothing to do" in capsys.readouterr().out

"""The whole path on a small cohort: what it leaves, resuming, repeating, moving, refusing."""

from __future__ import annotations

import json
import re
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL, add_subject
from omegaconf import OmegaConf

from xai_brain import BrainClassifier, compose, run
from xai_brain.config.checks import read_config
from xai_brain.config.saved import saved_settings
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import GRIDS
from xai_brain.io.problems import DataError
from xai_brain.runs.directory import read_json, read_tsv, sidecar, write_json
from xai_brain.stages.evaluate import evaluate
from xai_brain.stages.explain import explain
from xai_brain.stages.report import report
from xai_brain.stages.train import train

METHODS = ("GradCAM", "GuidedBackprop", "MeaningfulPerturbation")


def contents(folder, pattern="**/*.nii.gz"):
    return {str(path.relative_to(folder)): file_hash(path) for path in sorted(folder.glob(pattern))}


def times(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }


def again(run_dir, *overrides):
    return compose("run", [*SMALL, f"run_dir={run_dir.path}", *overrides])


def test_the_files_of_the_design_are_there(small_run):
    for path in (small_run.config, small_run.provenance, small_run.participants, small_run.folds):
        assert path.exists()
    assert len(read_tsv(small_run.participants)) == 24
    assert small_run.report.stat().st_size > 100_000
    for fold in (0, 1):
        assert small_run.checkpoint(fold, 0).exists()
    maps = list((small_run.path / "attributions").rglob("*_attribution.nii.gz"))
    assert len(maps) == 24 * 3
    assert len(list((small_run.path / "group").rglob("*+mean_statmap.nii.gz"))) == 3 * 2 + 1
    assert len(list((small_run.path / "images").glob("*_T1w.nii.gz"))) == 24
    assert not list(small_run.path.rglob(".partial-*"))


def test_metrics_hold_the_promised_names(small_run):
    metrics = read_json(small_run.metrics)
    wanted = {"test/balanced_accuracy", "test/auroc", "test/auroc_pooled", "localization/chance"}
    wanted |= {f"localization/{method}/{metric}" for method in METHODS for metric in ("rma", "rra")}
    wanted |= {f"seconds/{stage}" for stage in ("train", "explain", "evaluate", "report")}
    assert wanted <= set(metrics)
    assert 0.002 < metrics["localization/chance"] < 0.05


def test_every_subject_is_predicted_and_explained_by_the_model_that_did_not_see_it(small_run):
    predictions, folds = read_tsv(small_run.predictions), read_tsv(small_run.folds)
    assert sorted(predictions["participant_id"]) == sorted(folds["participant_id"])
    merged = predictions.merge(folds, on="participant_id", suffixes=("", "_of_folds"))
    assert (merged["fold"] == merged["fold_of_folds"]).all()
    for row in merged.itertuples():
        path = small_run.attribution(row.participant_id, row.session_id, "GradCAM", 0)
        about = read_json(sidecar(path))
        assert about["ParticipantId"] == row.participant_id
        assert about["Fold"] == row.fold
        assert about["CheckpointSHA256"] == file_hash(small_run.checkpoint(row.fold, 0))
        probabilities = [row.prob_female, row.prob_male]
        assert about["Target"] == int(np.argmax(probabilities))
        assert about["TargetName"] == ["female", "male"][about["Target"]]
        assert about["TargetProbability"] == pytest.approx(max(probabilities), abs=1e-5)


def test_a_saved_map_is_what_the_method_gives_for_the_prepared_volume(small_run):
    from xai_brain import GradCAM
    from xai_brain.attribution import ClassScore

    row = read_tsv(small_run.predictions).iloc[3]
    path = small_run.attribution(row.participant_id, row.session_id, "GradCAM", 0)
    img = nib.load(path)
    assert img.get_data_dtype() == np.float32
    np.testing.assert_allclose(img.affine, GRIDS["t1w_4mm"].affine)
    checkpoint = small_run.checkpoint(int(row.fold), 0)
    classifier = BrainClassifier.load_from_checkpoint(checkpoint, weights_only=True).eval()
    from xai_brain.study.participants import prepared_cohort

    cohort = prepared_cohort(read_config(compose("run", SMALL)), small_run).set_index("participant_id")
    volume = torch.from_numpy(np.load(cohort.loc[row.participant_id, "volume_path"]))[None, None]
    with torch.no_grad():
        probabilities = classifier(volume).softmax(1)[0]
    assert probabilities[1].item() == pytest.approx(row.prob_male, abs=1e-4)
    expected = GradCAM(ClassScore(classifier)).attribute(volume, int(probabilities.argmax()))
    np.testing.assert_allclose(img.get_fdata(), expected[0, 0], atol=1e-4 * float(expected.abs().max()))


def test_masks_and_truth_have_the_values_that_their_names_say(small_run):
    path = next((small_run.path / "attributions").rglob("*desc-MeaningfulPerturbation_attribution.nii.gz"))
    values = nib.load(path).get_fdata()
    assert values.min() >= 0
    assert values.max() <= 1
    assert read_json(sidecar(path))["Output"] == "probability"
    for truth in (small_run.path / "images").glob("*_mask.nii.gz"):
        assert set(np.unique(nib.load(truth).get_fdata())) == {0, 1}
    image = nib.load(next((small_run.path / "images").glob("*_T1w.nii.gz")))
    assert image.get_data_dtype() == np.uint8


def test_comparison_tables_are_tidy(small_run):
    table = read_tsv(small_run.evaluation("agreement"))
    assert set(table["metric"]) == {"dice", "iou", "spearman", "cosine", "voxel_agreement"}
    assert set(table["level"]) == {"subject", "class"}
    dice = table[table["metric"] == "dice"]
    assert set(dice["top_percent"]) == {1, 2, 5, 10, 20, 50}
    pairs = dice.groupby(["name", "method_a", "method_b"]).ngroups
    assert pairs == (24 + 2) * 3
    local = read_tsv(small_run.evaluation("localization"))
    assert len(local) == 24 * 3 * 3
    summary = read_tsv(small_run.evaluation("summary"))
    assert ((summary["ci_low"] <= summary["mean"]) & (summary["mean"] <= summary["ci_high"])).all()


def test_a_second_run_does_nothing(copied, capsys):
    before = times(copied.path)
    run(again(copied))
    assert times(copied.path) == before
    assert capsys.readouterr().out.count("nothing to do") == 4


@pytest.mark.slow
def test_what_is_missing_is_made_again_with_the_same_values(copied):
    maps = contents(copied.path / "attributions")
    for path in sorted((copied.path / "attributions").glob("sub-*"))[:3]:
        shutil.rmtree(path)
    copied.checkpoint(1, 0).unlink()
    copied.predictions.unlink()
    kept = copied.checkpoint(0, 0).stat().st_mtime_ns
    before = read_tsv(copied.folds)
    run(again(copied))
    assert copied.checkpoint(0, 0).stat().st_mtime_ns == kept
    pd.testing.assert_frame_equal(read_tsv(copied.folds), before)
    assert contents(copied.path / "attributions") == maps


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_does_not(small_run, tmp_path):
    twin = run(compose("run", [*SMALL, f"run_dir={tmp_path / 'twin'}"]))
    assert twin.predictions.read_bytes() == small_run.predictions.read_bytes()
    assert contents(twin.path / "attributions") == contents(small_run.path / "attributions")
    assert contents(twin.path / "group") == contents(small_run.path / "group")
    other = train(compose("run", [*SMALL, f"run_dir={tmp_path / 'other'}", "seeds=[7]"]))
    assert other.predictions.read_bytes() != small_run.predictions.read_bytes()


@pytest.mark.slow
def test_a_copied_run_opens_elsewhere(copied, small_run, monkeypatch, tmp_path):
    monkeypatch.setenv("XAI_BRAIN_CACHE", str(tmp_path / "no cache here"))
    for path in (copied.report, copied.evaluation("summary"), copied.path / "evaluation" / "inputs.json"):
        path.unlink()
    config = saved_settings(copied.config)
    evaluate(config)
    report(config)
    assert copied.report.exists()
    pd.testing.assert_frame_equal(
        read_tsv(copied.evaluation("summary")), read_tsv(small_run.evaluation("summary"))
    )


def test_nothing_in_a_run_points_outside(small_run):
    assert not [path for path in small_run.path.rglob("*") if path.is_symlink()]
    for path in small_run.path.rglob("*"):
        if path.suffix in (".json", ".tsv", ".yaml", ".html", ".csv"):
            text = path.read_text()
            assert str(small_run.path.parent) not in text, path
            assert not re.search(r"[\s\"'=]/(tmp|home|root|usr|work|var)/", text), path
    for path in (small_run.path / "checkpoints").glob("*.ckpt"):
        checkpoint = torch.load(path, weights_only=True)
        assert "/" not in json.dumps(checkpoint["hyper_parameters"])


def test_a_method_is_added_without_touching_the_others(copied):
    before = times(copied.path / "attributions")
    cfg = again(copied, "+attribution.Saliency={_target_: captum.attr.Saliency, _partial_: true}")
    explain(cfg)
    after = times(copied.path / "attributions")
    assert {name: after[name] for name in before} == before
    new = set(after) - set(before)
    assert len(new) == 2 * 24
    assert all("desc-Saliency_attribution" in name for name in new)
    assert set(OmegaConf.load(copied.config).attribution) == {*METHODS, "Saliency"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("trainer.lr=0.5", r"trainer\.lr: 0\.002 before, 0\.5 now"),
        ("data.cohort.n_subjects=26", r"data\.cohort\.n_subjects: 24 before, 26 now"),
        ("explain.target=male", r"explain\.target: predicted before, male now"),
        ("attribution.MeaningfulPerturbation.n_iter=5", r"n_iter: 4 before, 5 now"),
    ],
)
def test_a_contradiction_is_refused_with_the_difference(copied, change, message):
    before = times(copied.path)
    with pytest.raises(ConfigError, match=message):
        run(again(copied, change))
    assert times(copied.path) == before


@pytest.mark.slow
def test_overwriting_one_method_keeps_the_others(copied):
    before = contents(copied.path / "attributions")
    run(again(copied, "attribution.MeaningfulPerturbation.n_iter=5", "overwrite=true"))
    after = contents(copied.path / "attributions")
    changed = {name for name in before if after[name] != before[name]}
    assert {name for name in before if "desc-MeaningfulPerturbation" in name} == changed


def test_a_mistake_before_training_can_be_corrected(tmp_path):
    given = [*SMALL, f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(DataError, match="no column 'sexe'"):
        train(compose("run", [*given, "data.label=sexe"]))
    with pytest.raises(ConfigError, match=r"attribution\.X: cannot be created"):
        train(compose("run", [*given, "+attribution.X={_target_: captum.attr.Salency, _partial_: true}"]))
    with pytest.raises(DataError, match="smallest class has only"):
        train(compose("run", [*given, "folds.n_folds=20"]))
    assert train(compose("run", given)).predictions.exists()


def test_a_folder_of_something_else_is_never_taken_for_a_run(bids_tree):
    before = times(bids_tree)
    for run_dir in (bids_tree, bids_tree / "."):
        for extra in ([], ["overwrite=true"]):
            with pytest.raises(ConfigError, match="folder of the data"):
                train(compose("run", ["data=bids", f"data.root={bids_tree}", f"run_dir={run_dir}", *extra]))
    with pytest.raises(ConfigError, match=r"holds participants\.tsv but no run of xai_brain"):
        train(compose("run", [*SMALL, f"run_dir={bids_tree}", "overwrite=true"]))
    (bids_tree / "config.yaml").write_text("mine: true")
    with pytest.raises(ConfigError, match="does not belong to a run of xai_brain"):
        train(compose("run", [*SMALL, f"run_dir={bids_tree}", "overwrite=true"]))
    (bids_tree / "config.yaml").unlink()
    assert times(bids_tree) == before


def test_folds_that_are_trained_stay_true_when_the_cohort_changes(bids_tree, tmp_path):
    for i in range(6, 12):
        add_subject(bids_tree, i, "MF"[i % 2])
    (hidden,) = (bids_tree / "sub-07" / "anat").glob("*.nii.gz")
    content = hidden.read_bytes()
    hidden.write_bytes(content[:300])
    settings = [*SMALL[2:6], "data=bids", f"data.root={bids_tree}", "preprocessing=t1w_4mm"]
    settings += [f"run_dir={tmp_path / 'run'}", "evaluation.n_bootstrap=50", "data.on_error=skip"]
    begun = train(compose("run", settings))
    folds, first = read_tsv(begun.folds), begun.checkpoint(0, 0).read_bytes()
    # interrupted after the first fold; meanwhile a broken image was mended
    begun.predictions.unlink()
    begun.checkpoint(1, 0).unlink()
    hidden.write_bytes(content)
    train(compose("run", settings))
    pd.testing.assert_frame_equal(read_tsv(begun.folds), folds)
    assert begun.checkpoint(0, 0).read_bytes() == first
    assert "sub-07" not in set(read_tsv(begun.predictions)["participant_id"])
    # the cohort may move, but another one is refused
    shutil.copytree(bids_tree, tmp_path / "moved")
    train(compose("run", [*settings, f"data.root={tmp_path / 'moved'}"]))
    shutil.copytree(bids_tree, tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "sub-03")
    with pytest.raises(DataError, match="sub-03: can no longer be used"):
        train(compose("run", [*settings, f"data.root={tmp_path / 'other'}"]))


def test_stages_take_what_they_may_and_keep_what_is_there(copied, tmp_path):
    from xai_brain.config.saved import stage_settings

    given = f"run_dir={copied.path}"
    kept = stage_settings("explain", [given]).attribution["MeaningfulPerturbation"]
    again_chosen = stage_settings("explain", [given, "attribution=[meaningful_perturbation,grad_cam]"])
    assert again_chosen.attribution["MeaningfulPerturbation"] == kept
    elsewhere = str(tmp_path)
    assert stage_settings("explain", [given, f"data.root={elsewhere}"]).data.root == elsewhere
    trusted = ["+attribution.Mine={_target_: conftest.ToyNet}", "trusted_modules=[conftest]"]
    assert "Mine" in stage_settings("explain", [given, *trusted]).attribution
    with pytest.raises(ConfigError, match=r"explain\.target: predicted before, male now"):
        explain(stage_settings("explain", [given, "explain.target=male"]))
    assert stage_settings("explain", [given, "overwrite=true"]).overwrite


def test_a_map_that_is_gone_or_of_another_network_is_made_again(copied):
    maps = contents(copied.path / "attributions")
    paths = sorted((copied.path / "attributions").rglob("*desc-GradCAM_attribution.nii.gz"))
    paths[0].unlink()
    about = read_json(sidecar(paths[1]))
    write_json({**about, "CheckpointSHA256": "of another network"}, sidecar(paths[1]))
    explain(again(copied))
    assert contents(copied.path / "attributions") == maps
    assert read_json(sidecar(paths[1])) == about


def test_explaining_needs_a_trained_run(tmp_path):
    with pytest.raises(ConfigError, match=r"predictions\.tsv: does not exist; run `xai-brain train` first"):
        explain(compose("run", [*SMALL, f"run_dir={tmp_path}"]))
    with pytest.raises(ConfigError, match="run `xai-brain train` first"):
        evaluate(compose("run", [*SMALL, f"run_dir={tmp_path}"]))


def test_a_bids_cohort_with_bad_inputs_goes_on_when_asked(bids_tree, tmp_path):
    victim = next((bids_tree / "sub-04" / "anat").glob("*.nii.gz"))
    victim.write_bytes(victim.read_bytes()[:500])
    settings = [
        "data=bids",
        f"data.root={bids_tree}",
        "preprocessing=t1w_4mm",
        "folds.n_folds=2",
        *SMALL[3:6],
    ]
    settings += ["folds.validation_fraction=0.4", f"run_dir={tmp_path / 'run'}", "data.brain_size_column=age"]
    settings += ["evaluation.n_bootstrap=50", "trainer.batch_size=2"]
    # a seventh, so that two of each class are left on the training side
    for extra in range(6, 10):
        add_subject(bids_tree, extra, "MF"[extra % 2])
    with pytest.raises(DataError, match=r"sub-04_.*truncated"):
        train(compose("run", settings))
    assert not (tmp_path / "run" / "checkpoints").exists()
    done = train(compose("run", [*settings, "data.on_error=skip"]))
    changed = next((bids_tree / "sub-05" / "anat").glob("*.nii.gz"))
    content = changed.read_bytes()
    shutil.copy(next((bids_tree / "sub-00" / "anat").glob("*.nii.gz")), changed)
    with pytest.raises(DataError, match="sub-05: the image has changed since training"):
        explain(compose("run", [*settings, "data.on_error=skip"]))
    changed.write_bytes(content)
    run(compose("run", [*settings, "data.on_error=skip", "attribution=[grad_cam]"]))
    assert read_tsv(done.quarantine)["participant_id"].tolist() == ["sub-04"]
    assert len(read_tsv(done.predictions)) == 9
    assert "baseline/brain_size/auroc" in read_json(done.metrics)

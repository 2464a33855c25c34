"""From any result back to what made it: sidecars, manifests, and what `xai-brain verify` finds."""

from __future__ import annotations

import os

import pandas as pd
import pytest
import torch
from conftest import in_another_process, map_of

from xai_brain.cli import main
from xai_brain.config.saved import stage_settings
from xai_brain.io.atomic import file_hash
from xai_brain.runs.directory import read_json, read_tsv, sidecar, write_json
from xai_brain.stages.report import report
from xai_brain.study import report_page as report_stage
from xai_brain.study.explanation.batches import Batch, seed_of


def test_a_map_tells_its_model_data_settings_code_and_class(small_run):
    people = read_tsv(small_run.participants).set_index("participant_id")
    path = map_of(small_run)
    about = read_json(sidecar(path))
    checkpoint = small_run.checkpoint(about["Fold"], about["Seed"])
    assert about["MapSHA256"] == file_hash(path)
    assert about["InputSHA256"] == people.loc[about["ParticipantId"], "sha256"]
    assert about["CheckpointSHA256"] == file_hash(checkpoint)
    assert about["TargetName"] in ("female", "male")
    assert about["Parameters"]["_target_"] == "xai_brain.attribution.GradCAM"
    assert {"xai-brain", "torch", "captum"} <= set(about["Versions"])
    assert "GitCommit" in about
    of_network = read_json(small_run.checkpoint_about(about["Fold"], 0))
    assert of_network["CheckpointSHA256"] == about["CheckpointSHA256"]
    assert len(of_network["TrainingInputsSHA256"]) == 64


def test_verify_finds_a_whole_run_whole_and_names_what_is_not(copied, capsys):
    assert main(["verify", str(copied.path)]) == 0
    message = capsys.readouterr().out
    assert "checked 1 settings, 24 images, 6 tables, 2 networks, 24 predictions, 72 maps, " in message
    assert "; 0 missing" in message

    altered, gone, other = (map_of(copied, "GuidedBackprop", number) for number in range(3))
    content = bytearray(altered.read_bytes())
    content[-9] ^= 1
    altered.write_bytes(content)
    gone.unlink()
    write_json({**read_json(sidecar(other)), "CheckpointSHA256": "0" * 64}, sidecar(other))
    with open(copied.checkpoint(1, 0), "ab") as file:
        file.write(b"\0")
    predictions = read_tsv(copied.predictions)
    predictions.loc[0, "prob_male"] = 0.987
    predictions.to_csv(copied.predictions, sep="\t", index=False, na_rep="n/a")
    people = copied.participants.read_text()
    copied.participants.write_text(people + "\n")
    copied.report.unlink()
    assert main(["verify", f"run_dir={copied.path}"]) == 1
    message = capsys.readouterr().out
    for line in (
        f"{altered}: is altered; remove it and run `xai-brain explain` again",
        f"{gone}: is missing",
        f"{sidecar(other)}: the map was made by another network",
        f"{copied.checkpoint(1, 0)}: is altered; remove it",
        f"{copied.predictions}: differs from fold-",
        f"{copied.participants}: is altered",
        f"{copied.metrics}: test/brier does not agree with predictions.tsv",
        f"{copied.report}: is missing; remove {copied.path / 'figures' / 'inputs.json'} and run",
    ):
        assert line in message, line


RESULTS = (
    *(
        "evaluation/summary.tsv",
        "evaluation/agreement.tsv",
        "figures/",
        "group/tpl-MNI152/anat/",
        "images/",
        "report.html",
    ),
    *("config.yaml", "checkpoints/fold-0.tsv", "checkpoints/fold-1_validation.tsv"),
)


@pytest.mark.parametrize("name", RESULTS)
def test_verify_names_any_result_that_is_altered_or_gone(name, copied, capsys):
    files = sorted((copied.path / name).glob("[!.i]*")) if name.endswith("/") else [copied.path / name]
    path = next(file for file in files if file.is_file())
    content = path.read_bytes()
    last = max(i for i, byte in enumerate(content) if chr(byte).isdigit())
    path.write_bytes(
        content[:last] + (b"1" if content[last : last + 1] != b"1" else b"2") + content[last + 1 :]
    )
    assert main(["verify", str(copied.path)]) == 1
    message = capsys.readouterr().out.splitlines()
    problems = [line for line in message if line.startswith(str(copied.path))][:-1]
    assert problems
    assert all(line.startswith(f"{path}: ") for line in problems)
    path.unlink()
    if path != copied.config:  # without it there is no run
        assert main(["verify", str(copied.path)]) == 1
        assert f"{path}: is missing; remove " in capsys.readouterr().out
    path.write_bytes(content)
    assert main(["verify", str(copied.path)]) == 0


def test_settings_that_were_altered_stay_altered(copied, capsys):
    text = copied.config.read_text()
    copied.config.write_text(text.replace("top_percents:", "top_percents:  # by hand"))
    assert main(["evaluate", f"run_dir={copied.path}", "evaluation.n_bootstrap=20"]) == 0
    capsys.readouterr()
    assert main(["verify", str(copied.path)]) == 1
    assert f"{copied.config}: is altered" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["attributions", "checkpoints", "evaluation", "provenance.json", "metrics.json"]
)
def test_verify_goes_on_after_a_damaged_file(name, copied, capsys):
    path = copied.path / name
    path = next(path.rglob("[!dp]*.json")) if path.is_dir() else path
    path.write_text(path.read_text()[:20])
    assert main(["verify", str(copied.path)]) == 1
    message = capsys.readouterr().out
    assert f"{path}: is damaged; " in message
    assert "checked" in message


def test_maps_of_groups_say_what_made_them(small_run):
    about = read_json(sidecar(small_run.group_map("GradCAM", "class-male", "mean")))
    assert set(about["CheckpointsSHA256"]) == {file_hash(small_run.checkpoint(k, 0)) for k in (0, 1)}
    assert about["Parameters"]["_target_"] == "xai_brain.attribution.GradCAM"
    assert about["Versions"]["torch"] == torch.__version__


def test_verify_reads_runs_of_older_versions(copied, capsys):
    for path in (copied.path / "attributions").rglob("*_attribution.json"):
        about = read_json(path)
        write_json({key: about[key] for key in about if key not in ("MapSHA256", "InputSHA256")}, path)
    for fold in (0, 1):
        copied.checkpoint_about(fold, 0).unlink()
    assert main(["verify", str(copied.path)]) == 0
    assert "72 maps: they exist" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["trainer.lr=1"], ["nowhere"]])
def test_verify_needs_one_run(arguments, capsys):
    assert main(["verify", *arguments]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


# -- what follows from what ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_is_written_again_when_results_version_or_template_change(copied, monkeypatch, capsys):
    cfg = stage_settings("report", [f"run_dir={copied.path}"])

    def again():
        capsys.readouterr()
        report(cfg)
        return "nothing to do" not in capsys.readouterr().out

    assert not again()
    os.utime(copied.predictions)
    assert not again()  # only touched
    metrics = read_json(copied.metrics)
    write_json({**metrics, "seconds/train": 1.0}, copied.metrics)
    assert not again()
    write_json({**metrics, "test/auroc": 0.123}, copied.metrics)
    assert again()
    copied.report.write_text(copied.report.read_text().replace("0.123", "0.987"))
    assert again()
    monkeypatch.setattr(report_stage, "versions", lambda: {"xai-brain": "99"})
    assert again()
    assert not again()


def test_theseed_of_a_batch_is_the_same_everywhere():
    ask = (
        "import pandas as pd; from xai_brain.study.explanation.batches import Batch, seed_of; "
        "print(seed_of(Batch(3, 2, pd.DataFrame({'a': [1]}, index=[16]))))"
    )
    message = [in_another_process(ask, PYTHONHASHSEED=seed).stdout for seed in ("1", "7")]
    rows = pd.DataFrame({"participant_id": ["sub-01"]}, index=[16])
    assert list(map(int, message)) == [seed_of(Batch(3, 2, rows))] * 2

"""Runs that are verified; damaged files and files of strangers; a full disk, no right to write."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import SMALL
from omegaconf import OmegaConf

from xai_brain import BrainClassifier, RunDirectory, compose, explain, report, run
from xai_brain.cli import main
from xai_brain.commands import report as report_stage
from xai_brain.commands import train as train_stage
from xai_brain.commands.explain_batch import Batch, _seed_of
from xai_brain.commands.networks import load_classifier
from xai_brain.commands.setup import stage_settings
from xai_brain.config import ConfigError
from xai_brain.config_checks import check
from xai_brain.runs import read_json, read_tsv, sidecar, write_json
from xai_brain.volumes import WriteError, file_hash, write_atomic


@pytest.fixture
def copied(small_run, tmp_path) -> RunDirectory:
    shutil.copytree(small_run.path, tmp_path / "moved")
    return RunDirectory(tmp_path / "moved")


def map_of(folder, method="GradCAM", number=0):
    return sorted((folder.path / "attributions").rglob(f"*desc-{method}_attribution.nii.gz"))[number]


def in_another_process(code, **env):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, timeout=300, env={**os.environ, **env},
    )  # fmt: skip


# -- provenance ---------------------------------------------------------------------------------------


def test_a_map_tells_its_model_data_settings_code_and_class(small_run):
    people = read_tsv(small_run.participants).set_index("participant_id")
    path = map_of(small_run)
    about = read_json(sidecar(path))
    checkpoint = small_run.checkpoint(about["Fold"], about["Seed"], [0])
    assert about["MapSHA256"] == file_hash(path)
    assert about["InputSHA256"] == people.loc[about["ParticipantId"], "sha256"]
    assert about["CheckpointSHA256"] == file_hash(checkpoint)
    assert about["TargetName"] in ("female", "male")
    assert about["Parameters"]["_target_"] == "xai_brain.attribution.GradCAM"
    assert {"xai-brain", "torch", "captum"} <= set(about["Versions"])
    assert "GitCommit" in about
    of_network = read_json(small_run.checkpoint_about(about["Fold"], 0, [0]))
    assert of_network["CheckpointSHA256"] == about["CheckpointSHA256"]
    assert len(of_network["TrainingInputsSHA256"]) == 64


def test_verify_finds_a_whole_run_whole_and_names_what_is_not(copied, capsys):
    assert main(["verify", str(copied.path)]) == 0
    told = capsys.readouterr().out
    assert "looked at 1 settings, 24 images, 6 tables, 2 networks, 24 predictions, 72 maps, " in told
    assert "; 0 missing" in told

    altered, gone, other = (map_of(copied, "GuidedBackprop", number) for number in range(3))
    content = bytearray(altered.read_bytes())
    content[-9] ^= 1
    altered.write_bytes(content)
    gone.unlink()
    write_json({**read_json(sidecar(other)), "CheckpointSHA256": "0" * 64}, sidecar(other))
    with open(copied.checkpoint(1, 0, [0]), "ab") as file:
        file.write(b"\0")
    predictions = read_tsv(copied.predictions)
    predictions.loc[0, "prob_male"] = 0.987
    predictions.to_csv(copied.predictions, sep="\t", index=False, na_rep="n/a")
    people = copied.participants.read_text()
    copied.participants.write_text(people + "\n")
    copied.report.unlink()
    assert main(["verify", f"run_dir={copied.path}"]) == 1
    told = capsys.readouterr().out
    for line in (
        f"{altered}: is altered; remove it and run `xai-brain explain` again",
        f"{gone}: is missing",
        f"{sidecar(other)}: is of another network than the one that is there",
        f"{copied.checkpoint(1, 0, [0])}: is altered; remove it",
        f"{copied.predictions}: differs from fold-",
        f"{copied.participants}: is altered",
        f"{copied.metrics}: test/brier is not that of predictions.tsv",
        f"{copied.report}: is missing; remove {copied.path / 'figures' / 'inputs.json'} and run",
    ):
        assert line in told, line


RESULTS = (
    *("evaluation/summary.tsv", "evaluation/agreement.tsv", "figures/", "group/", "images/", "report.html"),
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
    told = capsys.readouterr().out.splitlines()
    problems = [line for line in told if line.startswith(str(copied.path))][:-1]
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
    path = next(path.rglob("[!d]*.json")) if path.is_dir() else path
    path.write_text(path.read_text()[:20])
    assert main(["verify", str(copied.path)]) == 1
    told = capsys.readouterr().out
    assert f"{path}: is damaged; " in told
    assert "looked at" in told


def test_maps_of_groups_say_what_made_them(small_run):
    about = read_json(next((small_run.path / "group").glob("desc-GradCAM_class-*_stat-mean_statmap.json")))
    assert set(about["CheckpointsSHA256"]) == {file_hash(small_run.checkpoint(k, 0, [0])) for k in (0, 1)}
    assert about["Parameters"]["_target_"] == "xai_brain.attribution.GradCAM"
    assert about["Versions"]["torch"] == torch.__version__


def test_verify_reads_runs_of_older_versions(copied, capsys):
    for path in (copied.path / "attributions").rglob("*_attribution.json"):
        about = read_json(path)
        write_json({key: about[key] for key in about if key not in ("MapSHA256", "InputSHA256")}, path)
    for fold in (0, 1):
        copied.checkpoint_about(fold, 0, [0]).unlink()
    assert main(["verify", str(copied.path)]) == 0
    assert "72 maps no hash is known" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["trainer.lr=1"], ["nowhere"]])
def test_verify_needs_one_run(arguments, capsys):
    assert main(["verify", *arguments]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


# -- what follows from what ---------------------------------------------------------------------------


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


def test_the_seed_of_a_batch_is_the_same_everywhere():
    ask = (
        "import pandas as pd; from xai_brain.commands.explain_batch import Batch, _seed_of; "
        "print(_seed_of(Batch(3, 2, pd.DataFrame({'a': [1]}, index=[16]))))"
    )
    told = [in_another_process(ask, PYTHONHASHSEED=seed).stdout for seed in ("1", "7")]
    rows = pd.DataFrame({"participant_id": ["sub-01"]}, index=[16])
    assert list(map(int, told)) == [_seed_of(Batch(3, 2, rows))] * 2


# -- files of strangers -------------------------------------------------------------------------------


class Payload:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


def test_a_checkpoint_with_a_payload_is_refused_in_one_line(copied, tmp_path, capsys):
    path, victim = copied.checkpoint(0, 0, [0]), tmp_path / "victim"
    content = torch.load(path, weights_only=True)
    for kind in ("torch", "pickle"):
        if kind == "torch":
            torch.save({**content, "payload": Payload(victim)}, path)
        else:
            path.write_bytes(pickle.dumps(Payload(victim), protocol=2))
        with pytest.raises(ConfigError, match=r"fold-0\.ckpt: .*not loaded; remove it") as caught:
            load_classifier(path)
        assert "\n" not in str(caught.value)
    assert main(["explain", f"run_dir={copied.path}", "attribution=[saliency]"]) == 1
    assert "fold-0.ckpt" in capsys.readouterr().err.splitlines()[-1]
    assert not victim.exists()


@pytest.mark.parametrize("target", ["os.mkdir", "subprocess.Popen", "torch.load", "builtins.eval"])
def test_a_checkpoint_cannot_name_a_function_to_be_called(copied, tmp_path, target):
    path, victim = copied.checkpoint(0, 0, [0]), tmp_path / "victim"
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["network"] = {"_target_": target, "path": str(victim)}
    torch.save(content, path)
    with pytest.raises(ConfigError, match=f"{target}: is not a torch.nn.Module"):
        load_classifier(path)
    with pytest.raises(ValueError, match=r"is not a torch\.nn\.Module"):
        BrainClassifier.load_from_checkpoint(path, weights_only=True)
    assert not victim.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_checkpoint_is_one_line(copied, damage):
    path = copied.checkpoint(0, 0, [0])
    content = path.read_bytes()
    if damage == "other":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(
        ConfigError, match=r"fold-0\.ckpt: .*remove it and run `xai-brain train` again"
    ) as caught:
        load_classifier(path)
    assert "\n" not in str(caught.value)


def test_settings_of_a_stranger_run_nothing(copied, tmp_path, capsys):
    victim = tmp_path / "victim"
    text = copied.config.read_text()
    copied.config.write_text(text + f"evil: !!python/object/apply:os.mkdir ['{victim}']\n")
    assert main(["report", f"run_dir={copied.path}"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    cfg = OmegaConf.create(text)
    cfg.attribution.GradCAM = {"_target_": "os.mkdir", "path": str(victim)}
    copied.config.write_text(OmegaConf.to_yaml(cfg))
    assert main(["explain", f"run_dir={copied.path}"]) == 1
    assert "os.mkdir: its package is not trusted" in capsys.readouterr().err
    cfg.trusted_modules = ["os"]  # it cannot trust itself
    copied.config.write_text(OmegaConf.to_yaml(cfg))
    assert main(["explain", f"run_dir={copied.path}"]) == 1
    assert (
        f"{copied.config}: runs code of os; if you trust it, add trusted_modules=[os]"
        in capsys.readouterr().err
    )
    assert not victim.exists()


@pytest.mark.parametrize(
    "target",
    ["torch.load", "torch.hub.load_state_dict_from_url", "xai_brain.claims.os.mkdir",
     "sklearn.datasets.load_files",
     "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
     "xai_brain.models.together.subprocess.Popen"],
)  # fmt: skip
def test_of_known_packages_only_methods_networks_and_estimators_are_made(target):
    method = f"+attribution.Mine={{_target_: {target}}}"
    with pytest.raises(
        ConfigError, match=r"attribution\.Mine\._target_=.*: is not a torch\.nn\.Module, a method"
    ):
        compose("run", [*SMALL, method])


@pytest.mark.parametrize("section", ["attribution", "baselines"])
def test_names_of_settings_cannot_lead_out_of_the_run(section):
    cfg = compose("run", SMALL)
    cfg[section] = {"../../x": {"_target_": "xai_brain.attribution.GradCAM", "_partial_": True}}
    with pytest.raises(ConfigError, match=r"a name can hold letters, digits and _ only|features=None"):
        check(cfg)


def test_a_checkpoint_imports_no_package_that_nobody_has_trusted(tmp_path, monkeypatch):
    (tmp_path / "evil_package.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ValueError, match=r"evil_package\.Net: its package is not trusted; if it is yours, import it"
    ):
        BrainClassifier({"_target_": "evil_package.Net"}, ["a", "b"], [4, 4, 4])


# -- no room, no right, no input ----------------------------------------------------------------------


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("old")

    def full(temporary):
        temporary.write_text("ne")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WriteError) as caught:
        write_atomic(path, full)
    assert str(caught.value) == (
        f"{path}: cannot be written (No space left on device); make room or give the right to write, then "
        "start again: what is finished is kept"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["a.tsv"]
    assert path.read_text() == "old"


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_is_one_line_and_what_is_finished_is_kept(copied, small_run):
    cut = [map_of(copied, "GuidedBackprop", number) for number in (0, 9)]  # of two batches
    for path in cut:
        path.unlink()
    names = [path.relative_to(copied.path) for path in cut]
    told = in_another_process(
        "import resource, sys; from xai_brain.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "  # what a map does not fit in
        f"sys.exit(main(['explain', 'run_dir={copied.path}']))"
    )
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert "_attribution.nii.gz: cannot be written (File too large)" in line
    assert not list(copied.path.rglob(".partial-*"))
    assert not copied.claims.exists()
    explain(stage_settings("explain", [f"run_dir={copied.path}"]))
    for name in names:
        assert file_hash(copied.path / name) == file_hash(small_run.path / name)


def test_a_disk_that_is_full_while_a_network_learns_is_told_by_the_run(tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/tmpl3dubhmd")  # as of a checkpoint

    monkeypatch.setattr(train_stage, "fit_fold", full)
    assert main(["train", *SMALL, f"run_dir={tmp_path / 'run'}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'run'}: cannot be written (No space left on device); make room" in line
    assert not list((tmp_path / "run").rglob(".partial-*"))


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="permissions of POSIX")
def test_a_folder_that_may_not_be_written(copied, capsys):
    folder = copied.path
    (folder / "report.html").unlink()
    was_root = os.geteuid() == 0
    places = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    parents = [path for path in folder.parents if path.stat().st_uid == os.geteuid() and path != path.parent]
    modes = {path: path.stat().st_mode for path in [*places, *parents]}
    try:
        for path in parents:
            path.chmod(modes[path] | 0o055)
        for path in places:
            path.chmod(0o555)
        if was_root:
            os.seteuid(65534)  # root may write everywhere
        assert main(["report", f"run_dir={folder}"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert str(folder) in line
        assert "Permission denied" in line
        assert main(["evaluate", f"run_dir={folder}"]) == 0  # nothing has to be written
    finally:
        if was_root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


def test_an_input_that_goes_in_mid_run(bids_tree, tmp_path, capsys):
    from conftest import add_subject

    for i in range(6, 8):
        add_subject(bids_tree, i, "MF"[i % 2])
    given = ["data=bids", f"data.root={bids_tree}", "preprocessing=t1w_4mm", "folds.n_folds=2", *SMALL[3:6]]
    given += ["folds.validation_fraction=0.4", "trainer.batch_size=2", f"run_dir={tmp_path / 'run'}"]
    assert main(["train", *given]) == 0
    before = file_hash(tmp_path / "run" / "predictions.tsv")
    shutil.rmtree(bids_tree / "sub-03")
    assert main(["explain", f"run_dir={tmp_path / 'run'}", "attribution=[grad_cam]"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "sub-03: no T1w image; add it" in line
    given = [f"run_dir={tmp_path / 'run'}", "attribution=[grad_cam]", "data.on_error=skip"]
    assert main(["explain", *given]) == 1
    assert "sub-03: can no longer be used; bring it back" in capsys.readouterr().err.splitlines()[-1]
    assert file_hash(tmp_path / "run" / "predictions.tsv") == before


# -- two at once --------------------------------------------------------------------------------------


def test_other_settings_are_refused_while_another_process_is_at_work(tmp_path):
    folder = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", OTHER, str(folder)], stdin=subprocess.PIPE, stdout=-1)
    try:
        assert other.stdout.readline() == b"ready\n"
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(compose("run", SMALL)))
        given = [*SMALL, f"run_dir={folder}", "trainer.lr=0.5"]
        with pytest.raises(ConfigError, match=r"trainer\.lr: 0\.002 there, 0\.5 now"):
            run(compose("run", given))
        with pytest.raises(ConfigError, match="another process is at work there with other settings"):
            run(compose("run", [*given, "overwrite=true"]))
    finally:
        other.communicate(b"\n")


OTHER = """
import sys
from pathlib import Path
from xai_brain.claims import claim
with claim(Path(sys.argv[1]) / ".claims", "at-work-of-another"):
    print("ready", flush=True)
    sys.stdin.readline()
"""

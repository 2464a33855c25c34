from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from conftest import SMALL

from xai_brain.cli import COMMANDS, main


def command_line(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "xai_brain", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=600,
    )


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_says_what_it_does_and_loads_nothing_heavy(arguments):
    code = f"import sys; from xai_brain.cli import main; main({arguments!r})"
    code += "; print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown = COMMANDS if arguments == ["--help"] else {arguments[0]: COMMANDS[arguments[0]]}
    assert all(text in done.stdout for text in shown.values())
    for heavy in ("torch", "hydra", "nilearn", "numpy"):
        assert f"'{heavy}'" not in done.stderr


def test_help_answers_at_once():
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        assert command_line("run", "--help").returncode == 0
        seconds.append(time.monotonic() - start)
    assert min(seconds) < 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command 'trian'; did you mean 'train'"),  # codespell:ignore
        (["run", "experiment=demo", "trainer.max_epoch=3"], "did you mean 'trainer.max_epochs'"),
        (["run", "data=bids", "data.root=nowhere"], "nowhere: there is no such folder"),
        (["explain", "run_dir=nowhere"], "nowhere/config.yaml: there is no run"),
        (["evaluate", "experiment=demo", "run_dir=nowhere"], "there is no run"),
    ],
)
def test_errors_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XAI_BRAIN_DEBUG", raising=False)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("xai-brain: ")


@pytest.mark.slow
def test_debug_brings_the_trace_back(tmp_path):
    arguments = ("run", "data=bids", "data.root=nowhere")
    assert "Traceback" not in command_line(*arguments, cwd=tmp_path, XAI_BRAIN_DEBUG="").stderr
    assert "Traceback" in command_line(*arguments, cwd=tmp_path, XAI_BRAIN_DEBUG="1").stderr


def test_settings_of_a_stage_are_those_of_its_run(small_run):
    from xai_brain.config.saved import stage_settings
    from xai_brain.config.setting import ConfigError

    given = f"run_dir={small_run.path}"
    cfg = stage_settings("explain", [given])
    assert cfg.data.cohort["n_subjects"] == 24
    assert set(cfg.attribution) == {"GradCAM", "GuidedBackprop", "MeaningfulPerturbation"}
    assert stage_settings("evaluate", [given, "evaluation.top_percents=[5]"]).evaluation.top_percents == [5]
    with pytest.raises(ConfigError, match=r"trainer\.lr cannot be changed by `xai-brain explain`"):
        stage_settings("explain", [given, "trainer.lr=1"])


@pytest.mark.slow
def test_errors_of_a_sweep_are_one_line_too(tmp_path):
    where = {"cwd": tmp_path, "XAI_BRAIN_DEBUG": ""}
    done = command_line("run", "-m", "experiment=demo", "trainer.max_epoch=1,2", **where)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "did you mean 'trainer.max_epochs'" in done.stderr
    done = command_line("run", "-m", "data=bids", "data.root=no", "seeds=[0],[1]", **where)
    assert "no: there is no such folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_multirun_writes_one_run_per_job(tmp_path):
    small = [*SMALL, "trainer.max_epochs=1", "name=sweep", "attribution=[grad_cam]"]
    small = [setting for setting in small if "MeaningfulPerturbation" not in setting]
    done = command_line("run", "-m", *small, "trainer.lr=1e-3,1e-4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "outputs" / "sweep").glob("*/metrics.json"))
    assert [path.parent.name for path in runs] == ["0", "1"]
    assert all((path.parent / "report.html").exists() for path in runs)

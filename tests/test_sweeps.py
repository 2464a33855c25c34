from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import SMALL
from hydra.errors import MissingConfigException

from xai_brain import compose
from xai_brain.cli import main
from xai_brain.config.compose import format_config_error
from xai_brain.config.overrides import first_value
from xai_brain.config.setting import ConfigError
from xai_brain.metrics.ranking import lower_is_better, ranking, t_interval
from xai_brain.runs.directory import read_json, read_tsv, write_json
from xai_brain.statistics.sweeps import SweepError, read_sweep, settings_of, swept_keys
from xai_brain.study.training.folds import one_fold
from xai_brain.tools.sweep import plan_sweep

JOBS = [
    (["trainer.lr=0.001", "seeds=[0]"], "complete", {"test/auroc": 0.6}),
    (["trainer.lr=0.001", "seeds=[1]"], "complete", {"test/auroc": 0.8}),
    (["trainer.lr=0.01", "seeds=[0]"], "complete", {"test/auroc": 0.9}),
    (["trainer.lr=0.01", "seeds=[1]"], "failed", {}),
    (["trainer.lr=0.1", "seeds=[0]"], "running", {"test/auroc": 0.99}),  # figures of a half-finished run
    (["trainer.lr=0.1", "seeds=[1]"], None, {}),
]


def write_job(folder, overrides, state, metrics, **more):
    if state is not None:
        error = {"error": "no space left"} if state == "failed" else {}
        record = {"overrides": overrides, "state": state, "seconds": 2.0, **error, **more}
        write_json(record, folder / "job.json")
    if metrics:
        write_json(metrics, folder / "metrics.json")


@pytest.fixture
def sweep(tmp_path):
    fixed = ["experiment=demo", "launcher=joblib", "hydra.launcher.n_jobs=2"]
    for number, (overrides, state, metrics) in enumerate(JOBS):
        write_job(tmp_path / str(number), [*fixed, *overrides], state, metrics)
    write_job(tmp_path / "17", ["trainer.lr=9"], "complete", {"test/auroc": 1.0})  # of an earlier grid
    jobs = {str(number): [*fixed, *job[0]] for number, job in enumerate(JOBS)}
    write_json({"command": "run", "jobs": jobs}, tmp_path / "sweep.json")
    return tmp_path


def test_one_row_per_job_with_what_differs_and_how_it_ended(sweep):
    table = read_sweep(sweep)
    assert table.columns.tolist() == ["job", "state", "trainer.lr", "seeds", "error", "seconds", "test/auroc"]
    assert table["state"].tolist() == ["complete"] * 3 + ["failed", "missing", "missing"]
    assert table["trainer.lr"].tolist() == [0.001, 0.001, 0.01, 0.01, 0.1, 0.1]
    np.testing.assert_array_equal(table["test/auroc"], [0.6, 0.8, 0.9, np.nan, np.nan, np.nan])
    assert table["error"][3] == "no space left"
    assert "was killed" in table["error"][4]
    assert table.attrs["strays"] == ["17"]


def test_ranking_has_an_interval_over_seeds(sweep):
    ranks = ranking(read_sweep(sweep))
    # the job of one seed of the second has failed, those of the third have no figures
    assert ranks["trainer.lr"].tolist() == [0.001, 0.01, 0.1]
    np.testing.assert_array_equal(ranks["rank"], [1, np.nan, np.nan])
    assert ranks["n_jobs"].tolist() == [2, 1, 0]
    assert ranks["n_planned"].tolist() == [2, 2, 2]
    np.testing.assert_allclose(ranks["value"], [0.7, np.nan, np.nan])
    # Student's t of one degree of freedom: 12.706 times the standard error, 0.1
    assert ranks["ci_high"][0] == pytest.approx(0.7 + 1.2706, abs=1e-4)
    assert "seeds" not in ranks
    with pytest.raises(SweepError, match=r"metric=test/f1: no job has it; figures are, .*test/auroc"):
        ranking(read_sweep(sweep), ["test/f1"])


def test_what_is_lost_is_ranked_from_below():
    table = pd.DataFrame(
        {"state": ["complete"] * 2, "lr": [1, 2], "val/loss": [0.5, 0.7], "auroc": [0.5, 0.7]}
    )
    table.attrs["parameters"] = ["lr"]
    assert ranking(table, ["val/loss"])["lr"].tolist() == [1, 2]
    assert ranking(table, ["auroc"])["lr"].tolist() == [2, 1]


def test_interval_of_the_mean():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    mean, low, high = t_interval(values)
    assert (mean, (low + high) / 2) == pytest.approx((3, 3))
    assert high - mean == pytest.approx(3.18245 * np.sqrt(10 / 3) / 2, abs=1e-4)


def test_collect_writes_tables_and_a_picture_and_fails_for_what_is_missing(sweep, capsys):
    assert main(["collect", str(sweep)]) == 1
    out = capsys.readouterr().out
    assert "3 of 6 jobs complete" in out
    assert "job 3 failed: no space left" in out
    assert "job 5 missing" in out
    assert "trainer.lr=0.01: no rank, because 1 of 2 jobs are complete" in out
    assert "best by test/auroc: trainer.lr=0.001 (0.700, 95 % CI" in out
    assert "17" in out
    assert read_tsv(sweep / "sweep.tsv")["state"].tolist()[3:] == ["failed", "missing", "missing"]
    assert read_tsv(sweep / "ranking.tsv")["rank"].notna().tolist() == [True, False, False]
    picture = matplotlib.image.imread(sweep / "figures" / "ranking.png")[..., :3]
    assert (picture < 0.9).any(2).mean() > 0.005
    for number in "345":
        write_job(sweep / number, JOBS[int(number)][0], "complete", {"test/auroc": 0.5})
    assert main(["collect", str(sweep)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["collect"], "usage: xai-brain collect <sweep_dir>"),
        (["collect", "nowhere"], "nowhere: there is no sweep"),
        (["run", "sweep=grid", "experiment=demo"], "sweep=grid is for several jobs: add -m"),
        (
            ["run", "-m", "experiment=demo", "--cfg", "job"],
            "--cfg shows the settings of one job: leave out -m",
        ),
        (["run", "-m", "experiment=demo", "name=a,b"], "name cannot be swept"),
        (["run", "-m", "experiment=demo", "sweep=gird"], "there is no sweep=gird; one of detection_curve"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XAI_BRAIN_DEBUG", raising=False)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(find_spec("submitit") is None, reason="the extra sweeps is not installed")
@pytest.mark.parametrize("launcher", ["submitit", "joblib"])
def test_a_job_that_ends_badly_does_not_end_the_others(launcher, tmp_path):
    (tmp_path / "own.py").write_text(
        "import os, signal\n"
        "from conftest import ToyNet\n"
        "class Net(ToyNet):\n"
        "    def __init__(self, how, **others):\n"
        "        super().__init__()\n"
        "        if how == 'killed': os.kill(os.getpid(), signal.SIGKILL)  # as by a system out of memory\n"
        "        if how == 'failed': raise ValueError('no such network')\n"
    )
    bad = {"submitit": "killed", "joblib": "failed"}[launcher]
    small = [text for text in TINY if not text.startswith("model.")]
    given = [*small, "name=jobs"]
    model = ["model=custom", "model._target_=own.Net", f"+model.how={bad},none", "trusted_modules=[own]"]
    path = os.pathsep.join([str(tmp_path), os.path.dirname(__file__)])
    done = xai_brain("train", "-m", f"launcher={launcher}", *given, *model, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    assert "1 of 2 jobs complete" in done.stdout, done.stdout + done.stderr
    message = {"submitit": "job 0 missing: it did not finish", "joblib": "job 0 failed"}[launcher]
    assert message in done.stderr
    table = pd.read_csv(tmp_path / "outputs" / "jobs" / "1" / "predictions.tsv", sep="\t")
    assert len(table) > 0


@pytest.mark.slow
@pytest.mark.skipif(find_spec("submitit") is None, reason="the extra sweeps is not installed")
def test_what_a_launcher_would_ask_for_is_shown_without_starting_anything(tmp_path):
    slurm = [
        "launcher=slurm",
        "hydra.launcher.partition=gpu",
        "--cfg",
        "hydra",
        "--package",
        "hydra.launcher",
    ]
    done = xai_brain("run", "experiment=demo", "name=there", *slurm, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    message = yaml.safe_load(done.stdout)
    assert (message["partition"], message["timeout_min"]) == ("gpu", 1440)
    assert not (tmp_path / "outputs").exists()


def test_without_the_extra_one_line_says_what_to_install():
    error = MissingConfigException("In 'hydra/config': Could not find 'hydra/launcher/joblib'\n\nAvailable")
    message = format_config_error(error, "run", [])
    assert message.startswith("launcher joblib is not installed: pip install 'hydra-joblib-launcher>=")


@pytest.mark.parametrize(
    ("override", "first"),
    [
        ("trainer.lr=1e-3,1e-4", "trainer.lr=0.001"),
        ("seeds=[3],[4]", "seeds=[3]"),
        ("trainer.lr=tag(log,interval(1e-4,1e-2))", "trainer.lr=0.0001"),
        ("model.channels=[2,3,4]", "model.channels=[2,3,4]"),
        ("folds.only=range(2,5)", "folds.only=2"),
    ],
)
def test_settings_are_checked_by_the_first_value(override, first):
    assert first_value(override) == first


def test_settings_say_what_a_job_is_not_where_it_runs():
    overrides = ["+model.width=8", "launcher=slurm", "hydra.launcher.mem_gb=2", "overwrite=true", "seeds=[0]"]
    assert settings_of(overrides) == {"model.width": "8", "seeds": "[0]"}
    assert swept_keys([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"a": "1", "b": "3", "c": "0"}]) == [
        "b",
        "c",
    ]


def test_jobs_of_a_sweep_file_with_what_is_given_on_top(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["sweep=grid", "experiment=demo", "seeds=[5],[6]", "hydra.sweep.dir=there"]
    folder, more = plan_sweep("run", given)
    jobs = read_json(tmp_path / "there" / "sweep.json")["jobs"]
    assert (str(folder), more, list(jobs)) == ("there", [], ["0", "1", "2", "3"])
    assert [settings_of(job)["seeds"] for job in jobs.values()] == ["[5]", "[6]", "[5]", "[6]"]
    assert [settings_of(job)["model"] for job in jobs.values()] == ["kan2020", "kan2020", "sfcn", "sfcn"]
    for model in ("kan2020", "sfcn"):
        assert compose("run", ["experiment=demo", f"model={model}"])


def test_another_grid_does_not_take_over_the_jobs_of_a_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = ["experiment=demo", "name=a", "trainer.lr=0.001,0.01"]
    folder, _ = plan_sweep("run", grid)
    for name, overrides in read_json(folder / "sweep.json")["jobs"].items():
        write_job(folder / name, overrides, "complete", {"test/auroc": 0.5})
    plan_sweep("run", [*grid, "launcher=basic", "evaluation.n_bootstrap=9"])  # the same jobs
    plan_sweep("run", [*grid[:2], "trainer.lr=0.001,0.01,0.1"])  # one more
    message = r"a/0 is a job of another grid \(trainer\.lr: 0\.001 before, 0\.01 now\); give this sweep"
    with pytest.raises(ConfigError, match=message):
        plan_sweep("run", [*grid[:2], "trainer.lr=0.01,0.001"])
    assert len(read_json(folder / "sweep.json")["jobs"]) == 3  # the refused plan left nothing
    plan_sweep("run", [*grid[:2], "trainer.lr=0.01,0.001", "overwrite=true"])


def test_one_fold_of_several():
    folds = pd.DataFrame({"participant_id": [f"sub-{i}" for i in range(5)], "fold": [0, 1, 2, 1, -1]})
    assert one_fold(folds, 1)["fold"].tolist() == [-1, 1, -1, 1, -1]
    again = folds.assign(fold=[3, 4, 4, 3, -1])
    both = pd.concat([folds.assign(repeat=0), again.assign(repeat=1)], ignore_index=True)
    alone = one_fold(both, 4)
    assert alone.columns.tolist() == ["participant_id", "fold"]
    assert alone["fold"].tolist() == [-1, 4, 4, -1, -1]
    with pytest.raises(ConfigError, match=r"folds\.only=9: folds are 0 to 2"):
        one_fold(folds, 9)


TINY = [
    *(text for text in SMALL if "MeaningfulPerturbation" not in text and "max_epochs" not in text),
    "data.cohort.n_subjects=12",
    "trainer.max_epochs=1",
    "trainer.tensorboard=false",
]


def xai_brain(*arguments, cwd, **env):
    return subprocess.run(
        [sys.executable, "-m", "xai_brain", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "XAI_BRAIN_DEBUG": "", **env},
        timeout=800,
    )


@pytest.mark.slow
def test_a_failed_job_loses_no_other_and_is_done_again(tmp_path):
    sweep = ["train", "-m", *TINY, "name=sweep", "seeds=[0],[1]", "folds.only=0,9"]
    done = xai_brain(*sweep, cwd=tmp_path)
    assert done.returncode == 1
    assert "2 of 4 jobs complete" in done.stdout
    message = "xai-brain: job 1 failed: folds.only=9: folds are 0 to 1"
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    folder = tmp_path / "outputs" / "sweep"
    states = [read_json(folder / job / "job.json")["state"] for job in "0123"]
    assert states == ["complete", "failed", "complete", "failed"]
    assert set(read_tsv(folder / "0" / "predictions.tsv")["fold"]) == {0}
    before = (folder / "0" / "predictions.tsv").stat().st_mtime_ns

    record = read_json(folder / "3" / "job.json")
    write_json({**record, "state": "running"}, folder / "3" / "job.json")  # as if it had been killed
    again = xai_brain(*sweep, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stdout.count("complete, not done again") == 2
    assert "job 3 failed" in again.stderr
    assert (folder / "0" / "predictions.tsv").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.skipif(find_spec("optuna") is None, reason="the extra sweeps is not installed")
def test_a_study_goes_on_where_it_stopped(tmp_path):
    sweep = ["train", "-m", "sweep=optuna", *TINY, "folds.only=0", "trainer.weight_decay=0"]
    done = xai_brain(*sweep, "hydra.sweeper.n_trials=2", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "outputs" / "optuna"
    first = [read_json(folder / job / "job.json") for job in "01"]
    for job, record in zip("01", first, strict=True):
        history = read_tsv(folder / job / "checkpoints" / "fold-0.tsv")
        assert record["objective"] == pytest.approx(history.query("metric == 'val/loss'")["value"].min())
    done = xai_brain(*sweep, "hydra.sweeper.n_trials=3", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "2_0" / "job.json").exists()
    assert not (folder / "2_1").exists()
    done = xai_brain(*sweep, "hydra.sweeper.n_trials=3", cwd=tmp_path)
    assert "the study has its 3 trials; for more set hydra.sweeper.n_trials=6" in done.stderr
    table = read_sweep(folder)
    assert table["job"].tolist() == ["0", "1", "2_0"]
    assert table["trainer.lr"].nunique() == 3
    assert main(["collect", str(folder)]) == 0
    ranks = read_tsv(folder / "ranking.tsv").query("metric == 'objective'")
    assert ranks["value"].is_monotonic_increasing  # a loss
    done = xai_brain(*sweep, "trainer.monitor=val/auroc", cwd=tmp_path)
    assert "hydra.sweeper.direction=maximize" in done.stderr


def test_direction_of_figures():
    lower = ("test/brier", "val/loss", "seconds/train", "localization/GradCAM/false_positive")
    lower += ("masks/GradCAM/remove_10/auroc", "empty_maps/GradCAM")
    assert all(map(lower_is_better, lower))
    assert not any(
        map(lower_is_better, ("test/auroc", "masks/GradCAM/keep_10/auroc", "localization/LRP/rra"))
    )


def test_folds_of_one_cohort_have_no_interval():
    rows = {"job": ["0", "1"], "state": ["complete"] * 2, "folds.only": [0, 1], "test/auroc": [0.8, 0.9]}
    table = pd.DataFrame(rows)
    table.attrs = {"parameters": ["folds.only"]}
    [row] = ranking(table, ["test/auroc"]).to_dict("records")
    assert row["value"] == pytest.approx(0.85)
    assert np.isnan([row["ci_low"], row["ci_high"]]).all()

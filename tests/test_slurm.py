"""A sweep on a real SLURM of one node: apt-get install slurm-wlm munge, and the extra sweeps."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from cluster import missing_programs, slurm

from xai_brain.runs.directory import read_json, read_tsv

SETTINGS = [
    "experiment=demo",
    "name=cluster",
    "data.cohort.n_subjects=20",
    "folds.n_folds=5",
    "trainer.max_epochs=1",
    "trainer.tensorboard=false",
    "model.channels=[2,3,4]",
    "attribution=[grad_cam]",
    "evaluation.n_bootstrap=20",
    "evaluation.group.n_perm=0",
]
LAUNCHER = ["launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"]


@pytest.fixture
def cluster():
    absent = missing_programs()
    if find_spec("hydra_plugins") is None or find_spec("submitit") is None:
        absent.append("hydra-submitit-launcher")
    if os.geteuid() != 0:
        absent.append("root, whose SLURM this is")
    if absent:
        pytest.skip(f"SLURM cannot be tested here, not found: {', '.join(absent)}")
    with tempfile.TemporaryDirectory(prefix="slurm", dir="/tmp") as root, slurm(Path(root)) as environment:
        yield environment


@pytest.mark.slow
@pytest.mark.slurm
def test_a_sweep_on_slurm_keeps_five_jobs_and_tells_of_the_sixth(cluster, tmp_path):
    environment = {**cluster, "OMP_NUM_THREADS": "1"}

    def xai_brain(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "xai_brain", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=800,
        )

    done = xai_brain("run", "-m", *SETTINGS, *LAUNCHER, "folds.only=0,1,99,2,3,4")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "5 of 6 jobs complete" in done.stdout, done.stdout + done.stderr
    assert "job 2 failed: folds.only=99: folds are 0 to 4" in done.stderr
    folder = tmp_path / "outputs" / "cluster"
    scripts = list((folder / ".submitit").rglob("*submission.sh"))
    assert len(scripts) == 1
    assert "#SBATCH --array=0-5" in scripts[0].read_text()

    collected = xai_brain("collect", str(folder))
    assert collected.returncode == 1
    assert "job 2 failed: folds.only=99: folds are 0 to 4" in collected.stdout
    table = read_tsv(folder / "sweep.tsv")
    assert table["state"].tolist() == ["complete", "complete", "failed", "complete", "complete", "complete"]
    assert table["folds.only"].tolist() == [0, 1, 99, 2, 3, 4]
    assert table["test/auroc"].notna().tolist() == [True, True, False, True, True, True]
    tested = [set(read_tsv(folder / job / "predictions.tsv")["participant_id"]) for job in "01345"]
    assert len(set().union(*tested)) == sum(map(len, tested)) == 20
    ranks = read_tsv(folder / "ranking.tsv").query("metric == 'test/auroc'")
    assert ranks["n_jobs"].tolist() == [5]
    states = [read_json(folder / job / "job.json")["state"] for job in "012345"]
    assert states == table["state"].tolist()

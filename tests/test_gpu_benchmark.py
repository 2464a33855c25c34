"""The benchmark for GPUs runs from beginning to end on a CPU, with a few volumes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FIGURES = (
    *("masks_per_second_meaningful_perturbation", "masks_per_second_kan2020_fast"),
    *("speedup_vs_published_default", "speedup_vs_published_kan2020_fast"),
    *("gradient_volumes_per_second", "gradient_speedup_vs_captum", "gradient_speedup_vs_best_peer"),
    *("training_speedup", "training_speedup_bfloat16"),
    *("explain_volumes_per_second", "explain_share_of_engine", "seconds"),
)
NOT_ON_A_CPU = ("gpu_tests_passed", "share_of_peak_meaningful_perturbation")


@pytest.mark.slow
def test_the_script_measures_everything_it_promises(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    done = subprocess.run(
        [sys.executable, script, "--smoke", "--device", "cpu"],
        env={**os.environ, "XAI_BRAIN_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["smoke"] is True
    assert all(figures[name] > 0 for name in FIGURES)
    assert all(figures[name] is None for name in NOT_ON_A_CPU)

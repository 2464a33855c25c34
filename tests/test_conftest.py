"""The rules of this test suite: what runs by default, and what may be skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = """
import os
import pytest

@pytest.mark.network
def test_downloads(): pass

def test_needs_a_program(): pytest.skip("a program is not installed")

@pytest.mark.gpu
def test_needs_a_gpu(): pytest.skip("needs a CUDA device")

def test_of_raw_heads(): pytest.skip("not installed; make test-raw installs it")

def test_threads(): assert os.environ["OMP_NUM_THREADS"] == "1"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "outcomes"),
    [
        (["--numprocesses=1"], {"1 failed", "1 passed", "2 skipped"}),
        (["-m", "network"], {"1 passed", "4 deselected"}),
    ],
)
def test_what_is_selected_and_what_may_be_skipped_in_ci(tmp_path, arguments, outcomes):
    here = Path(__file__).parent
    (tmp_path / "conftest.py").write_text((here / "conftest.py").read_text())
    (tmp_path / "test_examples.py").write_text(EXAMPLES)
    environment = {**os.environ, "XAI_BRAIN_REQUIRE_ALL": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])
    for name in [name for name in environment if name.startswith("PYTEST_") or name == "OMP_NUM_THREADS"]:
        del environment[name]
    command = [sys.executable, "-m", "pytest", "-c", here.parent / "pyproject.toml", f"--rootdir={tmp_path}"]
    command += ["-p", "no:cacheprovider", *arguments, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    summary = done.stdout.strip().splitlines()[-1]
    assert set(summary.strip("= ").partition(" in ")[0].split(", ")) == outcomes
    assert ("FAILED test_examples.py::test_needs_a_program" in done.stdout) == ("1 failed" in outcomes)

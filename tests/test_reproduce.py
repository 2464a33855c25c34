"""The script that repeats the results pages runs every command that they print."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import reproduce  # noqa: E402

PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))


@pytest.mark.parametrize("page", [path for path in PAGES if path.stem != "index"], ids=lambda path: path.stem)
def test_every_printed_command_is_a_step(page):
    text = page.read_text()
    printed = re.findall(r"(?:xai-brain (?:run|train|baselines|explain) |python benchmarks/)[^`\n]+", text)
    assert printed, "a results page names the command that makes it"
    known = {step.command for step in reproduce.steps([])}
    assert set(map(str.strip, printed)) <= known


def test_inputs_stand_where_the_pages_have_placeholders(tmp_path):
    inputs = {name: tmp_path / name for name in ("ixi", "second_site", "atlas")}
    for step in reproduce.steps([]):
        words = step.words(inputs)
        assert not [word for word in words if "/path/to" in word or "labels.nii.gz" in word]
        assert (words[0] == sys.executable) != step.command.startswith("make")
        used = {name for name, path in inputs.items() if any(str(path) in word for word in words)}
        assert used == set(step.needs)


def test_commands_run_once_and_failures_are_named(tmp_path, monkeypatch, capsys):
    steps = [
        reproduce.Step("one_1", "python benchmarks/startup.py --help"),
        reproduce.Step("two_1", "make none"),
    ]
    monkeypatch.setattr(reproduce, "steps", lambda pages: steps)
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--output", str(tmp_path)])
    assert reproduce.main() == 1
    first = capsys.readouterr().out
    assert "one_1: exit status 0" in first
    assert "failed: two_1" in first
    assert "usage" in (tmp_path / "one_1.log").read_text()
    assert reproduce.main() == 1
    assert "one_1: done before" in capsys.readouterr().out


def test_commands_without_their_input_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--output", str(tmp_path), "other_scanners"])
    assert reproduce.main() == 0
    assert "other_scanners_1: left out, --ixi is missing" in capsys.readouterr().out

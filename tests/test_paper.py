"""The paper: its values are those of the pages of results, and every reference is cited."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAPER = (ROOT / "paper" / "paper.md").read_text()
INTERVAL = re.compile(r"(\d[\d.]*)(?: %| years)?,? \(?(?:95 % confidence interval )?(\d[\d.]* to \d[\d.]*)\)")


def plain(text):
    return re.sub(r"\s+", " ", text.replace("**", ""))


def test_values_with_intervals_are_those_of_the_results():
    results = " ".join(plain(path.read_text()) for path in (ROOT / "docs" / "results").glob("*.md"))
    values = INTERVAL.findall(plain(PAPER))
    values += re.findall(r"\((\d[\d.]*), (\d[\d.]* to \d[\d.]*)\)", plain(PAPER))
    assert len(values) > 15
    assert [value for value in values if f"{value[0]} ({value[1]})" not in results] == []


def test_cited_keys_are_those_of_the_bibliography():
    keys = re.findall(r"^@\w+\{(\w+),", (ROOT / "paper" / "paper.bib").read_text(), re.MULTILINE)
    assert len(keys) == len(set(keys))
    text = PAPER.partition("---\n")[2].partition("---\n")[2]
    assert set(re.findall(r"@(\w+)", text)) == set(keys)


def test_the_form_is_that_of_the_journal():
    for heading in ("Summary", "Statement of need", "State of the field", "References"):
        assert f"\n# {heading}\n" in PAPER
    words = len(PAPER.partition("# Summary")[2].split())
    assert 250 <= words <= 1000, words
    (stated,) = re.findall(r"It contains (\d+ attribution methods, \d+ baseline maps)", PAPER)
    assert stated in (ROOT / "README.md").read_text()

"""The page of error messages quotes messages that the package contains."""

from __future__ import annotations

import re
from functools import cache

import pytest
from printed_commands import ROOT, strings

PAGE = (ROOT / "docs" / "how_to" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)


@cache
def texts() -> tuple[str, ...]:
    return tuple(text for path in sorted((ROOT / "xai_brain").rglob("*.py")) for text in strings(path))


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_of_the_package(message):
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
    pattern = re.compile(r"(?:.|\n)*?".join(parts))
    assert any(pattern.search(text) for text in texts())


def test_every_message_has_a_cause_and_a_remedy():
    rows = [line.strip("| \n").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(MESSAGES) >= 50
    assert all(len(row) == 3 and all(cell.strip() for cell in row) for row in rows)

"""Needs Debian's chromium and playwright. Without them the tests are skipped; in CI that is a failure."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import lab
import pytest


def missing() -> str:
    if find_spec("playwright") is None:
        return "playwright is not installed (pip install 'xai-brain[dev]')"
    if find_spec("jupyterlab") is None:
        return "JupyterLab is not installed (pip install 'xai-brain[lab]')"
    if not Path(lab.CHROMIUM).exists():
        return f"{lab.CHROMIUM} is not there (apt-get install chromium, or set XAI_BRAIN_CHROMIUM)"
    return ""


@pytest.fixture(scope="session", autouse=True)
def _browser_there():
    if reason := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

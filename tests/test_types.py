"""Type hints of the package are visible from outside, and public modules are checked strictly."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = "torch pytorch_lightning lightning_fabric torchmetrics captum monai numpy scipy pandas sklearn"
HEAVY += " matplotlib nibabel nilearn hydra IPython jinja2 rich"
USER = """
import numpy as np
import xai_brain as xb

def f(study: xb.Study) -> None:
    reveal_type(study.maps)
    reveal_type(xb.open_maps)
    reveal_type(xb.__version__)

xb.explain(np.zeros((2, 3)), methods=1)
"""


def public_modules():
    tree = ast.parse((ROOT / "xai_brain" / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {node.module for node in imports if node.module.startswith("xai_brain.")}


def test_the_modules_of_public_names_are_checked_strictly():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"] is True
    (strict,) = [each for each in settings["overrides"] if "disallow_untyped_calls" in each]
    assert set(strict["module"]) == public_modules()
    assert strict["disallow_untyped_calls"]
    assert strict["warn_return_any"]


def test_public_names_have_docstrings():
    modules = [str(ROOT / name.replace(".", "/")) + ".py" for name in sorted(public_modules())]
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=D1", "--ignore=D105,D107"]
    done = subprocess.run([*command, *modules], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_program_that_uses_the_package_is_checked_with_its_type_hints(tmp_path):
    """As in an installed package: py.typed is there, names that are loaded lazily have their types."""
    (tmp_path / "user.py").write_text(USER)
    settings = ["[mypy]", "ignore_missing_imports = true", "follow_imports = silent"]
    for name in HEAVY.split():  # Any: only the types of this package are of interest here
        settings += [f"[mypy-{name}.*]", "follow_imports = skip"]
    (tmp_path / "mypy.ini").write_text("\n".join(settings))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "user.py"], cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert 'Revealed type is "xai_brain.study.maps.maps.Maps"' in done.stdout, done.stdout + done.stderr
    assert '-> xai_brain.study.maps.maps.Maps"' in done.stdout
    assert 'Revealed type is "str"' in done.stdout
    assert 'Argument "methods" to "explain" has incompatible type "int"' in done.stdout
    assert "py.typed" not in done.stdout  # mypy names it where a package does not have it

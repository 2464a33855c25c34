"""Open JupyterLab with a notebook that shows a run. No torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from xai_brain.io.extras import install_command

NOTEBOOK = "view.ipynb"
CODE = """\
import xai_brain as xb

xb.SliceViewer(".")  # run this cell with Shift+Enter"""
TEXT = """\
Click or drag in a plane to move the crosshair. The list above the maps changes the participant or shows the
maps of groups. `help(xb.SliceViewer)` describes atlases and your own images; `xb.open_study(".")` opens the
scores and tables of the run.
"""


class ViewError(ValueError):
    """A run cannot be opened; the message contains the reason and what to do."""


def view(arguments: list[str]) -> int:
    """Start JupyterLab with view.ipynb of a run, which is written if it does not exist.

    Parameters
    ----------
    arguments : list of str
        The run directory, then arguments of ``jupyter lab`` such as ``--no-browser``.

    Returns
    -------
    int
        Exit code of JupyterLab.
    """
    folders, flags = _divided(arguments)
    if len(folders) != 1:
        raise ViewError(
            "usage: xai-brain view <run_dir> [--no-browser]; options of JupyterLab follow the folder, "
            "such as --port=8917"
        )
    notebook = write_notebook(Path(folders[0]).expanduser())
    if find_spec("jupyterlab") is None:
        raise ViewError(f"JupyterLab is not installed: {install_command('lab')}")
    command = [sys.executable, "-m", "jupyterlab", str(notebook), *_addressed(notebook, flags), *flags]
    if os.name == "posix":
        sys.stdout.flush()
        os.execv(sys.executable, command)  # JupyterLab receives signals such as Ctrl-C directly
    return subprocess.run(command).returncode


def _divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders, and options of JupyterLab; what follows an option is its value, unless it is a folder."""
    folders: list[str] = []
    flags: list[str] = []
    for before, text in pairwise(["", *arguments]):
        value = before.startswith("--") and "=" not in before and not Path(text).expanduser().is_dir()
        if text.startswith("-") or (value and folders):
            flags.append(text)
        else:
            folders.append(text.removeprefix("run_dir="))
    return folders, flags


def _addressed(notebook: Path, flags: Sequence[str]) -> list[str]:
    """Flag with which the address that JupyterLab prints opens the notebook, also without a browser."""
    names = ("--ServerApp.root_dir", "--notebook-dir", "--ServerApp.notebook_dir")
    root = next((flag.partition("=")[2] for flag in flags if flag.startswith(names)), notebook.parent)
    try:
        below = notebook.resolve().relative_to(Path(root).expanduser().resolve())
    except ValueError:  # the notebook lies outside the served folder
        return []
    return [f"--LabApp.default_url=/lab/tree/{quote(below.as_posix())}"]


def write_notebook(run_dir: Path) -> Path:
    """Write the notebook of a run; an existing one is not changed, because it may contain notes.

    Raises
    ------
    ViewError
        The folder contains no run.
    """
    if not run_dir.is_dir():
        raise ViewError(f"{run_dir}: there is no such folder")
    if not any((run_dir / name).exists() for name in ("predictions.tsv", "participants.tsv", "attributions")):
        raise ViewError(f"{run_dir}: the folder contains no run; start with `xai-brain run`")
    path = run_dir / NOTEBOOK
    if path.exists():
        return path
    from xai_brain.io.atomic import write_atomic

    never_run: dict[str, Any] = {"execution_count": None, "outputs": []}
    notebook = {
        "cells": [
            {"cell_type": "code", "id": "look", "metadata": {}, "source": CODE, **never_run},
            {"cell_type": "markdown", "id": "about", "metadata": {}, "source": TEXT},
        ],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return write_atomic(path, lambda temporary: temporary.write_text(json.dumps(notebook, indent=1) + "\n"))

"""Which code settings and checkpoints may name: both may come from anywhere. No torch."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

KNOWN_PACKAGES = ("xai_brain", "torch", "captum", "monai", "sklearn")
KINDS = "a torch.nn.Module, a method with `attribute`, an estimator with `fit` or a task with `read_targets`"


def is_known_kind(target: str) -> bool:
    """Whether a dotted name of a known package is a class of one of the `KINDS`.

    True also if it cannot be found; the caller reports that. Looking it up imports the package.
    """
    try:
        made = _found(target)
    except (ImportError, AttributeError):
        return True
    if not inspect.isclass(made) or made.__module__.split(".")[0] not in KNOWN_PACKAGES:
        return False
    return any(hasattr(made, use) for use in ("attribute", "fit", "register_forward_hook", "read_targets"))


def _found(target: str) -> Any:
    """What a dotted name stands for, also by way of what a module has imported."""
    parts = target.split(".")
    made: Any = importlib.import_module(parts[0])
    for n, part in enumerate(parts[1:], 2):
        if not hasattr(made, part):
            importlib.import_module(".".join(parts[:n]))
        made = getattr(made, part)
    return made


def import_trusted(names: Iterable[str]) -> None:
    """Import the trusted modules, so that their networks can be created; missing ones are reported later.

    Modules in the working folder are found, after those that are installed.
    """
    names, here = list(names), os.getcwd()
    if names and here not in sys.path:
        sys.path.append(here)
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name.split(".")[0])

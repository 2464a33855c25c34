"""Tasks by their dotted name, as settings and checkpoints contain them. No torch."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xai_brain.config.schema import DEFAULT_TASK
from xai_brain.config.trust import KNOWN_PACKAGES
from xai_brain.task.protocol import Task


def build_task(settings: Mapping[str, Any] | None = None, names: Sequence[str] = ()) -> Task:
    """Make a task by its dotted name.

    Parameters
    ----------
    settings : mapping, optional
        ``_target_`` and arguments, as in config.yaml and checkpoints; default: classification.
    names : sequence of str, optional
        Names of the outputs.

    Raises
    ------
    ValueError
        It is not a class of tasks, or of a package that is neither known nor imported: settings and
        checkpoints may come from anywhere.

    Examples
    --------
    >>> build_task(names=["female", "male"]).columns
    ['prob_female', 'prob_male']
    """
    arguments = {str(key): value for key, value in (settings or {}).items()}
    target = str(arguments.pop("_target_", DEFAULT_TASK))
    module, _, name = target.rpartition(".")
    package = module.partition(".")[0]
    if package not in KNOWN_PACKAGES and package not in sys.modules:
        raise ValueError(
            f"task._target_={target}: its package is not trusted; if it is yours, import it first"
        )
    kind = getattr(importlib.import_module(module), name, None) if module else None
    if not (inspect.isclass(kind) and issubclass(kind, Task)):
        raise ValueError(f"task._target_={target}: is not a class of tasks (xai_brain.task.protocol.Task)")
    try:
        return kind(**arguments, names=tuple(names))
    except TypeError as error:
        raise ValueError(f"task._target_={target}: {error}") from error


def task_of_table(settings: Mapping[str, Any] | None, columns: Iterable[Any]) -> Task:
    """The task of a run with the names of the outputs that a table of its predictions has.

    Parameters
    ----------
    settings : mapping, optional
        See `build_task`.
    columns : iterable of str
        Columns of predictions.tsv.
    """
    task = build_task(settings)
    return task.with_names(task.names_in([str(column) for column in columns]))

"""Which class or output is explained for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xai_brain.attribution.network_outputs import OutputKind, SegmentationTarget
from xai_brain.config.setting import ConfigError
from xai_brain.task.labels import class_named

Target = int | str | Sequence[int | str] | SegmentationTarget
PREDICTED = "predicted"


def explained_indices(
    target: Target,
    values: np.ndarray,
    names: Sequence[str],
    kind: OutputKind,
    participants: Sequence[str],
    rows: slice,
) -> np.ndarray:
    """Index of the explained output of every image of a batch, (n,).

    Parameters
    ----------
    target : int, str, sequence or SegmentationTarget
        See `xai_brain.explain`.
    values : ndarray of shape (n, n_outputs)
        Predictions.
    names : sequence of str
    kind : OutputKind
    participants : sequence of str
        Of the batch, for messages.
    rows : slice
        Place of the batch among all images.

    Raises
    ------
    ConfigError
        There is no such output, or ``predicted`` is asked of a network that predicts no class.
    """
    n = values.shape[1]
    if len(names) != n:
        raise ConfigError(f"class_names={list(names)}: {len(names)} names for {n} outputs")
    if isinstance(target, SegmentationTarget):
        return np.zeros(len(values), int)
    if isinstance(target, int | str | np.integer):
        targets: list[Any] = [target] * len(values)
    else:
        targets = list(target)[rows]
        if len(targets) != len(values):
            raise ConfigError(
                f"target: there is none for {participants[len(targets)]}; one per image is needed"
            )
    return np.array([_index(each, value, names, kind) for each, value in zip(targets, values, strict=True)])


def _index(target: Any, values: np.ndarray, names: Sequence[str], kind: OutputKind) -> int:
    if isinstance(target, str) and (named := class_named(target, names)) in names:
        return list(names).index(named)
    if target == PREDICTED:
        if kind.has_classes:
            return int(values.argmax())
        if len(names) == 1:
            return 0
        raise ConfigError(
            f"target='predicted': the network predicts no single class; give the output to explain, one of "
            f"{', '.join(names)}"
        )
    if isinstance(target, int | np.integer) and not isinstance(target, bool) and 0 <= target < len(names):
        return int(target)
    last = len(names) - 1
    if list(names) == [str(k) for k in range(len(names))]:
        hint = "; class_names=[...] names the outputs" if isinstance(target, str) else ""
        raise ConfigError(f"target={target!r}: the number of an output, 0 to {last}, is needed{hint}")
    raise ConfigError(f"target={target!r}: one of {', '.join(names)} or a number, 0 to {last}, is needed")

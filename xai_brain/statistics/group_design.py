"""Design of group analyses: classes or a number, confounds and comparable maps; independent of torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

CATEGORIES = ("sex", "site", "fold")  # even where they are written as numbers
NUMBER = "value"  # output of networks that predict a number
DETERMINED = 0.999  # R² of the target given the confounds, from which nothing is left to test


class GroupError(ValueError):
    """A comparison of groups that cannot be made, or would not mean what it seems to."""


@dataclass(frozen=True)
class Design:
    """What is tested, two classes or a number, and what is held constant.

    Parameters
    ----------
    kept : ndarray of shape (n_rows,), bool
        Rows of the table that take part.
    tested : ndarray of shape (n_subjects,), float64
        0 for the first class, 1 for the second; or the number of each subject, in its unit.
    confounds : ndarray of shape (n_subjects, n_confounds), float64
        Standardised numbers and 0/1 columns of categories; no constant column.
    names : list of str
        Of the columns of `confounds`, e.g. ``["age", "site=Guys"]``.
    dropped : dict
        Columns that were left out, and why.
    left_out : dict
        Subjects that were left out, and why.
    is_number : bool
        Whether the association with a number is tested.
    """

    kept: np.ndarray
    tested: np.ndarray
    confounds: np.ndarray
    names: list[str]
    dropped: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    is_number: bool = False

    @property
    def dof(self) -> int:
        """Degrees of freedom of t: subjects less classes (or constant and slope) and confounds."""
        return len(self.tested) - 2 - self.confounds.shape[1]


def make_design(table: pd.DataFrame, contrast: Sequence[str], confounds: Sequence[str] = ()) -> Design:
    """Design matrix of classes, or of a number, and confounds. Unusable columns are dropped and listed.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per subject with ``participant_id``, ``label`` (for a number: ``target``) and the confounds.
    contrast : sequence of 1 or 2 str
        Two classes: the difference is the second minus the first, and rows of other classes are not kept.
        One name: that of the number in the column ``target``, whose association is tested.
    confounds : sequence of str
        Columns. Text, and ``sex``, ``site`` and ``fold`` always, become one 0/1 column for each value but the
        first; numbers are standardised. Subjects without a value are left out.

    Returns
    -------
    Design

    Raises
    ------
    GroupError
        A column is missing, the confounds separate the classes completely or determine the number, or too
        few subjects remain.
    """
    if missing := [name for name in confounds if name not in table]:
        raise GroupError(f"confound {missing[0]}: there is no such column; there are {', '.join(table)}")
    is_number = len(contrast) == 1
    kept = (table["target"].notna() if is_number else table["label"].isin(list(contrast))).to_numpy()
    left_out: dict[str, str] = {}
    for name in confounds:
        absent = table[name].isna().to_numpy() | table[name].isin([np.inf, -np.inf]).to_numpy()
        if (absent | ~kept).all():
            raise GroupError(f"confound {name}: no subject has a value; leave it out of the confounds")
        for participant_id in table.loc[kept & absent, "participant_id"]:
            left_out[participant_id] = f"no {name}"
        kept = kept & ~absent
    rows = table[kept]
    tested = (rows["target"] if is_number else rows["label"] == contrast[1]).to_numpy(np.float64)
    if is_number and (len(tested) < 3 or np.ptp(tested) == 0):
        n = len(np.unique(tested))
        raise GroupError(f"{len(tested)} subjects with {n} different values of {contrast[0]}: too few")
    counts = [int((tested == k).sum()) for k in (0, 1)]
    if not is_number and min(counts) < 2:
        numbers = ", ".join(f"{n} {name}" for n, name in zip(counts, contrast, strict=True))
        raise GroupError(f"{numbers}: at least 2 subjects of each class are needed")
    names, columns, dropped = _independent(_columns(rows, confounds))
    matrix = np.column_stack(columns) if columns else np.zeros((len(rows), 0))
    design = Design(kept, tested, matrix, names, dropped, left_out, is_number)
    if design.dof < 1:
        raise GroupError(f"{len(rows)} subjects are too few for {len(names)} columns of confounds")
    _check_determined(tested, matrix, contrast, confounds)
    return design


def _check_determined(
    tested: np.ndarray, matrix: np.ndarray, contrast: Sequence[str], confounds: Sequence[str]
) -> None:
    """Refuse confounds that leave nothing of the classes or of the number."""
    basis = np.column_stack([np.ones(len(tested)), matrix])
    rest = tested - basis @ np.linalg.lstsq(basis, tested, rcond=None)[0]
    if len(contrast) == 1:
        r2 = 1 - float(rest @ rest) / float(np.sum((tested - tested.mean()) ** 2))
        if r2 > DETERMINED:
            raise GroupError(
                f"the confounds {', '.join(confounds)} determine {contrast[0]} (R² = {r2:.4f}): nothing is "
                "left to test; choose fewer confounds"
            )
    elif np.linalg.norm(rest) < 1e-6 * np.linalg.norm(tested):
        raise GroupError(
            f"the confounds {', '.join(confounds)} separate {contrast[0]} from {contrast[1]} without the "
            "maps: nothing is left to compare; choose fewer confounds"
        )


def contrast_name(contrast: Sequence[str]) -> str:
    """Name of a contrast in files and tables.

    Examples
    --------
    >>> contrast_name(("female", "male")), contrast_name(("fluid_score",))
    ('male-minus-female', 'contrast-fluidscore')
    """
    if len(contrast) == 1:
        return f"contrast-{re.sub(r'[^0-9A-Za-z]', '', contrast[0]) or 'target'}"
    return f"{contrast[1]}-minus-{contrast[0]}"


def design_messages(design: Design) -> list[str]:
    """Dropped confounds and excluded participants, a message for each reason."""
    messages = [f"confound {column} dropped: {why}" for column, why in design.dropped.items()]
    if design.left_out:
        reasons = pd.Series(design.left_out).value_counts()
        listed = ", ".join(f"{n} with {why}" for why, n in reasons.items())
        messages.append(f"{len(design.left_out)} participants excluded: {listed}")
    return messages


def confound_names(columns: Iterable[str]) -> list[str]:
    """Confounds of columns of the design, each once: ``["age", "site=Guys"]`` gives ``["age", "site"]``."""
    return list(dict.fromkeys(str(column).partition("=")[0] for column in columns))


def _columns(rows: pd.DataFrame, confounds: Sequence[str]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for name in confounds:
        values = rows[name]
        if name in CATEGORIES or not pd.api.types.is_numeric_dtype(values):
            levels = sorted(values.astype(str).unique())
            if len(levels) == 1:
                columns[name] = np.zeros(len(rows))
            for level in levels[1:]:
                columns[f"{name}={level}"] = (values.astype(str) == level).to_numpy(np.float64)
        else:
            columns[name] = values.to_numpy(np.float64)
    return columns


def _independent(
    columns: Mapping[str, np.ndarray],
) -> tuple[list[str], list[np.ndarray], dict[str, str]]:
    """Columns that add something to the constant and to those before them; standardised if numbers."""
    names: list[str] = []
    found: list[np.ndarray] = []
    dropped: dict[str, str] = {}
    for name, values in columns.items():
        # permuted_ols flips signs instead of permuting when a confound is constant: none may reach it
        if np.ptp(values) <= 1e-12 * max(np.abs(values).max(), 1e-300):
            dropped[name] = "the same for all"
            continue
        scaled = values if set(np.unique(values)) == {0.0, 1.0} else (values - values.mean()) / values.std()
        basis = np.column_stack([np.ones(len(values)), *found])
        rest = scaled - basis @ np.linalg.lstsq(basis, scaled, rcond=None)[0]
        if np.linalg.norm(rest) < 1e-8 * np.linalg.norm(scaled):
            dropped[name] = f"follows from {', '.join(names)}"
            continue
        names.append(name)
        found.append(scaled)
    return names, found, dropped


def common_output(sidecars: Iterable[Mapping[str, Any]], output: str | None = "logit_difference") -> str:
    """The class whose evidence against the others, or the predicted number, that all maps explain.

    Maps of the predicted class explain different outputs in the two groups, so that their difference is not
    meaningful. Maps of probabilities are not comparable either, because their slope depends on the
    probability.

    Parameters
    ----------
    sidecars : iterable of dict
        With ``Output`` and ``TargetName``, as the explain stage writes them.
    output : str, optional
        The output that must be explained; default: the logit difference.

    Returns
    -------
    str
        The class, or the name of the predicted number.

    Raises
    ------
    GroupError
        In one line: what the maps explain, and the settings that make maps that can be compared.
    """
    sidecars = list(sidecars)
    if output == NUMBER:
        return _number_explained(sidecars)
    targets = sorted({str(about.get("TargetName")) for about in sidecars})
    outputs = sorted({str(about.get("Output")) for about in sidecars})
    remedy = f"make maps with explain.target=<one class> explain.output={output} in another run_dir"
    if len(targets) != 1:
        raise GroupError(f"maps explain different classes ({' and '.join(targets)}); {remedy}")
    if outputs != [output]:
        raise GroupError(f"maps explain the {' and the '.join(outputs)} of {targets[0]}; {remedy}")
    if any(about.get("TargetRule") in ("predicted", "true") for about in sidecars):
        raise GroupError(
            f"maps explain the {sidecars[0]['TargetRule']} class, here {targets[0]} always; {remedy}"
        )
    return targets[0]


def _number_explained(sidecars: Sequence[Mapping[str, Any]]) -> str:
    explained = sorted({f"{about.get('Output')} of {about.get('TargetName')}" for about in sidecars})
    if len(explained) != 1 or not explained[0].startswith(f"{NUMBER} of "):
        raise GroupError(f"maps explain {' and '.join(explained)}; all must explain the predicted number")
    return str(sidecars[0].get("TargetName"))

"""Design of group comparisons: classes, confounds and comparable maps; independent of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

CATEGORIES = ("sex", "site", "fold")  # even where they are written as numbers


class GroupError(ValueError):
    """A comparison of groups that cannot be made, or would not mean what it seems to."""


@dataclass(frozen=True)
class Design:
    """Two classes and what is held constant between them.

    Parameters
    ----------
    kept : ndarray of shape (n_rows,), bool
        Rows of the table that take part.
    tested : ndarray of shape (n_subjects,), float64
        0 for the first class, 1 for the second.
    confounds : ndarray of shape (n_subjects, n_confounds), float64
        Standardised numbers and 0/1 columns of categories; no constant column.
    names : list of str
        Of the columns of `confounds`, e.g. ``["age", "site=Guys"]``.
    dropped : dict
        Columns that were left out, and why.
    left_out : dict
        Subjects that were left out, and why.
    """

    kept: np.ndarray
    tested: np.ndarray
    confounds: np.ndarray
    names: list[str]
    dropped: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def dof(self) -> int:
        """Degrees of freedom of t: subjects less classes and confounds."""
        return len(self.tested) - 2 - self.confounds.shape[1]


def make_design(table: pd.DataFrame, classes: Sequence[str], confounds: Sequence[str] = ()) -> Design:
    """Design matrix of classes and confounds. Columns that cannot be used are dropped and listed.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per subject with ``participant_id``, ``label`` and the confounds.
    classes : sequence of 2 str
        The difference is the second minus the first; rows of other classes are not kept.
    confounds : sequence of str
        Columns. Text, and ``sex``, ``site`` and ``fold`` always, become one 0/1 column for each value but the
        first; numbers are standardised. Subjects without a value are left out.

    Returns
    -------
    Design

    Raises
    ------
    GroupError
        A column is missing, separates the classes completely, or too few subjects remain.
    """
    if missing := [name for name in confounds if name not in table]:
        raise GroupError(f"confound {missing[0]}: there is no such column; there are {', '.join(table)}")
    kept = table["label"].isin(list(classes)).to_numpy()
    left_out: dict[str, str] = {}
    for name in confounds:
        absent = table[name].isna().to_numpy() | table[name].isin([np.inf, -np.inf]).to_numpy()
        if (absent | ~kept).all():
            raise GroupError(f"confound {name}: no subject has a value; leave it out of the confounds")
        for participant_id in table.loc[kept & absent, "participant_id"]:
            left_out[participant_id] = f"no {name}"
        kept = kept & ~absent
    rows = table[kept]
    tested = (rows["label"] == classes[1]).to_numpy(np.float64)
    counts = [int((tested == k).sum()) for k in (0, 1)]
    if min(counts) < 2:
        numbers = ", ".join(f"{n} {name}" for n, name in zip(counts, classes, strict=True))
        raise GroupError(f"{numbers}: at least 2 subjects of each class are needed")
    names, columns, dropped = _independent(_columns(rows, confounds))
    matrix = np.column_stack(columns) if columns else np.zeros((len(rows), 0))
    basis = np.column_stack([np.ones(len(rows)), matrix])
    rest = tested - basis @ np.linalg.lstsq(basis, tested, rcond=None)[0]
    if np.linalg.norm(rest) < 1e-6 * np.linalg.norm(tested):
        raise GroupError(
            f"the confounds {', '.join(confounds)} separate {classes[0]} from {classes[1]} without the maps: "
            "nothing is left to compare; choose fewer confounds"
        )
    design = Design(kept, tested, matrix, names, dropped, left_out)
    if design.dof < 1:
        raise GroupError(f"{len(rows)} subjects are too few for {len(names)} columns of confounds")
    return design


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
    """The class whose evidence against the others all maps explain.

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
        The class.

    Raises
    ------
    GroupError
        In one line: what the maps explain, and the settings that make maps that can be compared.
    """
    sidecars = list(sidecars)
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

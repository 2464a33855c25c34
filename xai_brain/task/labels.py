"""Classes from a column of a table: its values, or intervals of a number."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.io.nifti import bids_label
from xai_brain.io.problems import DataError
from xai_brain.io.tables import bounds

SEXES = {"m": "male", "male": "male", "man": "male", "f": "female", "female": "female", "woman": "female"}
SAME_MEANING = {"sex": "gender", "gender": "sex"}
MANY_NUMBERS = 10  # more different numbers than this are a measurement, not classes


@dataclass(frozen=True)
class LabelRule:
    """Definition of the classes.

    Parameters
    ----------
    column : str, default "sex"
        Column of the table. Spellings of sex (M, m, male, ...) are converted to male and female.
    class_names : list of str, optional
        Classes in the order of their index; default: sorted names. Spellings of sex are converted like the
        column. With `threshold` or `bins`, the names of the intervals from low to high.
    threshold : float, optional
        Two classes of a number: up to the threshold, and above it.
    bins : list of float, optional
        Upper bounds of all classes except the last: [40, 60] gives three classes.
    """

    column: str = "sex"
    class_names: list[str] | None = None
    threshold: float | None = None
    bins: list[float] | None = None

    @property
    def edges(self) -> list[float]:
        if self.threshold is not None and self.bins:
            raise DataError("data.threshold and data.bins: only one of them can be set")
        edges = [float(edge) for edge in (self.bins or [])]
        edges = [float(self.threshold)] if self.threshold is not None else edges
        if not np.isfinite(edges).all() or sorted(set(edges)) != edges:
            raise DataError(f"data.bins={edges}: finite numbers in ascending order are needed")
        return edges

    def interval_names(self) -> list[str]:
        """Names of the classes of a number, e.g. ``age-up-to-60`` and ``age-above-60``."""
        edges = self.edges
        if self.class_names:
            if len(self.class_names) != len(edges) + 1:
                raise DataError(
                    f"data.class_names={list(self.class_names)}: {len(edges) + 1} names are needed, "
                    "from low to high"
                )
            return list(self.class_names)
        between = [f"{low:g}-to-{high:g}" for low, high in pairwise(edges)]
        parts = [f"up-to-{edges[0]:g}", *between, f"above-{edges[-1]:g}"]
        return [f"{self.column}-{part}" for part in parts]


def find_column(table: pd.DataFrame, label: str, where: str) -> str:
    """The column for `label`: exact name, sex for gender, or different upper and lower case.

    Raises
    ------
    DataError
        The column does not exist; the message contains the most similar name.
    """
    for name in (label, SAME_MEANING.get(label, label)):
        if name in table:
            return name
    same = [name for name in table.columns if name.lower() == label.lower()]
    if len(same) == 1:
        return same[0]
    near = difflib.get_close_matches(label, [str(name) for name in table.columns], n=1)
    known = ", ".join(map(str, table.columns[:30])) + (", ..." if len(table.columns) > 30 else "")
    hint = f"; did you mean {near[0]!r}?" if near else f" (its columns: {known})"
    raise DataError(f"{where}: has no column {label!r}{hint}; set data.label to the column of the classes")


def is_label(name: str, label: str | None) -> bool:
    """Whether a column of `load_participants` (age, sex, site) is the column of the classes."""
    written = (label or "").lower()
    return name.lower() in (written, SAME_MEANING.get(written))


def sex_spelling(values: pd.Series) -> pd.Series:
    """Convert M, m, Male, man ... to male, likewise female; other values are unchanged."""
    return values.str.lower().map(SEXES).fillna(values)


def class_named(written: str, names: Sequence[str]) -> str:
    """The class that a name means: itself, or for a spelling of sex such as M the class male.

    Names of no class are returned as they are.

    Examples
    --------
    >>> class_named("M", ["female", "male"]), class_named("M", ["M", "W"]), class_named("AD", ["AD", "CN"])
    ('male', 'M', 'AD')
    """
    meant = SEXES.get(written.lower(), written)
    return meant if written not in names and meant in names else written


def make_labels(values: pd.Series, rule: LabelRule, where: str) -> tuple[pd.Series, list[str], pd.Series]:
    """Class of each row.

    Parameters
    ----------
    values : pandas.Series of str
        NaN if missing.
    rule : LabelRule
    where : str
        The table, for messages.

    Returns
    -------
    labels : pandas.Series
        NaN for rows without class.
    names : list of str
        In the order of the class index.
    reasons : pandas.Series
        Reason why a row has no class; otherwise empty.

    Raises
    ------
    DataError
        The column is a measurement and there is no threshold, or a name cannot be a file name.
    """
    if rule.edges:
        labels, names = values.map(lambda value: _interval(value, rule)), rule.interval_names()
        text = f"{{}}, no number that lies on one side of {', '.join(f'{edge:g}' for edge in rule.edges)}"
    else:
        labels = _as_written(values, rule.column)
        found = {str(name) for name in labels.dropna()}
        _refuse_measurement(found, rule, where)
        names = [class_named(str(name), sorted(found)) for name in rule.class_names or sorted(found)]
        if not rule.class_names and rule.column.lower() in SAME_MEANING and set(SEXES.values()) <= found:
            names = sorted(set(SEXES.values()))
        labels = labels.where(labels.isin(names))
        text = f"{{}}, not one of {', '.join(names)}"
    if odd := [name for name in names if "/" in name or "\\" in name]:
        raise DataError(f"{where}: class {odd[0]!r} holds a slash, which file names cannot; rename it")
    of_label = {bids_label(name): name for name in names}
    if same := [name for name in names if of_label[bids_label(name)] != name]:
        other = of_label[bids_label(same[0])]
        raise DataError(f"{where}: classes {same[0]!r} and {other!r} have the same file names; rename one")
    reasons = pd.Series("", index=values.index, dtype=object)
    for index in values.index[labels.isna()]:
        value = values[index]
        missing = pd.isna(value)
        reasons[index] = (
            f"no value of {rule.column}" if missing else f"{rule.column} is {text.format(repr(value))}"
        )
    return labels, names, reasons


def _interval(value: Any, rule: LabelRule) -> Any:
    found = bounds(value)
    if found is None:
        return np.nan
    low, high = np.searchsorted(rule.edges, found, side="left")  # x <= edge belongs to the lower interval
    return rule.interval_names()[low] if low == high else np.nan


def _as_written(values: pd.Series, label: str) -> pd.Series:
    known = values.str.lower().map(SEXES)
    # one unknown sex does not change the spelling of all others
    if label.lower() in SAME_MEANING or known.notna().sum() == values.notna().sum():
        return known.fillna(values)
    return values


def _refuse_measurement(found: set[str], rule: LabelRule, where: str) -> None:
    if not rule.class_names and len(found) > MANY_NUMBERS and all(bounds(name) for name in found):
        raise DataError(
            f"{where}: {rule.column} has {len(found)} different numbers; make classes of them with "
            "data.threshold=60 or data.bins=[40,60], or predict the number with task=regression"
        )

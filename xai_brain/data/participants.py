"""Participants of a cohort with their images and classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.data.labels import LabelRule, find_column, make_labels, sex_spelling
from xai_brain.data.layouts import bids, caps, hcp, ixi, oasis, table
from xai_brain.data.layouts.found import Found, join
from xai_brain.io.problems import DataError, Problems
from xai_brain.io.tables import numbers

SOURCES: dict[str, Callable[..., Found]] = {
    "bids": bids.find,
    "caps": caps.find,
    "hcp": hcp.find,
    "ixi": ixi.find,
    "oasis": oasis.find,
    "table": table.find,
}
LATER = ("volume_path", "volume_mask_path", "sha256")  # columns of the prepared cohort
UNKNOWN = "unknown"  # label of participants without a label
CONFOUNDS = ("age", "sex", "site", "family_id")


def load_participants(
    layout: str,
    root: str | Path,
    *,
    label: str | None = "sex",
    class_names: list[str] | None = None,
    threshold: float | None = None,
    bins: list[float] | None = None,
    problems: Problems | None = None,
    every_class: bool = True,
    **source: Any,
) -> pd.DataFrame:
    """Find the images and labels of a cohort.

    Parameters
    ----------
    layout : {"bids", "caps", "hcp", "ixi", "oasis", "table"}
        Organisation of the folder. The embedded cohort is also a BIDS tree.
    root : str or Path
    label : str or None, default "sex"
        Column of the table. Spellings of sex (M, m, male, ...) are converted to male and female. If None, the
        label is ``unknown`` and the target -1, which is sufficient for prediction.
    class_names : list of str, optional
        Classes in the order of their index; default: sorted names. Other labels are problems.
    threshold : float, optional
        Two classes of a number: ``label="age", threshold=60`` gives age-up-to-60 and age-above-60.
    bins : list of float, optional
        Upper bounds of all classes except the last, e.g. ``[40, 60]``.
    problems : Problems, optional
        Receives unusable inputs; by default the first one raises an error.
    every_class : bool, default True
        Whether each class must have two members, as for training.
    **source
        Further arguments of the layout: ``tables`` (files of participants, all but oasis), ``entities``
        (bids, caps: which T1w of several, e.g. ``{"desc": "brain"}``), ``image`` (hcp, ixi), ``n_subjects``,
        ``dartel`` and ``url`` (oasis). See the function ``find`` of `xai_brain.data.<layout>`.

    Returns
    -------
    pandas.DataFrame
        One row per image: participant_id, session_id (may be empty), t1w_path, brain_mask_path,
        truth_path, space (may be empty), label (class name), target (index), where they are known age
        (years; the middle of a band), sex, site and family_id, and the other columns of the table.

    Raises
    ------
    DataError
        A folder or table is missing, a column is unknown, or there are fewer than two classes or members.
    """
    if layout not in SOURCES:
        raise DataError(f"data.layout={layout}: not known; one of {', '.join(SOURCES)}, synthetic")
    problems = problems or Problems()
    found = SOURCES[layout](Path(root).expanduser(), problems, **_accepted(layout, label or "sex", source))
    participants = join(found, problems).drop(columns=list(LATER), errors="ignore")
    if participants.empty:
        raise DataError(f"{found.where}: no line of it has a usable image; see data.root{_first(problems)}")
    if label is None:
        return _with_confounds(participants).assign(label=UNKNOWN, target=-1)
    rule = LabelRule(label, class_names, threshold, bins)
    column = find_column(participants, label, found.where)
    labels, names, reasons = make_labels(participants[column], rule, found.where)
    for index in participants.index[reasons != ""]:
        session_id = participants.at[index, "session_id"]
        reason = reasons[index] + (f" in {session_id}" if session_id else "") + "; correct the table"
        problems.add(participants.at[index, "participant_id"], found.where, reason)
    participants = _with_confounds(participants).assign(label=labels)[reasons == ""].reset_index(drop=True)
    if every_class:
        require_classes(participants, names, label, found.where)
    participants["label"] = participants["label"].astype(str)
    participants["target"] = participants["label"].map(names.index).astype(int)
    return participants


def _accepted(layout: str, label: str, source: dict[str, Any]) -> dict[str, Any]:
    """The settings of a source; unknown ones are refused and not ignored."""
    known = set(inspect.signature(SOURCES[layout]).parameters) - {"root", "problems"}
    given = {name: value for name, value in source.items() if value not in (None, {}, [])}
    if foreign := sorted(set(given) - known | {"label"} & set(given)):
        takes = ", ".join(sorted(known - {"label"}))
        raise DataError(f"data.{foreign[0]}: is no setting of data={layout}, which takes {takes}")
    return given | ({"label": label} if "label" in known else {})


def _with_confounds(participants: pd.DataFrame) -> pd.DataFrame:
    """Age as a number, sex in one spelling, and names of confounds in lower case."""
    lower = {name.lower(): name for name in participants.columns[::-1]} | {
        name: name for name in participants.columns
    }
    found = {name: participants[lower[name]] for name in CONFOUNDS if name in lower}
    if "sex" not in found and "gender" in lower:
        found["sex"] = participants[lower["gender"]]
    if "age" in found:
        found["age"] = numbers(found["age"])
    if "sex" in found:
        found["sex"] = sex_spelling(found["sex"])
    return participants.assign(**found)


def _first(problems: Problems) -> str:
    return f" ({problems.rows[0]['participant_id']}: {problems.rows[0]['reason']})" if problems.rows else ""


def require_classes(participants: pd.DataFrame, names: list[str], label: str, where: Path | str) -> None:
    """Refuse a cohort in which a class is empty or has only one member."""
    counts = (
        participants.drop_duplicates(["participant_id", "label"])["label"]
        .value_counts()
        .reindex(names, fill_value=0)
    )
    text = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"
    if len(names) < 2 or (counts == 0).any():
        raise DataError(
            f"{where}: two classes of {label} are needed; there are {text}; "
            "see data.label, data.class_names and quarantine.tsv"
        )
    if (counts == 1).any():
        too_small = counts.index[counts == 1][0]
        raise DataError(
            f"{where}: class {too_small!r} of {label} has one member, too few to learn and to test ({text}); "
            "leave it out with data.class_names"
        )

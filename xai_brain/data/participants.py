"""Participants of a cohort with their images and classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.data.layouts import bids, caps, hcp, ixi, oasis, table
from xai_brain.data.layouts.found import Found, join
from xai_brain.io.problems import DataError, Problems, named
from xai_brain.io.tables import numbers, read_participants, table_names
from xai_brain.parallel.progress import log, log_once
from xai_brain.task.build import build_task
from xai_brain.task.labels import LabelRule, find_column, sex_spelling
from xai_brain.task.protocol import Targets, Task

SOURCES: dict[str, Callable[..., Found]] = {
    "bids": bids.find,
    "caps": caps.find,
    "hcp": hcp.find,
    "ixi": ixi.find,
    "oasis": oasis.find,
    "table": table.find,
}
LATER = ("volume_path", "volume_mask_path", "sha256")  # columns of the prepared cohort
# layouts whose tables can be read without looking for images
LINES: dict[str, Callable[[Path, list[str] | None, str], pd.DataFrame]] = {
    **dict.fromkeys(("bids", "caps", "table"), lambda root, tables, _: read_participants(root, tables)),
    "hcp": hcp.read_lines,
    "ixi": lambda root, tables, _: ixi.read_lines(root, tables),
}
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
    participants: list[str] | None = None,
    problems: Problems | None = None,
    every_class: bool = True,
    report_spellings: bool = True,
    task: Task | None = None,
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
    participants : list of str, optional
        Participants that are used, such as ``["sub-01", "sub-02"]``; default: all.
    problems : Problems, optional
        Receives unusable inputs; by default the first one raises an error.
    every_class : bool, default True
        Whether the cohort must suffice for training, e.g. each class must have two members.
    report_spellings : bool, default True
        Whether to log that classes are spelled otherwise in the table.
    task : Task, optional
        What is learned, which determines label and target; default: classification.
    **source
        Further arguments of the layout: ``tables`` (files of participants, all but oasis), ``entities``
        (bids, caps: which T1w of several, e.g. ``{"desc": "brain"}``), ``image`` (hcp, ixi), ``n_subjects``,
        ``dartel`` and ``url`` (oasis). See the function ``find`` of `xai_brain.data.<layout>`.

    Returns
    -------
    pandas.DataFrame
        One row per image: participant_id, session_id (may be empty), t1w_path, brain_mask_path,
        truth_path, space (may be empty), label (class name), target (its index, or a
        number), where they are known age (years; the middle of a band), sex, site and family_id, and the
        other columns of the table.

    Raises
    ------
    DataError
        A folder or table is missing, a column is unknown, or there are fewer than two classes or members.

    Examples
    --------
    >>> load_participants("bids", "/data/bids", label="sex")  # doctest: +SKIP
    """
    if layout not in SOURCES:
        raise DataError(f"data.layout={layout}: not known; one of {', '.join(SOURCES)}, synthetic")
    problems = problems or Problems()
    problems.only = set(participants) if participants else None
    found = SOURCES[layout](Path(root).expanduser(), problems, **_accepted(layout, label or "sex", source))
    cohort = _selected(join(found, problems), found.where, participants, problems)
    cohort = cohort.drop(columns=list(LATER), errors="ignore")
    if cohort.empty:
        raise DataError(f"{found.where}: no line of it has a usable image; see data.root{_first(problems)}")
    task = task or build_task()
    if label is None:
        return _with_confounds(cohort).assign(label=UNKNOWN, target=task.unknown_target)
    rule = LabelRule(label, class_names, threshold, bins)
    column = find_column(cohort, label, found.where)
    if column != label:
        log(f"{found.where}: has no column {label!r}; its column {column!r} is used")
    if task.excludes_missing and (missing := cohort[column].isna()).any():
        for participant_id in cohort.loc[missing, "participant_id"]:
            problems.leave_out(participant_id, found.where, f"no value of {label}")
        log(f"{found.where}: {missing.sum()} of {len(missing)} images have no value of {label}; left out")
        cohort = cohort[~missing].reset_index(drop=True)
    targets = task.read_targets(cohort[column], rule, found.where)
    if report_spellings and not rule.edges and (renamed := _renamed(cohort[column], targets)):
        log_once(f"{found.where}: {column} {renamed}")
    reasons = targets.reasons
    for index in cohort.index[reasons != ""]:
        session_id = cohort.at[index, "session_id"]
        reason = reasons[index] + (f" in {session_id}" if session_id else "") + "; correct the table"
        problems.add(cohort.at[index, "participant_id"], found.where, reason)
    kept = (reasons == "").to_numpy()
    cohort = _with_confounds(cohort).assign(label=targets.labels)[kept].reset_index(drop=True)
    cohort["target"] = targets.values[kept].tolist()
    if every_class:
        task.check_cohort(cohort, targets.names, label, found.where)
    cohort["label"] = cohort["label"].astype(str)
    return cohort


def read_lines(
    layout: str, root: str | Path, tables: list[str] | None, label: str
) -> tuple[pd.DataFrame, str]:
    """Lines of the tables of a cohort, whether or not there are images, and the names of the tables.

    Columns that only tables of sessions contain are missing.

    Raises
    ------
    DataError
        A table is missing or not valid.
    """
    root = Path(root).expanduser()
    lines = LINES[layout](root, tables, label)
    return _with_confounds(lines), str(root) if layout in ("hcp", "ixi") else table_names(root, tables)


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


def _renamed(written: pd.Series, targets: Targets) -> str:
    """Classes that the column spells otherwise: ``F is read as female, M as male``; empty if none."""
    pairs = pd.DataFrame({"written": written, "label": targets.labels}).dropna().drop_duplicates()
    pairs = pairs[pairs["label"].isin(targets.names) & (pairs["written"] != pairs["label"])]
    parts = [
        f"{each.written} as {each.label}" for each in pairs.sort_values(["label", "written"]).itertuples()
    ]
    return ", ".join(parts).replace(" as ", " is read as ", 1)


def _selected(
    cohort: pd.DataFrame, where: str, participants: list[str] | None, problems: Problems
) -> pd.DataFrame:
    """Images of some participants, all of which must be in the table (or left out for another reason)."""
    if not participants:
        return cohort
    absent = set(participants) - set(cohort["participant_id"])
    if unknown := sorted(name for name in absent if not problems.has(name)):
        raise DataError(f"data.participants: {where} has no participant {named(unknown)}")
    return cohort[cohort["participant_id"].isin(participants)].reset_index(drop=True)


def _first(problems: Problems) -> str:
    return f" ({problems.rows[0]['participant_id']}: {problems.rows[0]['reason']})" if problems.rows else ""

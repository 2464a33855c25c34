"""Reading and validating tables of folds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from xai_brain.io.paths import TABLES, why_no_file
from xai_brain.io.problems import DataError, named
from xai_brain.io.tables import read_table
from xai_brain.task.build import build_task
from xai_brain.task.protocol import Task

NEVER_TESTED = -1  # in the column fold: always in the training part


def read_folds(
    path: str | Path, participants: pd.DataFrame, task: Task | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Read given folds: folds.tsv of another run, or a table made by the user.

    Parameters
    ----------
    path : str or Path
        Table with participant_id (with or without ``sub-``), fold (-1: never tested) and, when
        participants are tested several times, repeat.
    participants : pandas.DataFrame
    task : Task, optional
        Default: classification.

    Returns
    -------
    folds : pandas.DataFrame
        As from `make_folds`.
    unknown_ids : list of str
        Ids of the table that are not in the cohort; they are excluded.

    Raises
    ------
    DataError
        The file or a column is missing, a participant has no fold or several, or a fold is not a number.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        reason = why_no_file(path, TABLES)
        raise DataError(f"{path}: {reason}; folds.path is a table with participant_id and fold")
    table = read_table(path)
    if missing := [name for name in ("participant_id", "fold") if name not in table]:
        raise DataError(f"{path}: has no column {missing[0]} (its columns: {', '.join(map(str, table))})")
    ids = table["participant_id"].astype(str).str.strip()
    table["participant_id"] = ids.where(ids.str.startswith("sub-"), "sub-" + ids)
    table = table.assign(repeat=table.get("repeat", 0))
    for column, least in (("fold", NEVER_TESTED), ("repeat", 0)):
        numbers = pd.to_numeric(table[column], errors="coerce")
        if wrong := table.loc[~(numbers >= least) | (numbers % 1 != 0), "participant_id"].tolist():
            raise DataError(f"{path}: {column} of {named(wrong)} is not a whole number from {least} on")
        table[column] = numbers.astype(int)
    if twice := table.loc[table.duplicated(["participant_id", "repeat"]), "participant_id"].tolist():
        raise DataError(f"{path}: {named(twice)} has several folds; one is needed (of each repeat)")
    tested = table[table["fold"] >= 0]
    if (tested.groupby("fold")["repeat"].nunique() > 1).any():
        raise DataError(f"{path}: a fold is in several repeats; number folds through all repeats")
    unique = participants.drop_duplicates("participant_id")
    cohort = unique["participant_id"].tolist()
    unknown_ids = sorted(set(table["participant_id"]) - set(cohort))
    parts = []
    for repeat, part in table.groupby("repeat"):
        listed = set(part["participant_id"])
        if without := [i for i in cohort if i not in listed]:
            raise DataError(
                f"{path}: no fold for {named(without)}; every participant needs one (-1: training only)"
            )
        fold = part.set_index("participant_id")["fold"][cohort].to_numpy()
        parts.append(pd.DataFrame({"participant_id": cohort, "fold": fold, "repeat": repeat}))
    folds = pd.concat(parts, ignore_index=True)
    check_targets(unique, folds, task or build_task())
    return (folds if len(parts) > 1 else folds.drop(columns="repeat")), unknown_ids


def fold_numbers(folds: pd.DataFrame) -> list[int]:
    """Numbers of the folds with test participants."""
    return sorted(int(fold) for fold in folds["fold"].unique() if fold != NEVER_TESTED)


def with_repeat(predictions: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """Predictions with the repeat of each fold, if folds were repeated."""
    if "repeat" not in folds:
        return predictions
    repeat_of = folds.drop_duplicates("fold").set_index("fold")["repeat"]
    predictions = predictions.copy()
    predictions.insert(list(predictions).index("fold"), "repeat", predictions["fold"].map(repeat_of))
    return predictions


def check_targets(unique: pd.DataFrame, folds: pd.DataFrame, task: Task) -> None:
    """Refuse folds whose sides do not have the targets that training and scores need (DataError)."""
    target = unique.set_index("participant_id")["target"]
    sides = {}
    for fold in fold_numbers(folds):
        is_test = target.index.isin(folds.loc[folds["fold"] == fold, "participant_id"])
        sides[fold] = (target[~is_test], target[is_test])
    task.check_folds(sides)

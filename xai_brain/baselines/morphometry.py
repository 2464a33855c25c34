"""Features from tables of regional volumes or thickness, such as those of FreeSurfer."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from xai_brain.io.problems import DataError
from xai_brain.io.tables import numbers, prefixed, read_table

# Columns that describe the participant and not the brain; compared without case and separators.
NOT_MORPHOMETRY = {
    *("id", "ids", "subject", "subjects", "subjectid", "participant", "participantid", "session"),
    *("sessionid", "visit", "age", "ageyears", "sex", "gender", "site", "scanner", "center", "centre"),
    *("group", "diagnosis", "dx", "release", "family", "familyid", "motherid", "fatherid", "handedness"),
    *("education", "date", "scandate", "acquisition"),
}


def morphometry_features(
    path: str | Path, participants: pd.DataFrame, label: str | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Numeric columns of a table for every image of a cohort.

    The column that contains the most ids of the cohort identifies the participant (``100307`` and
    ``sub-100307`` are equivalent); a column session_id or ids such as ``sub-01_ses-2`` identify sessions.

    Parameters
    ----------
    path : str or Path
        CSV, TSV or any text table with one line per participant (and session), as from asegstats2table.
    participants : pandas.DataFrame
        participant_id, label and, where there are sessions, session_id.
    label : str, optional
        Name of the column with the classes, which is not a feature.

    Returns
    -------
    features : pandas.DataFrame of shape (n_images, n_columns)
        In the order of `participants`; NaN if the table has no value or no line.
    dropped : dict
        Reason for each column that is not used.

    Raises
    ------
    DataError
        No column has the ids of the cohort, an id has several lines, or there is no numeric column.
    """
    path = Path(path).expanduser()
    table = read_table(path)
    table, id_column = _by_image(table, path, participants)
    features, dropped = {}, {id_column: "names participants"}
    for column in table.columns:
        if column == id_column:
            continue
        values = numbers(table[column])
        if reason := _reason_to_drop(column, table[column], values, participants, label):
            dropped[column] = reason
        else:
            features[column] = values.to_numpy(float)
    if not features:
        raise DataError(f"{path}: no column of regional numbers is left; it needs one line per participant")
    return pd.DataFrame(features, index=participants.index), dropped


def _by_image(table: pd.DataFrame, path: Path, participants: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Lines of the table in the order of the cohort, and the column with the ids."""
    ids_of_cohort = participants["participant_id"].astype(str)
    no_session = pd.Series("", participants.index)
    sessions = participants.get("session_id", no_session).fillna("").astype(str).replace("n/a", "")
    whole = (ids_of_cohort + "_" + sessions).where(sessions != "", ids_of_cohort)
    best: tuple[int, str, pd.Series, pd.Series] | None = None
    for column in table.columns:
        ids = prefixed(table[column].astype(str), "sub-")
        keys, wanted = ids, ids_of_cohort
        if "session_id" in table and column != "session_id":
            given = table["session_id"].fillna("").astype(str)
            keys = ids + "_" + prefixed(given, "ses-").where(given != "", "")
            wanted = ids_of_cohort + "_" + sessions
        elif ids.isin(whole).sum() > ids.isin(ids_of_cohort).sum():
            wanted = whole
        found = int(wanted.isin(keys).sum())
        if best is None or found > best[0]:
            best = found, column, keys, wanted
    assert best is not None
    found, id_column, keys, wanted = best
    if not found:
        raise DataError(f"{path}: no column holds ids of the cohort, such as {ids_of_cohort.iloc[0]}")
    known = keys.isin(wanted)
    if twice := keys[known & keys.duplicated(keep=False)].unique().tolist():
        raise DataError(f"{path}: {id_column} {twice[0]} has several lines; one is needed for each image")
    rows = table[known].set_index(keys[known])
    return rows.reindex(wanted).set_index(participants.index), id_column


def _reason_to_drop(
    column: str, texts: pd.Series, values: pd.Series, participants: pd.DataFrame, label: str | None
) -> str | None:
    plain = re.sub(r"[^a-z0-9]", "", str(column).lower())
    if label and plain == re.sub(r"[^a-z0-9]", "", label.lower()):
        return "is the label"
    if plain in NOT_MORPHOMETRY:
        return "describes participants, not brains"
    if values.notna().sum() < texts.notna().sum():
        return "is not numeric"
    known = values.dropna()
    if known.empty:
        return "is empty"
    digits = participants["participant_id"].astype(str).str.extract(r"(\d+)", expand=False)
    if (pd.to_numeric(digits, errors="coerce")[known.index] == known).all():
        return "repeats the id"
    if _counts(known):
        return "counts the lines"
    labels = participants.loc[known.index, "label"]
    n_values = known.nunique()
    if n_values > 1 and n_values == labels.nunique() and known.groupby(labels).nunique().max() == 1:
        return "repeats the label"
    return None


def _counts(values: pd.Series) -> bool:
    """Whether the numbers are consecutive from 0 or 1, such as line numbers."""
    ordered = np.sort(values.to_numpy(float))
    return len(ordered) > 2 and ordered[0] in (0, 1) and bool((np.diff(ordered) == 1).all())

"""Tables of participants: CSV, TSV, Excel or parquet. Every value is read as text."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.io.paths import TABLES, why_no_file
from xai_brain.io.problems import DataError
from xai_brain.io.text_tables import TextTableError, read_rows, read_text

MISSING = ("", "n/a", "na", "nan", "#n/a")
VALID_ID = re.compile(r"sub-[^\W_](?:[^\W_]|-)*")  # letters, digits and hyphens, as in BIDS file names
VALID_SESSION = re.compile(r"ses-[^\W_](?:[^\W_]|-)*")
NUMBER = r"[+-]?\d+(?:\.\d*)?(?:e[+-]?\d+)?"
YEARS = r"\s*(?:y|yrs?|years?)?\.?"


def read_table(path: Path) -> pd.DataFrame:
    """Read a table as stripped text, with NaN for missing values.

    A ``.tsv`` file is separated by tabs; the separator of other text files (tab, semicolon, comma) is
    determined from the content, as are encoding and line ends.

    Parameters
    ----------
    path : Path
        .tsv, .csv or any text; .parquet, .xls and .xlsx need a further library.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    DataError
        The file is missing, is not a table, or has no lines.
    """
    if path.is_dir():
        raise DataError(f"{path}: {why_no_file(path, TABLES)}")
    if not path.is_file():
        raise DataError(f"{path}: the file does not exist; name the table with data.tables=[/path/to/it]")
    ending = path.suffix.lower()
    if ending in (".parquet", ".pq"):
        table = _by_library(pd.read_parquet, path, "pyarrow")
    elif ending in (".xls", ".xlsx"):
        table = _by_library(pd.read_excel, path, "xlrd" if ending == ".xls" else "openpyxl")
    else:
        table = _read_text(path)
    table.columns = [str(column).strip() for column in table.columns]
    if repeated := table.columns[table.columns.duplicated()].tolist():
        raise DataError(f"{path}: has several columns {repeated[0]!r}; rename all but one")
    if table.empty:
        raise DataError(f"{path}: has no lines below its header; one for each participant is needed")
    return as_text(table)


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Cells as stripped text, NaN where missing; whole numbers lose their ``.0``."""
    return table.apply(lambda column: column.map(_text)).astype(object)


def _text(value: Any) -> Any:
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NaT or value is pd.NA:
        return np.nan
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    text = str(value).strip()
    return np.nan if text.lower() in MISSING else text


def _by_library(read: Any, path: Path, library: str) -> pd.DataFrame:
    try:
        return read(path)
    except ImportError:
        raise DataError(
            f"{path}: reading it needs {library}: pip install {library}, or save the table as CSV"
        ) from None
    except Exception as error:  # libraries raise different errors for a damaged file
        raise DataError(f"{path}: cannot be read; save the table as CSV ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _read_text(path: Path) -> pd.DataFrame:
    try:
        text = read_text(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if not text.strip():
        raise DataError(f"{path}: is empty; a header and one line for each participant are needed")
    if "\0" in text:
        raise DataError(f"{path}: is not a text table; save it as CSV or TSV")
    try:
        rows = read_rows(text, path.suffix)
    except TextTableError as error:
        raise DataError(f"{path}: {error}") from None
    if not rows:
        raise DataError(
            f"{path}: contains separators only; a header and one line for each participant are needed"
        )
    header = rows[0][1]
    while len(header) > 1 and not header[-1].strip():  # Excel writes separators at the end of lines
        header.pop()
    width = len(header)
    for number, cells in rows[1:]:
        if any(cell.strip() for cell in cells[width:]):
            raise DataError(
                f"{path}: line {number} has {len(cells)} values for {width} columns; quote values that "
                "contain the separator of the columns"
            )
    values = [(cells + [""] * width)[:width] for _, cells in rows[1:]]
    return pd.DataFrame(values, columns=header, dtype=object)


def read_participants(
    root: Path, tables: list[str] | None, default: str = "participants.tsv"
) -> pd.DataFrame:
    """Read tables of participants and join them by participant (and session, if both have one).

    Parameters
    ----------
    root : Path
        Relative names in `tables` refer to it or, if there is no such file, to the working directory.
    tables : list of str, optional
        The first table lists the participants; further tables add columns.
    default : str, default "participants.tsv"

    Returns
    -------
    pandas.DataFrame
        participant_id begins with ``sub-`` and, if given, session_id with ``ses-``.
    """
    participants: pd.DataFrame | None = None
    for path in table_paths(root, tables or [default]):
        table = read_table(path)
        if "participant_id" not in table:
            raise DataError(f"{path}: has no column participant_id (its columns: {', '.join(table.columns)})")
        if table["participant_id"].isna().any():
            line = int(np.flatnonzero(table["participant_id"].isna())[0]) + 2
            raise DataError(f"{path}: line {line} has no participant_id; give it one or remove the line")
        table["participant_id"] = prefixed(table["participant_id"], "sub-")
        if "session_id" in table:
            table["session_id"] = prefixed(table["session_id"], "ses-")
        participants = table if participants is None else _with_columns(participants, table)
    assert participants is not None
    return participants


def prefixed(values: pd.Series, prefix: str) -> pd.Series:
    """Ids with their prefix, once: 100307 and sub-100307 both become ``sub-100307``."""
    plain = values.str.removesuffix(".0").str.removeprefix(prefix)
    return (prefix + plain).astype(object)


def _with_columns(participants: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    keys = ["participant_id"]
    if "session_id" in participants and "session_id" in table:
        keys.append("session_id")
    joined = participants.merge(table, on=keys, how="left", suffixes=("", "\0"))
    for column in [name for name in joined if name.endswith("\0")]:
        own = column.removesuffix("\0")
        joined[own] = joined[own].fillna(joined.pop(column))
    return joined


def table_paths(root: Path, tables: list[str]) -> list[Path]:
    """Paths of tables, relative to `root` or, if there is no such file, to the working directory."""
    paths = []
    for name in tables:
        path, here = root / Path(name).expanduser(), Path(name).expanduser()
        paths.append(here if here.is_file() and not path.exists() else path)
    return paths


def table_names(root: Path, tables: list[str] | None, default: str = "participants.tsv") -> str:
    """Paths of the tables as text, for messages."""
    return " + ".join(map(str, table_paths(root, tables or [default])))


def bounds(value: Any) -> tuple[float, float] | None:
    """Smallest and largest number that a text can represent; None if it is not a number.

    Examples
    --------
    >>> bounds("63,5"), bounds("22-25"), bounds("89+"), bounds("068Y")
    ((63.5, 63.5), (22.0, 25.0), (89.0, inf), (68.0, 68.0))
    """
    if not isinstance(value, str):
        return None
    text = value.strip().lower().replace(",", ".")
    if match := re.fullmatch(rf"({NUMBER}){YEARS}", text):
        return float(match[1]), float(match[1])
    if match := re.fullmatch(rf"({NUMBER})\s*\+{YEARS}|(?:>=?|≥)\s*({NUMBER}){YEARS}", text):
        return float(match[1] or match[2]), np.inf
    if match := re.fullmatch(rf"(?:<=?|≤)\s*({NUMBER}){YEARS}", text):
        return -np.inf, float(match[1])
    if match := re.fullmatch(rf"(\d+(?:\.\d*)?)\s*[-–]\s*(\d+(?:\.\d*)?){YEARS}", text):
        low, high = float(match[1]), float(match[2])
        return (low, high) if low <= high else None
    return None


def numbers(values: pd.Series) -> pd.Series:
    """Convert texts to float: the middle of a range, 89 for ``89+``, NaN if it is not a number."""
    return values.map(_number).astype(float)


def _number(value: Any) -> float:
    found = bounds(value)
    if found is None:
        return np.nan
    finite = [bound for bound in found if np.isfinite(bound)]
    return float(np.mean(finite)) if finite else np.nan


def with_numbers(table: pd.DataFrame, text: Collection[str] = ()) -> pd.DataFrame:
    """The table with numeric types where all values of a column are numbers.

    Codes with leading zeros such as ``007``, identifiers (``..._id``), paths and the columns `text` are text.

    Examples
    --------
    >>> table = pd.DataFrame({"icv": ["1.5", None], "code": ["007", "10"], "site_id": ["1", "2"]})
    >>> with_numbers(table).dtypes.astype(str).to_dict()["icv"]
    'float64'
    """
    plain = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
    changed = {}
    for name in table.columns:
        values = table[name].dropna()
        if name in text or str(name).endswith(("_id", "_path")) or values.empty:
            continue
        if all(isinstance(value, str) and plain.fullmatch(value) for value in values):
            changed[name] = pd.to_numeric(table[name])
    return table.assign(**changed)

"""Read the names of the labels of an atlas from its table. No torch.

Formats: BIDS ``dseg.tsv`` and any other text table, XML of FSL and AAL, label files of ITK-SNAP and
FreeSurfer, and plain lists of names.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from xml.parsers import expat

import numpy as np
import pandas as pd

from xai_brain.io.paths import TABLES, why_no_file
from xai_brain.io.text_tables import TextTableError, decode, read_rows

INDEX_COLUMNS = (
    *("index", "indices", "id", "label_id", "labelid", "roi_id", "region_id", "value", "intensity"),
    *("label", "labels", "key", "no", "no.", "nr", "number", "roi"),
)
NAME_COLUMNS = (
    *("name", "names", "label_name", "labelname", "region_name", "roi_name", "roi_full_name"),
    *("region", "label", "labels", "structure", "area", "roi", "description", "abbreviation"),
)
BACKGROUND = re.compile(r"background|unknown|unclassified|clear label|none|\?+|\*\.\*\.\*\.\*\.\*|0", re.I)
MAX_BYTES = 2**25  # larger files are not tables of names

Names = list[tuple[int, str]]


class AtlasError(ValueError):
    """An atlas cannot be used; the message contains the file, the reason and what to do."""


def read_names(path: str | Path, labels: np.ndarray) -> pd.DataFrame:
    """Read indices and names from a table in any of the known formats, identified by its content.

    Parameters
    ----------
    path : path of a text table, an XML file, a label file, or a list of names
    labels : ndarray of shape (n_labels,), int
        Labels of the image, ascending, without 0; names without indices are assigned to them.

    Returns
    -------
    pandas.DataFrame
        ``index`` (int) and ``name`` (str), in the order of the file.

    Raises
    ------
    AtlasError
        The file is missing or not a table of names.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise AtlasError(f"{path}: the table of the atlas: {why_no_file(path, TABLES)}")
    if path.stat().st_size > MAX_BYTES:
        raise AtlasError(f"{path}: is too large for a table of names; give the table, not an image")
    content = path.read_bytes()
    text = decode(content)
    if "\0" in text:
        raise AtlasError(f"{path}: is not a text file; give the table of names (TSV, CSV, XML, TXT)")
    if not text.strip():
        raise AtlasError(f"{path}: is empty; one name for each label is needed")
    if text.lstrip().startswith("<"):
        return _frame(_xml(path, content))
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    numbered = all(re.match(r"\s*\d+[ \t]+\S", line) for line in lines)
    if numbered and lines:
        return _frame([_numbered(line) for line in lines])
    if any(mark in lines[0] for mark in "\t;,") if lines else False:
        try:
            rows = read_rows(text, path.suffix, comment="#")
        except TextTableError as error:
            raise AtlasError(f"{path}: {error}") from None
        return names_of_table(_delimited([cells for _, cells in rows]), path)
    return _frame(_assign_indices(path, [line.strip() for line in lines], labels))


def _frame(names: Names) -> pd.DataFrame:
    return pd.DataFrame(names, columns=["index", "name"])


def _numbered(line: str) -> tuple[int, str]:
    """One line of an ITK-SNAP (name in quotes, last), FreeSurfer (name, then colours) or plain label file."""
    index, rest = line.split(None, 1)
    if quoted := re.search(r'"([^"]*)"\s*$', rest):
        return int(index), quoted[1].strip()
    return int(index), re.sub(r"(?:[\t ]+\d+(?:\.\d+)?){3,4}\s*$", "", rest.strip()).strip()


def _delimited(rows: list[list[str]]) -> pd.DataFrame:
    width = max(map(len, rows))
    rows = [[cell.strip() for cell in row] + [""] * (width - len(row)) for row in rows]
    if _is_whole_number(rows[0][0]):  # no header: the index is first, the name is the first text
        text = [k for k in range(width) if not _is_whole_number(rows[0][k]) and rows[0][k]]
        header = ["index", *("" for _ in range(width - 1))]
        if text:
            header[text[0]] = "name"
        return pd.DataFrame(rows, columns=header)
    return pd.DataFrame(rows[1:], columns=rows[0])


def names_of_table(table: pd.DataFrame, where: object) -> pd.DataFrame:
    """Columns of indices and names, renamed to ``index`` and ``name``.

    Raises
    ------
    AtlasError
        There is no column of whole numbers, or no column whose heading is one of NAME_COLUMNS.
    """
    index = _column(table, INDEX_COLUMNS, lambda values: values.map(_is_whole_number).all())
    name = _column(table, NAME_COLUMNS, lambda values: not values.map(_is_whole_number).all())
    if index is None or name is None:
        columns = ", ".join(str(column) for column in table.columns if str(column))
        raise AtlasError(
            f"{where}: needs a column 'index' of whole numbers and a column 'name' (its columns: {columns})"
        )
    return _frame(
        [
            (int(float(number)), str(text).strip())
            for number, text in zip(table.iloc[:, index], table.iloc[:, name], strict=True)
        ]
    )


def _column(table: pd.DataFrame, headings: tuple[str, ...], fits: Callable[[pd.Series], bool]) -> int | None:
    """Position of the first column with one of the headings, in their order, and suitable values."""
    found = [str(column).strip().lower() for column in table.columns]
    places = [k for heading in headings for k, column in enumerate(found) if column == heading]
    return next((k for k in places if fits(table.iloc[:, k])), None)


def _is_whole_number(value: object) -> bool:
    return re.fullmatch(r"\s*\d+(?:\.0*)?\s*", str(value)) is not None


def _assign_indices(path: Path, names: list[str], labels: np.ndarray) -> Names:
    """Assign indices to a list of names: one name per label, or per number up to the highest label."""
    if names and BACKGROUND.fullmatch(names[0]):
        names = names[1:]
    if len(names) == len(labels):
        return list(zip(labels.tolist(), names, strict=True))
    if len(names) > len(labels) and len(names) == labels.max(initial=0):
        return list(enumerate(names, start=1))
    raise AtlasError(
        f"{path}: lists {len(names)} names for {len(labels)} labels (the highest is "
        f"{labels.max(initial=0)}); write the label before each name"
    )


def _xml(path: Path, content: bytes) -> Names:
    """FSL: ``<label index="0">name</label>``; AAL: ``<label><index>1</index><name>name</name></label>``."""
    _refuse_doctype(path, content)
    root = ElementTree.fromstring(content)
    names: Names = []
    for label in root.iter("label"):
        number = label.get("index") or label.findtext("index") or ""
        name = (label.findtext("name") or "".join(label.itertext())).strip()
        if not _is_whole_number(number) or not name:
            raise AtlasError(f"{path}: has a <label> without a number or a name; give each an index")
        names.append((int(float(number)), name))
    if not names:
        raise AtlasError(f"{path}: has no <label> elements, as in atlases of FSL and AAL")
    # in probabilistic atlases of FSL the index counts volumes from 0; the maximum-probability image contains
    # index + 1, because 0 is background
    kind = (root.findtext("header/type") or "").strip().lower()
    first = dict(names).get(0)
    if kind.startswith("prob") or (not kind and first is not None and not BACKGROUND.fullmatch(first)):
        names = [(index + 1, name) for index, name in names]
    return names


def _refuse_doctype(path: Path, content: bytes) -> None:
    """Raise an error for a DOCTYPE, which can define entities that read files or expand without limit."""

    def refuse(*_: object) -> None:
        raise AtlasError(f"{path}: has a DOCTYPE, which is not read for safety; remove it from the file")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise AtlasError(f"{path}: is not well-formed XML ({error}); copy it again") from error

"""Read text files and text tables: encoding, separator and quotation marks. No pandas, no torch."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from io import StringIO
from pathlib import Path

Row = tuple[int, list[str]]
LEADING_ZERO = re.compile(r"(?:^|\t)0\d", re.MULTILINE)  # beginning of a cell that is a code


class TextTableError(ValueError):
    """A text is not a table; the message contains the reason and the number of the line."""


def decode(content: bytes) -> str:
    """Decode text in UTF-8 or UTF-16, otherwise in Windows-1252 (Excel in western Europe)."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def read_text(path: Path) -> str:
    """Text of a file that may have been written by hand: tables, JSON and YAML files."""
    return decode(path.read_bytes())


def read_rows(text: str, ending: str, comment: str | None = None) -> list[Row]:
    """Cells of every row that is not empty.

    Parameters
    ----------
    text : str
    ending : str
        Suffix of the file name; ``.tsv`` means tabs, as in BIDS. In other files, and if the header has no
        tab, the separator is the tab, semicolon or comma that gives all rows the same number of cells,
        otherwise the most frequent one of the header.
    comment : str, optional
        Lines that begin with this text are skipped.

    Returns
    -------
    list of (int, list of str)
        Number of the line in the file, from 1, and the cells.

    Raises
    ------
    TextTableError
        A quotation mark is not closed.
    """
    lines = [
        (number, line)
        for number, line in enumerate(StringIO(text, newline=""), start=1)
        if not (comment and line.lstrip().startswith(comment))
    ]
    header = next((line for _, line in lines if line.strip()), "")
    if ending.lower() == ".tsv" and "\t" in header:
        return _parse(lines, "\t", multiline=False)
    unquoted = re.sub(r'"[^"]*"', "", header)
    separators = sorted((mark for mark in "\t;," if mark in unquoted), key=unquoted.count, reverse=True)
    for separator in separators:
        try:
            rows = _parse(lines, separator)
        except TextTableError:
            continue
        if len({len(cells) for _, cells in rows}) == 1:
            return rows
    return _parse(lines, separators[0] if separators else ",")


def _parse(lines: list[tuple[int, str]], separator: str, multiline: bool = True) -> list[Row]:
    reader = csv.reader((line for _, line in lines), delimiter=separator, strict=True)
    rows: list[Row] = []
    while True:
        first = reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return rows
        except csv.Error:
            raise _unclosed(lines[first][0]) from None
        width = len(rows[0][1]) if rows else len(cells)
        for _, continued in lines[first + 1 : reader.line_num]:
            # a continued line that has the separators of a full row: a quotation mark is missing
            if not multiline or continued.count(separator) >= max(width - 1, 1):
                raise _unclosed(lines[first][0])
        if any(cells):
            rows.append((lines[first][0], cells))


def _unclosed(number: int) -> TextTableError:
    return TextTableError(
        f'line {number}: a quotation mark (") is not closed, or text follows a closed one; '
        "close it, or write it twice inside a quoted value"
    )


def text_columns(text: str, labels: Collection[str]) -> set[str]:
    """Columns of a table whose cells stay text: `labels`, identifiers and codes with leading zeros."""
    names = text.partition("\n")[0].rstrip("\r").split("\t")
    found = {name for name in names if name in labels or name.endswith("_id")}
    for code in LEADING_ZERO.finditer(text):
        number = text.count("\t", text.rfind("\n", 0, code.start()) + 1, code.end())
        found |= {names[number]} if number < len(names) else set()
    return found

"""Any table with one line per image: participant_id, t1w_path and a label."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.data.layouts.bids import require_folder
from xai_brain.data.layouts.found import Found, image_row
from xai_brain.io.problems import DataError, Problems
from xai_brain.io.tables import read_participants, table_names

PATHS = ("t1w_path", "brain_mask_path", "truth_path")


def find(root: Path, problems: Problems, *, tables: list[str] | None = None) -> Found:
    """Find the images that a table lists.

    Parameters
    ----------
    root : Path
        Folder that contains all images; relative paths in the table refer to it.
    problems : Problems
        Receives lines without a path, paths that leave `root`, and missing files.
    tables : list of str, optional
        CSV, TSV or parquet with participant_id and t1w_path, optionally session_id, brain_mask_path,
        truth_path, space and any label; default: participants.tsv in `root`.

    Returns
    -------
    Found
    """
    require_folder(root, "the folder that contains the images, and data.tables=[cohort.csv] to the table")
    participants = read_participants(root, tables)
    where = table_names(root, tables)
    if "t1w_path" not in participants:
        raise DataError(f"{where}: has no column t1w_path (its columns: {', '.join(participants.columns)})")
    images: list[dict[str, Any]] = []
    for line in participants.to_dict("records"):
        participant_id = line["participant_id"]
        paths = {name: _path(root, line.get(name)) for name in PATHS}
        reason = _reason_unusable(root, paths)
        if reason:
            if not problems.has(participant_id):
                problems.add(participant_id, paths["t1w_path"] or where, reason)
            continue
        session_id, space = (_or_empty(line.get(name)) for name in ("session_id", "space"))
        assert paths["t1w_path"] is not None
        images.append(
            image_row(
                participant_id,
                paths["t1w_path"],
                session_id=session_id,
                brain_mask_path=paths["brain_mask_path"],
                truth_path=paths["truth_path"],
                space=space,
            )
        )
    participants = participants.drop(columns=[*PATHS, "space"], errors="ignore")
    return Found(participants, images, where)


def _path(root: Path, value: Any) -> Path | None:
    """Path below `root`, without ``..``; links are not followed because they may lead elsewhere."""
    if value is None or pd.isna(value):
        return None
    path, folder = Path(os.path.abspath(root / str(value))), Path(os.path.abspath(root))
    return root / path.relative_to(folder) if path.is_relative_to(folder) else path


def _reason_unusable(root: Path, paths: dict[str, Path | None]) -> str:
    if paths["t1w_path"] is None:
        return "its line has no t1w_path; add it, or remove the line"
    for name, path in paths.items():
        if path is not None and not path.is_relative_to(root):
            return f"{name} {path} lies outside data.root={root}; set data.root to a folder of all images"
        if path is not None and not path.exists() and not path.is_symlink():
            return f"{name} {path} does not exist; correct the table"
    return ""


def _or_empty(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)

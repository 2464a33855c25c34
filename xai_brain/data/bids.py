"""BIDS trees, raw or derivative: which image belongs to whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.data.problems import DataError, Problems
from xai_brain.volumes import parse_entities


def read_participants(root: Path) -> pd.DataFrame:
    """participants.tsv with ids that begin with ``sub-``; missing values are NaN."""
    path = root / "participants.tsv"
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; set data.root to the folder of participants.tsv")
    if not path.is_file():
        raise DataError(f"{path}: the file does not exist; BIDS wants one with the column participant_id")
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, na_values=["n/a", "N/A", ""])
    if "participant_id" not in table:
        raise DataError(f"{path}: has no column participant_id (its columns: {', '.join(table.columns)})")
    if table["participant_id"].isna().any():
        line = int(table.index[table["participant_id"].isna()][0]) + 2
        raise DataError(f"{path}: line {line} has no participant_id")
    ids = table["participant_id"].str.strip()
    table["participant_id"] = ids.where(ids.str.startswith("sub-"), "sub-" + ids)
    return table


def find_images(
    root: Path, participant_ids: list[str], entities: dict[str, str], problems: Problems
) -> pd.DataFrame:
    """One row per T1w image of the tree.

    Parameters
    ----------
    root : Path
    participant_ids : those of participants.tsv
    entities : which image where a folder holds several, e.g. ``{"desc": "brain"}``
    problems : Problems
        Told of ids without an image, images without an id, and ambiguous folders.

    Returns
    -------
    pandas.DataFrame
        participant_id, session_id (empty without sessions), t1w_path, brain_mask_path,
        truth_path, space (of the file name; may be empty).
    """
    rows: list[dict[str, Any]] = []
    folders = {folder.name: folder for folder in sorted(root.glob("sub-*")) if folder.is_dir()}
    for stranger in sorted(set(folders) - set(participant_ids)):
        problems.add(stranger, folders[stranger], "has a folder of images but no line in participants.tsv")
    for participant_id in dict.fromkeys(participant_ids):
        sessions = sorted(root.glob(f"{participant_id}/ses-*/anat")) or [root / participant_id / "anat"]
        found = [
            row for folder in sessions if (row := _one_image(folder, participant_id, entities, problems))
        ]
        if not found and not any(row["participant_id"] == participant_id for row in problems.rows):
            wanted = "".join(f" with {key}-{value}" for key, value in entities.items())
            problems.add(participant_id, root / participant_id / "anat", f"no T1w image{wanted}")
        rows += found
    columns = ["participant_id", "session_id", "t1w_path", "brain_mask_path", "truth_path", "space"]
    return pd.DataFrame(rows, columns=columns)


def _one_image(
    folder: Path, participant_id: str, entities: dict[str, str], problems: Problems
) -> dict[str, Any] | None:
    files = sorted(path for path in folder.glob("*.nii*") if path.name.endswith((".nii", ".nii.gz")))
    parsed = {path: parse_entities(path) for path in files}
    t1w = [path for path, found in parsed.items() if found["suffix"] == "T1w" and _match(found, entities)]
    if not t1w:
        return None
    if len(t1w) > 1:
        names = ", ".join(path.name for path in t1w)
        problems.add(participant_id, folder, f"{len(t1w)} T1w images ({names}); choose with data.entities")
        return None
    own = parsed[t1w[0]]
    same: dict[str, str] = {key: own[key] for key in ("ses", "space", "res") if key in own}

    def companion(desc: str) -> Path | None:
        wanted: dict[str, str] = {"desc": desc, "suffix": "mask"} | same
        return next((path for path, found in parsed.items() if _match(found, wanted)), None)

    return {
        "participant_id": participant_id,
        "session_id": folder.parent.name if folder.parent.name.startswith("ses-") else "",
        "t1w_path": t1w[0],
        "brain_mask_path": companion("brain"),
        "truth_path": companion("truth"),
        "space": own.get("space", ""),
    }


def _match(found: dict[str, str], wanted: dict[str, str]) -> bool:
    return all(found.get(key) == value for key, value in wanted.items())

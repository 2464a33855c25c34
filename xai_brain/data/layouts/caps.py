"""ClinicaDL CAPS: images of the t1-linear pipeline for a table of participants and sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xai_brain.data.layouts.bids import Entities, no_image, one_image, require_folder
from xai_brain.data.layouts.found import Found
from xai_brain.io.problems import DataError, Problems
from xai_brain.io.tables import VALID_ID, read_participants, table_names


def find(
    root: Path, problems: Problems, *, tables: list[str] | None = None, entities: Entities | None = None
) -> Found:
    """Find the images ``subjects/sub-<P>/ses-<V>/t1_linear`` for the lines of a table.

    Parameters
    ----------
    root : Path
        The CAPS folder, or the one above it.
    problems : Problems
    tables : list of str, optional
        TSV with participant_id, session_id and labels; default: participants.tsv in `root`.
        Sessions that it does not list do not belong to the cohort.
    entities : dict, optional
        ``{"desc": "Crop"}`` selects the cropped image if both exist, ``{"desc": None}`` the other.

    Returns
    -------
    Found
    """
    require_folder(root, "the CAPS folder, which contains the folder subjects")
    subjects = next((path for path in (root / "subjects", root / "caps" / "subjects") if path.is_dir()), None)
    if subjects is None:
        raise DataError(f"{root}: contains no folder subjects; set data.root to the CAPS folder")
    participants = read_participants(root, tables)
    images: list[dict[str, Any]] = []
    for participant_id, lines in participants.groupby("participant_id", sort=False):
        participant_id = str(participant_id)
        if not VALID_ID.fullmatch(participant_id):
            continue  # reported by `join`
        listed = set(lines["session_id"].dropna()) if "session_id" in participants else None
        folders = sorted(subjects.glob(f"{participant_id}/ses-*/t1_linear"))
        chosen = [folder for folder in folders if listed is None or folder.parent.name in listed]
        found = [one_image(folder, participant_id, entities or {}, problems) for folder in chosen]
        images += [row for row in found if row]
        if not any(found) and not problems.has(participant_id):
            problems.add(participant_id, subjects / participant_id, no_image(entities or {}))
    return Found(participants, images, table_names(root, tables), require_rows=False)

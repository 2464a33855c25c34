"""Participants and images of a layout, and their join."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from xai_brain.io.problems import Problems
from xai_brain.io.tables import VALID_ID, VALID_SESSION

IMAGE_COLUMNS = ["participant_id", "session_id", "t1w_path", "brain_mask_path", "truth_path", "space"]


class Found(NamedTuple):
    """Participants and images of a cohort.

    Parameters
    ----------
    participants : pandas.DataFrame
        participant_id, optionally session_id, and all other columns, as text.
    images : list of dict
        From `image_row`; further keys are values of that session.
    where : str
        The table or tables, for messages.
    require_images : bool, default True
        Whether a line without an image is a problem; tables of public studies often list more participants
        than were downloaded.
    require_rows : bool, default True
        Whether an image without a line is a problem; False if the table selects the participants.
    """

    participants: pd.DataFrame
    images: list[dict[str, Any]]
    where: str
    require_images: bool = True
    require_rows: bool = True


def image_row(
    participant_id: str,
    t1w_path: Path,
    *,
    session_id: str = "",
    brain_mask_path: Path | None = None,
    truth_path: Path | None = None,
    space: str = "",
) -> dict[str, Any]:
    """One image; `space` is empty if the source does not state it."""
    return {
        "participant_id": participant_id,
        "session_id": session_id,
        "t1w_path": t1w_path,
        "brain_mask_path": brain_mask_path,
        "truth_path": truth_path,
        "space": space,
    }


def join(found: Found, problems: Problems) -> pd.DataFrame:
    """One row per image with the values of its participant; mismatches are added to `problems`."""
    by_session = "session_id" in found.participants and any(image["session_id"] for image in found.images)
    keys = ["participant_id", "session_id"] if by_session else ["participant_id"]
    participants = (
        found.participants if by_session else found.participants.drop(columns="session_id", errors="ignore")
    )
    lines = _unique_lines(participants, keys, found.where, problems)
    rows, used = [], set()
    for image in found.images:
        key = tuple(image[name] for name in keys)
        if key in lines:
            used.add(key)
            # values of the session have precedence over those of the participant
            known = {name: value for name, value in image.items() if name in IMAGE_COLUMNS or pd.notna(value)}
            rows.append({**dict.fromkeys(IMAGE_COLUMNS), **lines[key], **known})
        elif found.require_rows and not problems.has(image["participant_id"]):
            table = " or ".join(Path(name).name for name in found.where.split(" + "))
            session = _session_suffix(image["session_id"])
            reason = f"has an image{session} but no line in {table}; add it, or remove the image"
            problems.add(image["participant_id"], image["t1w_path"], reason)
    if found.require_images:
        for key in lines:
            if key not in used and not problems.has(key[0]):
                session = _session_suffix(key[1]) if by_session else ""
                reason = f"has a line{session} but no T1w image; remove the line, or add it"
                problems.add(key[0], found.where, reason)
    columns = [*IMAGE_COLUMNS, *(name for name in _all_keys(rows) if name not in IMAGE_COLUMNS)]
    return pd.DataFrame({name: [row.get(name) for row in rows] for name in columns}, dtype=object)


def _unique_lines(
    participants: pd.DataFrame, keys: list[str], where: str, problems: Problems
) -> dict[tuple[str, ...], dict[str, Any]]:
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    several = participants.duplicated(keys, keep=False)
    for participant_id in participants.loc[several, "participant_id"].unique():
        problems.add(participant_id, where, "has several lines; keep one")
    for row in participants[~several].to_dict("records"):
        participant_id = row["participant_id"]
        if not VALID_ID.fullmatch(participant_id):
            problems.add(
                participant_id, where, "an id can contain letters, digits and hyphens only; rename it"
            )
        elif "session_id" in keys and pd.isna(row["session_id"]):
            problems.add(participant_id, where, "has no session_id; give the session of its image")
        elif "session_id" in keys and not VALID_SESSION.fullmatch(row["session_id"]):
            problems.add(
                participant_id, where, "a session_id can contain letters, digits and hyphens only; rename it"
            )
        else:
            lines[tuple(row[name] for name in keys)] = row
    return lines


def _session_suffix(session_id: str) -> str:
    return f" of {session_id}" if session_id else ""


def _all_keys(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))

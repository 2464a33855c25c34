"""BIDS trees, raw or derivative."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xai_brain.data.layouts.found import Found, image_row
from xai_brain.io.nifti import ImageError, parse_entities
from xai_brain.io.problems import DataError, Problems
from xai_brain.io.tables import VALID_ID, prefixed, read_participants, read_table, table_names
from xai_brain.io.twin_files import without_equal_twins

Entities = dict[str, str | None]


def find(
    root: Path, problems: Problems, *, tables: list[str] | None = None, entities: Entities | None = None
) -> Found:
    """Find the T1w images of a BIDS tree and the lines of participants.tsv.

    The images of the sessions (``sub-<id>/ses-<id>/anat``) are used or, if no session has one, the image of
    the participant (``sub-<id>/anat``).

    Parameters
    ----------
    root : Path
    problems : Problems
        Receives participants without an image and folders with several images.
    tables : list of str, optional
        Used instead of participants.tsv, which derivatives often lack; further tables add columns
        (``phenotype/*.tsv``). Values in ``sub-<id>_sessions.tsv`` have precedence.
    entities : dict, optional
        Entities that select one of several images of a folder, e.g. ``{"desc": "brain"}``. None selects a
        name without the entity; ``run: 1`` also selects a name without run.

    Returns
    -------
    Found
    """
    require_folder(root, "the folder of participants.tsv")
    participants = read_participants(root, tables)
    listed = list(dict.fromkeys(participants["participant_id"]))
    folders = [path.name for path in sorted(root.glob("sub-*")) if path.is_dir()]
    known_ids = set(listed)
    images: list[dict[str, Any]] = []
    for participant_id in [*listed, *(name for name in folders if name not in known_ids)]:
        if not VALID_ID.fullmatch(participant_id):
            continue  # reported by `join`, and never used in a path
        known = _sessions(root / participant_id / f"{participant_id}_sessions.tsv")
        sessions = sorted(root.glob(f"{participant_id}/ses-*/anat"))
        found = _images(sessions, participant_id, entities or {}, problems)
        if not found and not problems.has(
            participant_id
        ):  # one T1w image for all sessions (fMRIPrep, QSIPrep)
            found = _images([root / participant_id / "anat"], participant_id, entities or {}, problems)
        if not found and participant_id in known_ids and not problems.has(participant_id):
            problems.add(participant_id, root / participant_id / "anat", no_image(entities or {}))
        images += [{**known.get(row["session_id"], {}), **row} for row in found]
    return Found(participants, images, table_names(root, tables))


def _images(
    folders: list[Path], participant_id: str, entities: Entities, problems: Problems
) -> list[dict[str, Any]]:
    found = (one_image(folder, participant_id, entities, problems) for folder in folders)
    return [row for row in found if row]


def require_folder(root: Path, what: str) -> None:
    """Raise an error if `root` is not an existing folder."""
    if root.is_file():
        raise DataError(f"{root}: is a file; set data.root to {what}")
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; set data.root to {what}")


def no_image(entities: Entities) -> str:
    wanted = [f"{key}-{value}" if value else f"no {key}" for key, value in entities.items()]
    return "no T1w image" + (f" with {', '.join(wanted)}; see data.entities" if wanted else "; add it")


def _sessions(path: Path) -> dict[str, dict[str, Any]]:
    """Values of each session in sub-<id>_sessions.tsv."""
    if not path.is_file():
        return {}
    table = read_table(path)
    if "session_id" not in table:
        raise DataError(f"{path}: has no column session_id (its columns: {', '.join(table.columns)})")
    table["session_id"] = prefixed(table["session_id"], "ses-")
    if table["session_id"].duplicated().any():
        raise DataError(f"{path}: lists a session several times; keep one line of each")
    return {str(row["session_id"]): row for row in table.to_dict("records")}


def one_image(
    folder: Path, participant_id: str, entities: Entities, problems: Problems
) -> dict[str, Any] | None:
    """The T1w image of a folder with its masks; None if there is none or more than one."""
    try:
        return _one_image(folder, participant_id, entities, problems)
    except ImageError as error:  # .nii and .nii.gz of the same name
        problems.add(participant_id, error.path, error.reason)
        return None


def _one_image(
    folder: Path, participant_id: str, entities: Entities, problems: Problems
) -> dict[str, Any] | None:
    files = sorted(path for path in folder.glob("*.nii*") if path.name.endswith((".nii", ".nii.gz")))
    parsed = {path: parse_entities(path) for path in files}
    t1w = [path for path, found in parsed.items() if found["suffix"] == "T1w" and _match(found, entities)]
    t1w = without_equal_twins(t1w)
    if not t1w:
        return None
    if len(t1w) > 1:
        names = ", ".join(path.name for path in t1w)
        problems.add(participant_id, folder, f"{len(t1w)} T1w images ({names}); choose with data.entities")
        return None
    own = parsed[t1w[0]]

    def companion(desc: str) -> Path | None:
        masks = [
            path
            for path, found in parsed.items()
            if found["suffix"] == "mask" and found.get("desc") == desc and _belongs(found, own)
        ]
        return next(iter(without_equal_twins(masks)), None)

    return image_row(
        participant_id,
        t1w[0],
        session_id=folder.parent.name if folder.parent.name.startswith("ses-") else "",
        brain_mask_path=companion("brain"),
        truth_path=companion("truth"),
        space=own.get("space", ""),
    )


def _belongs(mask: dict[str, str], image: dict[str, str]) -> bool:
    """Whether a mask belongs to an image: same session, space, resolution and other entities of the mask."""
    same = all(mask.get(key) == image.get(key) for key in ("ses", "space", "res"))
    return same and all(
        mask.get(key, image.get(key)) == image.get(key) for key in ("acq", "ce", "rec", "run")
    )


def _match(found: dict[str, str], wanted: Entities) -> bool:
    return all(_same(key, found.get(key), value) for key, value in wanted.items())


def _same(key: str, value: str | None, wanted: str | None) -> bool:
    if key == "run" and wanted is not None and str(wanted).isdigit():
        return int(wanted) == int(value if value and value.isdigit() else 1 if value is None else -1)
    return value == (None if wanted is None else str(wanted))

"""Test for leakage: training and test parts must not share participants, families or images."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import pandas as pd

from xai_brain.io.atomic import file_hash
from xai_brain.io.problems import DataError, named

FAMILY = "family_id"


def audit_split(
    parts: dict[str, pd.DataFrame],
    *,
    where: str = "folds",
    group_column: str | None = None,
    allow_shared: Sequence[str] = (),
) -> None:
    """Refuse a split whose parts share a participant, a family or an image.

    Parameters
    ----------
    parts : dict of pandas.DataFrame
        ``train``, ``validation``, ``test`` from `split_fold`: participant_id and, where known,
        family_id, the group column, sha256 (of the image file) and content (of the prepared volume,
        see `content_hashes`).
    where : str, default "folds"
        Name of the split in messages, e.g. "fold 1".
    group_column : str, optional
        An additional column whose values must not be shared; family_id is always tested if it exists.
    allow_shared : sequence of str, default ()
        Columns whose values may be shared.

    Raises
    ------
    DataError
        Lists the shared ids and a remedy.
    """
    seen_in_training = pd.concat([parts["train"], parts["validation"]])
    sides = (
        ("test", parts["test"], "training", seen_in_training),
        ("validation", parts["validation"], "training", parts["train"]),
    )
    columns = [c for c in dict.fromkeys((FAMILY, group_column)) if c and c not in allow_shared]
    for name_a, a, name_b, b in sides:
        both = f"{where}: on the {name_a} and the {name_b} side"
        # sessions of a participant show the same brain: only the id is tested
        if shared := sorted(set(a["participant_id"]) & set(b["participant_id"])):
            raise DataError(f"{both}: {named(shared)}; a participant with all sessions belongs to one side")
        for column in columns:
            if column in a and (shared := _sharing(a, b, column)):
                raise DataError(
                    f"{both}: {column} of {named(shared)}; set folds.group_column={column} to keep them "
                    f"together, or accept it with folds.allow_shared=[{column}]"
                )
        for column, what in (("sha256", "image files"), ("content", "prepared volumes")):
            if column in a and (shared := _sharing(a, b, column)):
                raise DataError(
                    f"{both}: identical {what} of {named(shared)}; "
                    "leave out all but one, or correct whose image it is"
                )


def _sharing(a: pd.DataFrame, b: pd.DataFrame, column: str) -> list[str]:
    """Ids that share a value, for the first such value and for all, in pairs."""
    common = set(a[column].dropna()) & set(b[column].dropna())
    rows = pd.concat([a, b])
    rows = rows[rows[column].isin(common)].sort_values([column, "participant_id"], kind="stable")
    return list(dict.fromkeys(rows["participant_id"]))


def content_hashes(volume_paths: Sequence[str]) -> list[str | None]:
    """Hashes of the prepared volumes that may be equal; None for volumes that differ from all others.

    Two files can contain the same image, e.g. compressed twice. Only volumes whose middle slice is equal to
    that of another volume are read completely.

    Parameters
    ----------
    volume_paths : sequence of str
        Files of `prepare_cohort`.
    """
    slices = pd.Series([_middle_slice_hash(path) for path in volume_paths])
    same_slice = slices.duplicated(keep=False)
    whole = {
        path: file_hash(path)
        for path in sorted({p for p, s in zip(volume_paths, same_slice, strict=True) if s})
    }
    return [whole.get(path) for path in volume_paths]


def _middle_slice_hash(path: str) -> str:
    volume = np.load(path, mmap_mode="r")
    return sha256(np.ascontiguousarray(volume[len(volume) // 2]).tobytes()).hexdigest()

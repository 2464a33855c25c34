"""HCP Young Adult: images in one of three forms, and the unrestricted and restricted tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.data.layouts.bids import require_folder
from xai_brain.data.layouts.found import Found, image_row
from xai_brain.io.nifti import ImageError
from xai_brain.io.problems import DataError, Problems
from xai_brain.io.tables import prefixed, read_table, table_paths
from xai_brain.io.twin_files import without_equal_twins

MNI_IMAGE = "MNINonLinear/T1w_restore_brain.nii.gz"
ACPC_IMAGE = "T1w/T1w_acpc_dc_restore_brain.nii.gz"
MNI_SPACE = "MNI152NLin6Asym"
RESTRICTED = ("Age_in_Yrs", "Family_ID")


def find(
    root: Path,
    problems: Problems,
    *,
    label: str,
    tables: list[str] | None = None,
    image: str | None = None,
) -> Found:
    """Find the images in six-digit folders, or six-digit files, with age, sex and family.

    Parameters
    ----------
    root : Path
    problems : Problems
    label : str
        Only this column, the age and the family are read from the restricted table.
    tables : list of str, optional
        The unrestricted CSV and, if available, the restricted one; default: the files in `root` whose names
        begin with unrestricted and RESTRICTED.
    image : str, optional
        Path below the folder of a participant; by default the first of MNINonLinear/T1w_restore_brain.nii.gz
        and T1w/T1w_acpc_dc_restore_brain.nii.gz that exists, otherwise ``<id>.nii[.gz]`` in `root`.

    Returns
    -------
    Found
        Participants without an image are excluded without a message, because the tables list the whole study.
    """
    require_folder(root, "the folder that contains the six-digit ids")
    paths = _tables(root, tables)
    images = _images(root, image, problems)
    if not images:
        raise DataError(
            f"{root}: no T1w image found (<id>/{image or MNI_IMAGE}); set data.root to their folder, "
            "or data.image to the path below an id"
        )
    where = " + ".join(map(str, paths))
    return Found(_participants(paths, label), images, where, require_images=False)


def read_lines(root: Path, tables: list[str] | None, label: str) -> pd.DataFrame:
    """Lines of the tables with age, sex and family, also of participants without an image."""
    return _participants(_tables(root, tables), label)


def _tables(root: Path, tables: list[str] | None) -> list[Path]:
    paths = table_paths(root, tables or []) or sorted(
        path for path in root.glob("*.csv") if re.match(r"(un)?restricted", path.name, re.IGNORECASE)
    )
    if not paths:
        raise DataError(
            f"{root}: contains no unrestricted*.csv; give it with data.tables=[/path/to/unrestricted.csv]"
        )
    return paths


def _images(root: Path, image: str | None, problems: Problems) -> list[dict[str, Any]]:
    folders = [path for path in sorted(root.iterdir()) if re.fullmatch(r"\d{6}", path.name) and path.is_dir()]
    forms = [image] if image else [MNI_IMAGE, ACPC_IMAGE]
    form = next((name for name in forms if any((folder / name).exists() for folder in folders)), None)
    if form is None:
        files = sorted(path for path in root.glob("*.nii*") if re.fullmatch(r"\d{6}\.nii(\.gz)?", path.name))
        images = []
        for number in sorted({path.name[:6] for path in files}):
            try:
                (path,) = without_equal_twins(path for path in files if path.name[:6] == number)
                images.append(image_row(f"sub-{number}", path))
            except ImageError as error:
                problems.add(f"sub-{number}", error.path, error.reason)
        return images
    images = []
    for folder in folders:
        path = folder / form
        if not path.exists() and not path.is_symlink():
            problems.add(
                f"sub-{folder.name}",
                path,
                "no T1w image, unlike other participants; download it, or set data.image",
            )
            continue
        mask = path.with_name("brainmask_fs.nii.gz")  # needed for images of whole heads only
        needed = "brain" not in path.name and mask.exists()
        space = MNI_SPACE if form.startswith("MNINonLinear/") else ""
        row = image_row(f"sub-{folder.name}", path, brain_mask_path=mask if needed else None, space=space)
        images.append(row)
    return images


def _participants(paths: list[Path], label: str) -> pd.DataFrame:
    participants: pd.DataFrame | None = None
    for path in paths:
        table = read_table(path)
        if "Subject" not in table:
            raise DataError(f"{path}: has no column Subject (its columns: {', '.join(table.columns[:20])})")
        if set(RESTRICTED) & set(table.columns):
            # other columns of the restricted table are not copied
            kept = {"Subject", *RESTRICTED, label}
            table = table[[name for name in table if name in kept or name.lower() == label.lower()]]
        table["participant_id"] = prefixed(table.pop("Subject"), "sub-")
        if participants is None:
            participants = table
        else:
            new = [name for name in table if name not in participants or name == "participant_id"]
            participants = participants.merge(table[new], on="participant_id", how="outer")
    assert participants is not None
    for name, column in (("sex", "Gender"), ("family_id", "Family_ID"), ("age", "Age_in_Yrs")):
        if column in participants and name not in participants:
            participants[name] = participants[column]
    if "Age" in participants:  # age ranges; the restricted table contains years
        participants["age"] = (
            participants["age"].fillna(participants["Age"]) if "age" in participants else participants["Age"]
        )
    return participants.copy()

"""IXI as downloaded: a folder of images and the table of the study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.data.layouts.bids import require_folder
from xai_brain.data.layouts.found import Found, image_row
from xai_brain.io.nifti import ImageError
from xai_brain.io.problems import DataError, Problems
from xai_brain.io.tables import numbers, read_table, table_paths
from xai_brain.io.twin_files import without_equal_twins

NAME = re.compile(r"IXI(?P<id>\d{3})-(?P<site>[A-Za-z]+)-\d+-T1.*\.nii(\.gz)?")
FOLDERS = ("T1/IXI*.nii*", "IXI-T1/IXI*.nii*", "IXI*.nii*")
TABLES = ("IXI.csv", "IXI.tsv", "IXI.xls", "IXI.xlsx")


def find(
    root: Path, problems: Problems, *, tables: list[str] | None = None, image: str | None = None
) -> Found:
    """Find images such as ``T1/IXI002-Guys-0828-T1.nii.gz`` and the lines of IXI.xls.

    Parameters
    ----------
    root : Path
    problems : Problems
        Receives participants with contradictory lines, images without a line, and several images.
    tables : list of str, optional
        One table; by default IXI.csv, .tsv, .xls or .xlsx in `root`.
    image : str, optional
        Pattern of the images below `root`, by default that of the folders T1, IXI-T1 or `root` itself.
        A file that ends in ``_brain_mask`` or ``_mask`` beside an image is its brain mask.

    Returns
    -------
    Found
        With site (from the file name). A sex or age of 0 is missing, and compatible lines are merged.
        Participants without an image are excluded without a message: the table lists 619, the download
        contains 581.
    """
    require_folder(root, "the folder that contains T1 and IXI.xls")
    path = _table(root, tables)
    patterns = [image] if image else FOLDERS
    files = next((found for pattern in patterns if (found := _files(root, pattern))), [])
    if not files:
        raise DataError(
            f"{root}: no image {' or '.join(patterns)}; set data.root, or data.image to a pattern"
        )
    return Found(_participants(path, problems), _images(files, problems), str(path), require_images=False)


def read_lines(root: Path, tables: list[str] | None) -> pd.DataFrame:
    """Lines of the table with sex and age, also of participants without an image."""
    lines = _participants(_table(root, tables), Problems("skip"))
    return lines.assign(site="of the file name")


def _table(root: Path, tables: list[str] | None) -> Path:
    names = tables or [name for name in TABLES if (root / name).is_file()][:1]
    if not names:
        raise DataError(
            f"{root}: contains no IXI.xls or IXI.csv; name the table with data.tables=[/path/to/it]"
        )
    return table_paths(root, names[:1])[0]


def _files(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if NAME.fullmatch(path.name))


def _images(files: list[Path], problems: Problems) -> list[dict[str, Any]]:
    masks = {path for path in files if re.search(r"_mask\.nii", path.name)}
    by_participant: dict[str, list[Path]] = {}
    for path in files:
        if path not in masks:
            by_participant.setdefault(f"sub-{path.name[:6]}", []).append(path)
    images = []
    for participant_id, files_of_one in by_participant.items():
        try:
            found = without_equal_twins(files_of_one)
            mask = _mask_of(found[0], masks)
        except ImageError as error:
            problems.add(participant_id, error.path, error.reason)
            continue
        if len(found) > 1:
            text = ", ".join(path.name for path in found)
            problems.add(
                participant_id, found[0], f"{len(found)} T1w images ({text}); choose with data.image"
            )
            continue
        match = NAME.fullmatch(found[0].name)
        assert match is not None
        images.append({**image_row(participant_id, found[0], brain_mask_path=mask), "site": match["site"]})
    return images


def _mask_of(image: Path, masks: set[Path]) -> Path | None:
    """The brain mask in the folder of an image."""
    stem = image.name.split(".nii")[0]
    names = [f"{stem}{what}{ending}" for what in ("_brain_mask", "_mask") for ending in (".nii.gz", ".nii")]
    there = [path for name in names if (path := image.with_name(name)) in masks]
    return next(iter(without_equal_twins(there)), None)


def _participants(path: Path, problems: Problems) -> pd.DataFrame:
    table = read_table(path)
    upper = {name.upper(): name for name in table}
    id_column = upper.get("IXI_ID")
    sex_column = next((name for key, name in upper.items() if key.startswith("SEX_ID")), None)
    if id_column is None or sex_column is None:
        raise DataError(f"{path}: has no columns IXI_ID and SEX_ID (its columns: {', '.join(table.columns)})")
    ids = numbers(table[id_column].str.replace("IXI", "", regex=False).str.removeprefix("sub-"))
    table = table[ids.notna()].copy()
    table.insert(0, "participant_id", [f"sub-IXI{int(number):03d}" for number in ids.dropna()])
    table["sex"] = numbers(table[sex_column]).map({1.0: "male", 2.0: "female"}).astype(object)
    if "AGE" in upper:
        ages = table[upper["AGE"]]
        table["age"] = ages.mask(numbers(ages) <= 0, np.nan)  # a word stays, so that its user is told
    said = [name for name in ("sex", "age") if name in table]
    lines = []
    for participant_id, rows in table.groupby("participant_id", sort=True):
        different = [name for name in said if rows[name].nunique() > 1]
        if different:
            reason = f"its {len(rows)} lines differ in {' and '.join(different)}; keep the right one"
            problems.add(str(participant_id), path, reason)
            continue
        lines.append(rows.bfill().iloc[0])  # compatible lines are merged
    return pd.DataFrame(lines, columns=table.columns).reset_index(drop=True)

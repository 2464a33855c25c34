"""OASIS-1: the grey-matter maps (SPM VBM) that nilearn fetches."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from xai_brain.data.layouts.found import Found, image_row
from xai_brain.io.problems import DataError, Problems
from xai_brain.io.tables import as_text


def find(
    root: Path,
    problems: Problems,
    *,
    n_subjects: int | None = None,
    dartel: bool = True,
    url: str | None = None,
) -> Found:
    """Find modulated grey-matter maps in MNI152 space with age, sex, CDR and further columns.

    The values are densities and not T1w intensities; use ``preprocessing=vbm``. Users must accept the data
    use agreement of OASIS.

    Parameters
    ----------
    root : Path
        Data folder; the maps are in its folder oasis1 and are downloaded if they are missing.
    problems : Problems
    n_subjects : int, optional
        Number of images, in the order of the study; default: all (403, or 415 without DARTEL).
    dartel : bool, default True
    url : str, optional
        A mirror with archive_dartel.tgz (or archive.tgz), oasis_cross-sectional.csv and
        data_usage_agreement.txt.

    Returns
    -------
    Found
        OAS1_0001_MR1 is ``sub-OASIS10001``, as Clinica names it.
    """
    from nilearn.datasets import fetch_oasis_vbm

    if root.is_file():
        raise DataError(f"{root}: is a file; set data.root to the folder for oasis1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fetched = fetch_oasis_vbm(n_subjects, dartel, data_dir=str(root), url=url, verbose=0)
    except (OSError, ValueError, KeyError) as error:  # errors of requests are OSErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{root / 'oasis1'}: the maps do not exist and cannot be downloaded ({reason}); "
            "copy them there, or give a mirror with data.url"
        ) from error
    participants = as_text(fetched.ext_vars)
    if unknown := [name for name in participants["id"] if not _id(name)]:
        raise DataError(
            f"{root / 'oasis1'}: oasis_cross-sectional.csv has an id {unknown[0]!r}; fetch it again"
        )
    participants.insert(0, "participant_id", [_id(name) for name in participants["id"]])
    participants["sex"] = participants["mf"]
    paths = [root / "oasis1" / Path(*Path(path).parts[-2:]) for path in fetched.gray_matter_maps]
    images = [image_row(str(_id(path.name)), path, space="MNI152") for path in paths]
    return Found(
        participants, images, str(root / "oasis1" / "oasis_cross-sectional.csv"), require_images=False
    )


def _id(name: str) -> str | None:
    match = re.search(r"OAS1_(\d{4})_MR\d", name)
    return f"sub-OASIS1{match[1]}" if match else None

"""A cohort of brains with a planted difference between two classes, made offline from the MNI152 template.

Each participant is the template with an individual smooth deformation, contrast, bias field and noise. Class
M also has an effect in one sphere, whose content is expanded (or shrunk) and brighter (or darker). Outside
this sphere the classes have the same distribution by construction, so that the correct location is known. The
cohort is written as a BIDS derivative and read like real data.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.data.planted.synthetic_subject import (
    SyntheticSettings,
    load_templates,
    make_synthetic_subject,
)
from xai_brain.io.atomic import partial_prefix
from xai_brain.io.nifti import bids_name, get_grid, save_img
from xai_brain.parallel.progress import ShowProgress
from xai_brain.runs.directory import read_json, write_json, write_tsv

RECIPE = 1  # to be increased when the same settings give other images
SPACE = "MNI152"


def make_synthetic_cohort(
    root: str | Path, settings: SyntheticSettings, progress: ShowProgress = iter
) -> Path:
    """Write the cohort as a BIDS derivative; an existing cohort with the same settings is kept.

    For each T1w image (int16, 0 outside the brain) a mask of the location of the effect in this participant
    is written; for class F it is the location at which the effect would be.

    Parameters
    ----------
    root : str or Path
        Folder of the cohort, which becomes visible when the cohort is complete.
    settings : SyntheticSettings
    progress : function that wraps an iterable, optional

    Returns
    -------
    Path
        `root`.

    Raises
    ------
    ValueError
        `root` contains other files or a cohort with other settings.
    """
    root = Path(root)
    if _holds_cohort(root, settings):
        return root
    _check(settings)
    root.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root.parent, prefix=partial_prefix()) as folder:
        cohort = Path(folder) / "cohort"
        participants = []
        make = partial(make_synthetic_subject, settings=settings)
        pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        try:
            numbers = range(settings.n_subjects)
            made = pool.map(make, numbers)
            for _, (t1w, truth, participant) in zip(progress(numbers), made, strict=True):
                _write_subject(cohort, t1w, truth, participant["participant_id"], settings)
                participants.append(participant)
        finally:
            pool.shutdown(cancel_futures=True)  # after an interrupt, remaining images are not computed
        write_tsv(pd.DataFrame(participants), cohort / "participants.tsv")
        write_json(_description(settings), cohort / "dataset_description.json")
        try:
            os.rename(cohort, root)
        except OSError:  # another process has written the cohort
            if not _holds_cohort(root, settings):
                raise
    return root


def _write_subject(
    cohort: Path, t1w: np.ndarray, truth: np.ndarray, participant_id: str, settings: SyntheticSettings
) -> None:
    for data, desc, suffix in ((t1w, "brain", "T1w"), (truth, "truth", "mask")):
        name = bids_name(participant_id, space=SPACE, desc=desc, suffix=suffix)
        path = cohort / participant_id / "anat" / f"{name}.nii.gz"
        save_img(data, get_grid(settings.grid).affine, path, space=SPACE)


def _description(settings: SyntheticSettings) -> dict[str, Any]:
    return {
        "Name": "Synthetic brains with a planted difference between two classes",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "xai-brain", "Version": metadata.version("xai-brain")}],
        "SyntheticSettings": {"recipe": RECIPE, **asdict(settings)},
    }


def _holds_cohort(root: Path, settings: SyntheticSettings) -> bool:
    """Whether the cohort exists; raises an error if `root` contains something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    description = root / "dataset_description.json"
    there = read_json(description).get("SyntheticSettings") if description.exists() else None
    if there is None:
        raise ValueError(f"{root}: exists and is not a synthetic cohort; choose another folder")
    asked = _description(settings)["SyntheticSettings"]
    differences = [
        f"{key} is {there.get(key)!r}, requested is {asked.get(key)!r}"
        for key in sorted({*there, *asked})
        if there.get(key) != asked.get(key)
    ]
    if differences:
        raise ValueError(f"{root}: contains a cohort with other settings ({'; '.join(differences)})")
    if len(list(root.glob("sub-*/anat/*.nii.gz"))) < 2 * settings.n_subjects:
        raise ValueError(f"{root}: images are missing from this cohort; remove the folder to create it again")
    return True


def _check(settings: SyntheticSettings) -> None:
    if settings.n_subjects < 2:
        raise ValueError(f"n_subjects is {settings.n_subjects}; two classes need at least 2")
    if not -0.4 <= settings.effect_volume_change <= 1:  # beyond it the sphere would fold
        raise ValueError(f"effect_volume_change is {settings.effect_volume_change}; it must be in [-0.4, 1]")
    if not -0.5 <= settings.effect_intensity_change <= 1:
        raise ValueError(
            f"effect_intensity_change is {settings.effect_intensity_change}; it must be in [-0.5, 1]"
        )
    if settings.dose and settings.further_centers_mm:
        raise ValueError("dose and further_centers_mm: a dose has one location; leave one of them out")
    if shares := settings.class_shares:
        if len(shares) < 2 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(
                f"class_shares is {shares}; two shares or more, above 0 and with the sum 1, are needed"
            )
        n_centers = 1 + len(settings.further_centers_mm)
        if settings.dose or n_centers != len(shares) - 1:
            raise ValueError(
                f"class_shares of {len(shares)} classes need {len(shares) - 1} locations and no dose, not "
                f"{n_centers} in effect_center_mm and further_centers_mm"
            )
    if not settings.effect_radius_mm > 0:
        raise ValueError(f"effect_radius_mm is {settings.effect_radius_mm}; it must be above 0")
    templates = load_templates(settings.grid)
    if templates.sample(templates.brain, np.asarray(settings.effect_center_mm, np.float32)) < 0.5:
        raise ValueError(
            f"effect_center_mm {list(settings.effect_center_mm)} is outside the brain of the template"
        )

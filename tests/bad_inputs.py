"""Six participants in a BIDS folder, and the ways in which tests of their input change it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from conftest import COARSE
from omegaconf import DictConfig

from xai_brain import RunDirectory, compose
from xai_brain.config.checks import read_config
from xai_brain.study.participants import prepared_cohort

EVERYBODY = [f"sub-{i:02d}" for i in range(6)]
VICTIM = "sub-03"
OTHERS = [name for name in EVERYBODY if name != VICTIM]


def make_tree(root: Path, brains: Path) -> Path:
    for name in EVERYBODY:
        image(root, name).parent.mkdir(parents=True)
        shutil.copy(brains / f"{name}.nii.gz", image(root, name))
    lines = [f"{name}\t{'MF'[i % 2]}\t{20 + i}" for i, name in enumerate(EVERYBODY)]
    table(root).write_text("\n".join(["participant_id\tsex\tage", *lines]) + "\n")
    return root


def image(root: Path, name: str = VICTIM) -> Path:
    return root / name / "anat" / f"{name}_space-MNI152_desc-brain_T1w.nii.gz"


def mask(root: Path) -> Path:
    return image(root).with_name(f"{VICTIM}_space-MNI152_desc-brain_mask.nii.gz")


def table(root: Path) -> Path:
    return root / "participants.tsv"


def cohort(root: Path, run_dir: Path, *overrides: str) -> pd.DataFrame:
    """As `xai-brain train` begins."""
    cfg = composed(overrides).copy()
    cfg.data.root = str(root)
    return prepared_cohort(read_config(cfg), RunDirectory(run_dir))


@lru_cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    given = () if any(text.startswith("data=") for text in overrides) else ("data=bids",)
    return compose("train", [*given, "data.root=set later", "preprocessing=t1w_4mm", *overrides])


def data_of(root: Path) -> np.ndarray:
    return nib.load(image(root)).get_fdata(dtype=np.float32)


def put(change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray = COARSE) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        nib.save(nib.Nifti1Image(change(data_of(root)), affine), image(root))

    return damage


def lines(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        people = pd.read_csv(table(root), sep="\t", dtype=str)
        change(people).to_csv(table(root), sep="\t", index=False, na_rep="n/a")

    return damage


def sexes(*values: str | None) -> Callable[[Path], object]:
    return lines(lambda people: people.assign(sex=list(values)))


def as_table(change: Callable[[str], str] = str) -> Callable[[Path], object]:
    """The same cohort as a CSV with paths; `change` is given its text."""

    def damage(root: Path) -> None:
        people = [
            f"{name},{'MF'[i % 2]},{image(root, name).relative_to(root)}" for i, name in enumerate(EVERYBODY)
        ]
        text = "\n".join(["participant_id,sex,t1w_path", *people]) + "\n"
        (root / "cohort.csv").write_text(change(text))

    return damage


TABLE = ("data=table", "data.tables=[cohort.csv]", "data.space=MNI152")


def truncate(path: Path, n: int) -> None:
    path.write_bytes(path.read_bytes()[:n])

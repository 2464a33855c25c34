"""A run as files, made by hand: brains, maps with a peak at a known place, tables. Nothing is trained."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.io.nifti import get_grid, save_img
from xai_brain.runs.directory import RunDirectory, write_tsv

METHODS = ("GradCAM", "GuidedBackprop", "MeaningfulPerturbation", "Occlusion")
PLANTED_MM = (-34.0, -20.0, -14.0)


def write_run(
    folder: Path, *, grid: str = "t1w_2mm", n_subjects: int = 3, n_written: int | None = None
) -> RunDirectory:
    """Write a run of two classes, four methods and one truth per subject.

    Parameters
    ----------
    folder : Path
    grid : str, default "t1w_2mm"
        91x109x91 voxels.
    n_subjects : int, default 3
        In the tables.
    n_written : int, optional
        Subjects that have images too; default all.
    """
    run, where = RunDirectory(folder), get_grid(grid)
    folder.mkdir(parents=True, exist_ok=True)
    mm = nib.affines.apply_affine(where.affine, np.stack(np.indices(where.shape), -1)).astype(np.float32)
    brain = (((mm - np.float32([0, -18, 10])) / np.float32([68, 85, 62])) ** 2).sum(-1) < 1
    blob = np.exp(-((mm - np.float32(PLANTED_MM)) ** 2).sum(-1) / (2 * 8.0**2))
    ids = [f"sub-{i:04d}" for i in range(1, n_subjects + 1)]
    table = pd.DataFrame({"participant_id": ids, "session_id": "", "seed": 0})
    table["fold"], table["target"] = np.arange(n_subjects) % 2, np.arange(n_subjects) % 2
    table["prob_female"] = np.where(table["target"] == 0, 0.9, 0.3)
    table["prob_male"] = 1 - table["prob_female"]
    write_tsv(table, run.predictions)
    write_tsv(table[["participant_id", "session_id", "target"]].assign(label="x"), run.participants)
    for i, name in enumerate(ids[:n_written]):
        rng = np.random.default_rng(i)
        texture = 120 + 40 * np.cos(mm[..., 0] / 9) * np.cos(mm[..., 1] / 11) * np.cos(mm[..., 2] / 10)
        image = np.where(brain, texture + 12 * rng.standard_normal(where.shape, np.float32), 0)
        save_img(np.clip(image, 0, 255).astype(np.uint8), where.affine, run.image(name, None))
        save_img(blob > 0.6, where.affine, run.image(name, None, "mask"))
        for k, method in enumerate(METHODS):
            noise = rng.standard_normal(where.shape, np.float32) * (0.15 if method != METHODS[2] else 0.0)
            values = (blob + noise) * brain * 10.0 ** (-2 * (k % 3))
            values = np.abs(values) if method == METHODS[2] else values
            path = run.attribution(name, None, method, 0)
            save_img(values.astype(np.float32), where.affine, path)
    return run


def atlas() -> tuple[nib.Nifti1Image, pd.DataFrame]:
    """Labels of 16 mm cubes on a grid of their own, each with a name."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    i, j, k = np.indices((46, 55, 46)) // 4
    labels = (1 + i + 12 * j + 12 * 14 * k).astype(np.int16)
    indices = np.unique(labels)
    return nib.Nifti1Image(labels, affine), pd.DataFrame(
        {"index": indices, "name": [f"region {n}" for n in indices]}
    )

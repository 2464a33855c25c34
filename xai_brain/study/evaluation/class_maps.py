"""Mean, standard deviation and median of the maps of each class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from xai_brain.io.nifti import load_img
from xai_brain.parallel.progress import track
from xai_brain.runs.contents import TRUTH
from xai_brain.runs.directory import RunDirectory
from xai_brain.runs.group_maps import write_group_map
from xai_brain.statistics.map_rows import MapRows, describe
from xai_brain.study.run_images import brain_share, made_by, map_values, truth_of


def write_class_maps(
    run: RunDirectory, maps: list[dict[str, Any]]
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray], dict[str, int]]:
    """Write the maps of every class and method to group/.

    Seeds and sessions of a participant are averaged first. Empty maps are counted and excluded.

    Parameters
    ----------
    run : RunDirectory
    maps : list of dict
        From `xai_brain.study.evaluation.found_maps.find_maps`.

    Returns
    -------
    means : dict of class to dict of method to ndarray of shape (X, Y, Z)
    brain_masks : dict of class to ndarray of shape (X, Y, Z), bool
        Voxels in more than half of the brains of the class.
    n_empty : dict of method to int
    """
    table = pd.DataFrame(maps)
    means: dict[str, dict[str, np.ndarray]] = {}
    brain_masks: dict[str, np.ndarray] = {}
    n_empty = dict.fromkeys(table["method"].unique(), 0)
    for label, of_class in table.groupby("label", sort=True):
        share, affine = brain_share(run, of_class)
        brain_masks[str(label)], means[str(label)] = share > 0.5, {}
        methods = list(of_class.groupby("method", sort=False))
        for method, of_method in track(methods, f"class maps, {label}", "methods", brief=True):
            subjects = of_method.groupby("participant_id", sort=False)["path"].agg(list)
            rows = MapRows(len(subjects), share.size, run.path / "group")
            n_rows = n_left_out = 0
            for paths in subjects:
                found = [values for values in map(map_values, paths) if values.any()]
                n_left_out += len(paths) - len(found)
                if found:
                    rows[n_rows] = np.mean(found, axis=0, dtype=np.float64).ravel()
                    n_rows += 1
            n_empty[method] += n_left_out
            if not n_rows:
                continue
            source = made_by(of_method["path"])
            for stat, values in describe(rows, np.arange(n_rows)).items():
                about = {
                    "Class": label,
                    "NumberOfSubjects": n_rows,
                    "NumberOfMaps": len(of_method) - n_left_out,
                    "NumberOfEmptyMaps": n_left_out,
                    "Scaling": "none, raw values",
                    **source,
                }
                volume = values.reshape(share.shape)
                quantity, sources = f"class-{label}", of_method["path"]
                write_group_map(run, str(method), quantity, stat, volume, affine, about, sources)
                if stat == "mean":
                    means[str(label)][str(method)] = volume
    return means, brain_masks, n_empty


def write_mean_truth(run: RunDirectory, maps: list[dict[str, Any]]) -> None:
    """Write, for every voxel, the share of images with a planted effect whose effect contains it."""
    images = pd.DataFrame(maps)[["participant_id", "session_id"]].drop_duplicates()
    total, n = np.zeros(()), 0
    for row in images.itertuples():
        if (truth := truth_of(run, row.participant_id, row.session_id)) is not None:
            total, n = total + truth, n + 1
    if n:
        affine = load_img(maps[0]["path"]).affine
        about = {
            "Description": "share of the images whose planted effect contains the voxel",
            "NumberOfImages": n,
            "Units": "1",
        }
        write_group_map(run, TRUTH, "class-all", "mean", (total / n).astype(np.float32), affine, about)

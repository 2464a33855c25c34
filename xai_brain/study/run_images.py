"""Read and write the images of a run: maps, brain masks and masks of true effects."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.io.nifti import Grid, load_img, resample_to_grid, save_img
from xai_brain.io.problems import DataError
from xai_brain.parallel.progress import track
from xai_brain.parallel.threads import write_all
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar, write_json


def map_values(path: Path) -> np.ndarray:
    """Voxels of a map, (X, Y, Z) float32.

    Raises
    ------
    DataError
        The map contains NaN or infinite values.
    """
    values = np.asanyarray(load_img(path).dataobj)
    if not np.isfinite(values).all():
        raise DataError(f"{path}: holds NaN or infinite values; remove it and run `xai-brain explain` again")
    return values


def made_by(paths: Iterable[Path]) -> dict[str, Any]:
    """Settings, networks and code versions of maps, from their sidecars; recorded with derived results."""
    sidecars = [read_json(sidecar(path)) for path in paths]
    networks = {str(about["CheckpointSHA256"]) for about in sidecars if "CheckpointSHA256" in about}
    return {
        "Parameters": sidecars[0].get("Parameters"),
        "CheckpointsSHA256": sorted(networks),
        "Versions": sidecars[0].get("Versions"),
        "GitCommits": sorted({str(about["GitCommit"]) for about in sidecars if about.get("GitCommit")}),
    }


def brain_of(run: RunDirectory, participant_id: str, session_id: str) -> np.ndarray:
    """Brain mask of a participant, (X, Y, Z) bool."""
    return np.asanyarray(load_img(run.image(participant_id, session_id)).dataobj) > 0


def truth_of(run: RunDirectory, participant_id: str, session_id: str) -> np.ndarray | None:
    """True voxels of a planted effect, (X, Y, Z) bool; None where they are not known."""
    path = run.image(participant_id, session_id, "mask")
    return np.asanyarray(load_img(path).dataobj) > 0 if path.exists() else None


def brain_share(run: RunDirectory, maps: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Share of images in whose brain each voxel lies, (X, Y, Z), and the affine."""
    images = maps[["participant_id", "session_id"]].drop_duplicates()
    total: Any = 0.0
    affine = np.eye(4)
    for row in images.itertuples():
        img = load_img(run.image(row.participant_id, row.session_id))
        total, affine = total + (np.asanyarray(img.dataobj) > 0), img.affine
    return np.asarray(total) / len(images), affine


def write_images(run: RunDirectory, cohort: pd.DataFrame, grid: Grid, orientation: str | None) -> None:
    """Write T1-weighted images for display (uint8, 0 outside the brain) and masks of planted effects.

    `orientation` is ``data.orientation``, used for files that state none.
    """

    def write(row: dict[Hashable, Any]) -> None:
        if row.get("alignment_path"):
            write_json(
                read_json(Path(row["alignment_path"])),
                run.alignment(row["participant_id"], row["session_id"]),
            )
        if has_images(run, row):
            return
        path, truth = image_paths(run, row)
        volume, mask = np.load(row["volume_path"]), np.load(row["volume_mask_path"])
        if row["truth_path"]:
            data = resample_to_grid(load_img(row["truth_path"], orientation), grid, order=0) > 0.5
            save_img(data, grid.affine, truth, space=run.space)
        save_img(scale_to_uint8(volume, mask), grid.affine, path, space=run.space)

    progress = partial(track, description="write images", unit="images", brief=True)
    write_all(write, cohort.to_dict("records"), progress)


def image_paths(run: RunDirectory, row: dict[Hashable, Any]) -> tuple[Path, Path]:
    """Paths of the T1-weighted image and of the mask of the planted effect."""
    ids = (row["participant_id"], row["session_id"])
    return run.image(*ids), run.image(*ids, "mask")


def has_images(run: RunDirectory, row: dict[Hashable, Any]) -> bool:
    path, truth = image_paths(run, row)
    return path.exists() and (truth.exists() or not row["truth_path"])


def has_all_images(run: RunDirectory) -> bool:
    """Whether the display images of all participants exist; masks of planted effects are written first."""
    rows = read_tsv(run.participants).itertuples()
    return all(run.image(row.participant_id, row.session_id).exists() for row in rows)


def scale_to_uint8(volume: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    """Scale to uint8: 0.5th to 99.5th percentile of the brain become 1 to 255, outside is 0."""
    low, high = np.percentile(volume[brain_mask], [0.5, 99.5])
    scaled = 1 + 254 * np.clip((volume - low) / max(high - low, 1e-6), 0, 1)
    return np.where(brain_mask, scaled, 0).round().astype(np.uint8)

"""Images of a run as arrays: maps, brains and true places. Every stage reads them here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.data.problems import DataError
from xai_brain.runs import RunDirectory, read_json, sidecar
from xai_brain.volumes import load_img

SPACE = "MNI152"  # of everything that was prepared


def map_values(path: Path) -> np.ndarray:
    """Voxels of a map, (X, Y, Z) float32.

    Raises
    ------
    DataError
        The map holds NaN or infinite values.
    """
    values = np.asanyarray(load_img(path).dataobj)
    if not np.isfinite(values).all():
        raise DataError(f"{path}: holds NaN or infinite values; remove it and run `xai-brain explain` again")
    return values


def made_by(paths: Iterable[Path]) -> dict[str, Any]:
    """Settings, networks and code that made these maps, by their sidecars: for what is made of them."""
    told = [read_json(sidecar(path)) for path in paths]
    networks = {str(about["CheckpointSHA256"]) for about in told if "CheckpointSHA256" in about}
    return {
        "Parameters": told[0].get("Parameters"),
        "CheckpointsSHA256": sorted(networks),
        "Versions": told[0].get("Versions"),
        "GitCommits": sorted({str(about["GitCommit"]) for about in told if about.get("GitCommit")}),
    }


def brain_of(run: RunDirectory, participant_id: str, session_id: str) -> np.ndarray:
    """Brain mask of a subject, (X, Y, Z) bool."""
    return np.asanyarray(load_img(run.image(participant_id, session_id, SPACE)).dataobj) > 0


def truth_of(run: RunDirectory, participant_id: str, session_id: str) -> np.ndarray | None:
    """True voxels of a planted effect, (X, Y, Z) bool; None where they are not known."""
    path = run.image(participant_id, session_id, SPACE, "mask")
    return np.asanyarray(load_img(path).dataobj) > 0 if path.exists() else None


def brain_share(run: RunDirectory, maps: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Share of images whose brain holds a voxel, (X, Y, Z), and the affine."""
    images = maps[["participant_id", "session_id"]].drop_duplicates()
    total: Any = 0.0
    affine = np.eye(4)
    for row in images.itertuples():
        img = load_img(run.image(row.participant_id, row.session_id, SPACE))
        total, affine = total + (np.asanyarray(img.dataobj) > 0), img.affine
    return np.asarray(total) / len(images), affine

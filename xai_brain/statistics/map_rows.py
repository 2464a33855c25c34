"""Maps of a group on disk, and their voxel-wise description."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile, gettempdir

import numpy as np

from xai_brain.io.atomic import disk_full_errors


class MapRows:
    """Maps of subjects on disk, (n_subjects, n_voxels) float32, in a temporary file.

    Parameters
    ----------
    n_subjects, n_voxels : int
    folder : Path, optional
        Folder of the file; default: the folder of the system for temporary files.
    """

    def __init__(self, n_subjects: int, n_voxels: int, folder: Path | None = None):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:  # deleted with the last reference, also after a crash
            if hasattr(os, "posix_fallocate"):  # a full disk raises an error here instead of a signal later
                with disk_full_errors(folder or Path(gettempdir())):
                    os.posix_fallocate(file.fileno(), 0, 4 * n_subjects * n_voxels)
            self.values = np.memmap(file, np.float32, "w+", shape=(n_subjects, n_voxels))

    def __setitem__(self, row: int, values: np.ndarray) -> None:
        self.values[row] = values

    def blocks(self, rows: np.ndarray, size: int = 20_000) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of voxels of some rows as float64, (n_rows, size)."""
        for start in range(0, self.values.shape[1], size):
            part = slice(start, start + size)
            yield part, np.asarray(self.values[rows, part], np.float64)


def describe(maps: MapRows, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, standard deviation and median over subjects.

    Parameters
    ----------
    maps : MapRows
    rows : ndarray of int
        Subjects of the class; at least one.

    Returns
    -------
    dict of ndarray of shape (n_voxels,), float32
        ``mean``, ``sd`` (with n - 1; 0 for one participant) and ``median``.
    """
    found = {name: np.empty(maps.values.shape[1], np.float32) for name in ("mean", "sd", "median")}
    for part, values in maps.blocks(rows):
        found["mean"][part] = values.mean(0)
        found["sd"][part] = values.std(0, ddof=1) if len(rows) > 1 else 0
        found["median"][part] = np.median(values, axis=0)
    return found

"""Images that are stored twice, compressed and uncompressed; only one file is used. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from xai_brain.io.nifti import ImageError, load_img


def without_equal_twins(paths: Iterable[Path]) -> list[Path]:
    """Exclude each ``x.nii`` beside an ``x.nii.gz`` with the same voxels and affine.

    Parameters
    ----------
    paths : iterable of Path
        NIfTI files.

    Returns
    -------
    list of Path
        The remaining paths, in the same order.

    Raises
    ------
    ImageError
        Two files of the same name contain different images, or one of them cannot be read.
    """
    given = list(paths)
    twins = {path for path in given if path.suffix == ".nii" and _compressed(path) in set(given)}
    for path in twins:
        _require_equal(path, _compressed(path))
    return [path for path in given if path not in twins]


def _compressed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def _require_equal(path: Path, twin: Path) -> None:
    first, second = load_img(path), load_img(twin)
    same = first.shape == second.shape and np.allclose(first.affine, second.affine, atol=1e-4)
    if not same or not np.array_equal(
        np.asanyarray(first.dataobj), np.asanyarray(second.dataobj), equal_nan=True
    ):
        raise ImageError(
            path, f"contains another image than {twin.name} beside it; remove or rename the wrong one"
        )

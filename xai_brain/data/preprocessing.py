"""From a T1w image to the volume a network sees, and the cache of the result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from xai_brain.data.problems import Problems
from xai_brain.nifti_header import require_file
from xai_brain.volumes import (
    ImageError,
    file_hash,
    get_grid,
    load_img,
    resample_to_grid,
    same_grid,
    template_brain_mask,
    write_atomic,
)

ALGORITHM = 1  # part of every cache key; raise it when the same settings give other numbers
MIN_TEMPLATE_DICE = 0.85


@dataclass(frozen=True)
class Preparation:
    """Settings of `preprocess_t1w`.

    Parameters
    ----------
    grid : str, default "t1w_58x70x58"
        Name of a grid in `xai_brain.volumes.GRIDS`.
    zscore : bool, default True
        Mean 0 and standard deviation 1 inside the brain, 0 outside.
    antialias : bool, default True
    """

    grid: str = "t1w_58x70x58"
    zscore: bool = True
    antialias: bool = True


class Prepared(NamedTuple):
    """A prepared image: `volume` (X, Y, Z) float32, `brain_mask` (X, Y, Z) bool, `affine` (4, 4)."""

    volume: np.ndarray
    brain_mask: np.ndarray
    affine: np.ndarray


def preprocess_t1w(
    t1w_img: nib.Nifti1Image,
    settings: Preparation,
    *,
    brain_mask_img: nib.Nifti1Image | None = None,
    space: str | None = None,
    path: str | Path = "image",
) -> Prepared:
    """Bring a skull-stripped T1w image in MNI152 space to the model's grid.

    Parameters
    ----------
    t1w_img : nibabel.Nifti1Image
        Any axes, spacing and obliquity.
    settings : Preparation
    brain_mask_img : nibabel.Nifti1Image, optional
        On the grid of the image. Without it, the voxels that are not exactly 0 are the brain.
    space : str, optional
        Name of the image's space, when it is known; otherwise the overlap of its brain with the
        template's decides whether it is MNI152.
    path : str or Path
        For messages.

    Returns
    -------
    Prepared

    Raises
    ------
    ImageError
        Constant, all NaN, not skull-stripped, mask of another grid, outside MNI space.
    """
    data = t1w_img.get_fdata(dtype=np.float32)
    finite = np.isfinite(data)
    if not finite.any():
        raise ImageError(path, "has no finite voxel")
    data = np.where(finite, data, 0)
    if data.min() == data.max():
        raise ImageError(path, f"is constant ({data.flat[0]:g} everywhere)")
    inside = _brain(data, t1w_img, brain_mask_img, path)
    _require_finite(finite, inside, path)

    grid = get_grid(settings.grid)
    weight = resample_to_grid(_like(t1w_img, inside), grid, antialias=settings.antialias)
    volume = resample_to_grid(_like(t1w_img, data * inside), grid, antialias=settings.antialias)
    brain_mask = weight > 0.5
    _require_mni(brain_mask, settings.grid, space, path)
    # dividing by the weight keeps the rim of the brain from being darkened by the zeros around it
    volume = np.divide(volume, weight, out=np.zeros_like(volume), where=brain_mask)
    if settings.zscore:
        values = volume[brain_mask].astype(np.float64)
        if values.std() <= 1e-6 * np.abs(values).max():  # what rounding leaves of a constant
            raise ImageError(path, "is constant inside the brain")
        volume = np.where(brain_mask, (volume - values.mean()) / values.std(), 0).astype(np.float32)
    return Prepared(volume, brain_mask, grid.affine)


def _brain(
    data: np.ndarray, t1w_img: nib.Nifti1Image, brain_mask_img: nib.Nifti1Image | None, path: str | Path
) -> np.ndarray:
    if brain_mask_img is not None:
        if not same_grid(brain_mask_img, t1w_img):
            raise ImageError(
                path,
                f"its brain mask has another grid (shape {brain_mask_img.shape}, or affine)",
            )
        inside = np.asanyarray(brain_mask_img.dataobj) > 0.5
        if not inside.any():
            raise ImageError(path, "its brain mask is empty")
        return inside
    inside = data != 0
    if inside.mean() > 0.8:
        raise ImageError(
            path, "is not skull-stripped and has no brain mask (a file ..._desc-brain_mask.nii.gz beside it)"
        )
    return inside


def _require_finite(finite: np.ndarray, inside: np.ndarray, path: str | Path) -> None:
    """NaN around the brain counts as background; in it, or enclosed by it, it would become a value."""
    if finite.all():
        return
    n_lost = int((ndimage.binary_fill_holes(inside) & ~finite).sum())
    if n_lost:
        raise ImageError(
            path, f"{n_lost} voxels in its brain are NaN or infinite; fill them, or mask them out"
        )


def _require_mni(brain_mask: np.ndarray, grid: str, space: str | None, path: str | Path) -> None:
    if not brain_mask.any():
        raise ImageError(path, f"none of its brain lies in the grid {grid}: is its affine right?")
    if space is not None and space.upper().startswith("MNI"):
        return
    template = template_brain_mask(grid)
    dice = 2 * (brain_mask & template).sum() / (brain_mask.sum() + template.sum())
    if space is not None or dice < MIN_TEMPLATE_DICE:
        known = f"space-{space}" if space else f"Dice with the template's brain {dice:.2f}"
        raise ImageError(
            path, f"is not in MNI152 space ({known}); register it first, or set data.space=MNI152"
        )


def _like(img: nib.Nifti1Image, data: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image(data.astype(np.float32), img.affine)


def default_cache_dir() -> Path:
    return Path(os.environ.get("XAI_BRAIN_CACHE", "~/.cache/xai_brain")).expanduser()


def prepare_cohort(
    participants: pd.DataFrame,
    settings: Preparation,
    *,
    cache_dir: str | Path | None = None,
    space: str | None = None,
    problems: Problems | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> pd.DataFrame:
    """Prepare every image of a cohort, or take it from the cache.

    Parameters
    ----------
    participants : pandas.DataFrame
        From `load_participants`.
    settings : Preparation
    cache_dir : str or Path, optional
        Default: ``$XAI_BRAIN_CACHE``, else ``~/.cache/xai_brain``.
    space : str, optional
        Space of images whose names do not say it.
    problems : Problems, optional
    progress : function that wraps an iterable

    Returns
    -------
    pandas.DataFrame
        The rows that could be prepared, with ``volume_path`` and ``volume_mask_path`` (memory-mappable
        .npy on the grid of the settings) and ``sha256`` of the image file.
    """
    problems = problems or Problems()
    folder = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    rows = []
    for row in progress(list(participants.to_dict("records"))):
        try:
            rows.append({**row, **_cached(row, settings, folder / "volumes", row.get("space") or space)})
        except ImageError as error:
            problems.add(row["participant_id"], error.path, error.reason)
    return pd.DataFrame(rows, columns=[*participants.columns, "volume_path", "volume_mask_path", "sha256"])


def _cached(row: dict, settings: Preparation, folder: Path, space: str | None) -> dict[str, str]:
    path, mask_path = row["t1w_path"], row.get("brain_mask_path")
    for file in (path, *([mask_path] if mask_path else [])):
        require_file(file)
    content = file_hash(path)
    mask_content = file_hash(mask_path) if mask_path else None
    recipe = json.dumps([ALGORITHM, content, mask_content, space, asdict(settings)], sort_keys=True)
    key = sha256(recipe.encode()).hexdigest()[:32]
    volume_path, volume_mask_path = folder / f"{key}_volume.npy", folder / f"{key}_mask.npy"
    if not (volume_path.exists() and volume_mask_path.exists()):
        brain_mask_img = load_img(mask_path) if mask_path else None
        prepared = preprocess_t1w(
            load_img(path), settings, brain_mask_img=brain_mask_img, space=space, path=path
        )
        write_atomic(volume_mask_path, lambda temporary: np.save(temporary, prepared.brain_mask))
        write_atomic(volume_path, lambda temporary: np.save(temporary, prepared.volume))
    return {"volume_path": str(volume_path), "volume_mask_path": str(volume_mask_path), "sha256": content}

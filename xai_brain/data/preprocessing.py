"""Preprocessing of T1w images: resampling to a grid and scaling of intensities."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage, stats

from xai_brain.config.data import PreprocessingConfig
from xai_brain.data.raw.brain_masks import find_brain
from xai_brain.data.raw.images import prepare_raw
from xai_brain.data.spaces.claimed_space import (
    check_claimed_space,
    refuse_other_space,
    require_overlap,
    require_overlap_of_map,
)
from xai_brain.data.spaces.space_check import Alignment, check_tissue_map, check_volume
from xai_brain.io.nifti import ImageError, get_grid, is_mni152, resample_to_grid, template_brain_mask

ALGORITHM = 4  # part of every cache key; raise it when the same settings give other numbers
PERCENTILES = (1.0, 99.0)
LEVELS = tuple(range(1, 100))  # percentiles that scaling=quantile maps


class Prepared(NamedTuple):
    """A prepared image: `volume` (X, Y, Z) float32, `brain_mask` (X, Y, Z) bool, `affine` (4, 4).

    `mni_to_native` (4, 4) transforms MNI152 mm to the mm of the file if the image was aligned.
    `space_warning` describes the disagreement with the MNI152 template if such images are accepted.
    """

    volume: np.ndarray
    brain_mask: np.ndarray
    affine: np.ndarray
    mni_to_native: np.ndarray | None = None
    space_warning: str = ""


def preprocess_t1w(
    t1w_img: nib.Nifti1Image,
    settings: PreprocessingConfig,
    *,
    brain_mask_img: nib.Nifti1Image | None = None,
    space: str | None = None,
    space_check: str = "error",
    path: str | Path = "image",
) -> Prepared:
    """Resample a skull-stripped T1w image, or a map, in MNI152 space to the grid of the model.

    Parameters
    ----------
    t1w_img : nibabel.Nifti1Image
        Any axes, spacing and obliquity.
    settings : PreprocessingConfig
    brain_mask_img : nibabel.Nifti1Image, optional
        On the grid of the image. Without it, the voxels that are not background are the brain.
    space : str, optional
        Name of the space of the image if it is known; otherwise the overlap with the brain of the template
        decides whether it is MNI152. In both cases the image is compared with the template
        (see `xai_brain.data.spaces.space_check`).
    space_check : {"error", "warn"}, default "error"
        ``warn`` accepts images that are stated to be in MNI152, or were aligned to it, and do not agree with
        the template.
    path : str or Path
        For messages.

    Returns
    -------
    Prepared

    Raises
    ------
    ImageError
        The image is constant, not finite, not skull-stripped or outside MNI152, or its mask has another grid.

    Examples
    --------
    >>> t1w_img = nib.load("sub-01_T1w.nii.gz")  # doctest: +SKIP
    >>> preprocess_t1w(t1w_img, PreprocessingConfig(grid="t1w_4mm"))  # doctest: +SKIP
    """
    data, damaged = _numbers(t1w_img, path)
    grid = get_grid(settings.grid)
    mni_to_native = None
    if settings.raw:
        t1w_img, brain_mask_img, mni_to_native = prepare_raw(
            _like(t1w_img, data),
            brain_mask_img,
            alignment=settings.alignment,
            skull_stripped=settings.skull_stripped,
            in_mni152=space is not None and is_mni152(space),
            require_check=space_check == "error",
            path=path,
        )
        data, _ = _numbers(t1w_img, path)
    aligned = mni_to_native is not None
    if not aligned:
        refuse_other_space(space, path)
    if settings.brain == "template":
        volume = resample_to_grid(_like(t1w_img, data), grid, antialias=settings.antialias)
        brain_mask = template_brain_mask(settings.grid)
        if space is None and not aligned:
            require_overlap_of_map(volume, settings.grid, path)
        check = check_tissue_map(volume, grid.affine)
        volume = np.where(brain_mask, volume, 0)
    else:
        inside = find_brain(data, t1w_img, brain_mask_img, path)
        _require_finite(damaged, inside, path)
        data = np.where(inside, data, np.float32(0))
        weight = resample_to_grid(_like(t1w_img, inside), grid, antialias=settings.antialias)
        volume = resample_to_grid(_like(t1w_img, data), grid, antialias=settings.antialias)
        brain_mask = weight > 0.5
        if not brain_mask.any():
            raise ImageError(
                path, f"none of its brain lies in the grid {settings.grid}: is its affine right?"
            )
        if space is None and not aligned and settings.alignment == "affine":
            require_overlap(brain_mask, settings.grid, path)
        check = check_volume(volume, weight, grid.affine, alignment=_alignment(settings) if aligned else None)
        # division by the weight prevents that the zeros around the brain darken its border
        volume = np.divide(volume, weight, out=np.zeros_like(volume), where=brain_mask)
    warning = check_claimed_space(check, space=space, aligned=aligned, policy=space_check, path=path)
    scaled = _scaled(volume, brain_mask, settings, path)
    return Prepared(scaled, brain_mask, grid.affine, mni_to_native, warning)


def _alignment(settings: PreprocessingConfig) -> Alignment:
    return "rigid" if settings.alignment == "rigid" else "affine"


def _numbers(t1w_img: nib.Nifti1Image, path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Voxels as finite float32, and a mask of values that were not finite (None if there are none)."""
    data = np.asanyarray(t1w_img.dataobj).astype(np.float32, copy=False)
    damaged = None
    # the extremes are not finite if any value is not, so that most images are read only once
    if not (data.size and np.isfinite(data.min()) and np.isfinite(data.max())):
        damaged = ~np.isfinite(data)
        if damaged.all():
            raise ImageError(path, "has no finite voxel")
        data = np.where(damaged, np.float32(0), data)
    if data.min() == data.max():
        raise ImageError(path, f"is constant ({data.flat[0]:g} everywhere)")
    return data, damaged


def _scaled(
    volume: np.ndarray, brain_mask: np.ndarray, settings: PreprocessingConfig, path: str | Path
) -> np.ndarray:
    values = volume[brain_mask].astype(np.float64)
    if values.std() <= 1e-6 * np.abs(values).max():  # a constant, except for rounding
        raise ImageError(path, "is constant inside the brain")
    if settings.scaling == "zscore":
        values = (values - values.mean()) / values.std()
    elif settings.scaling == "percentile":
        low, high = np.percentile(values, PERCENTILES)
        if high <= low:
            raise ImageError(
                path, f"nearly all of its brain is {low:g}: percentiles cannot scale it; use scaling=zscore"
            )
        values = np.clip((values - low) / (high - low), 0, 1)
    elif settings.scaling == "quantile":
        found = np.percentile(values, LEVELS)
        if len(np.unique(found)) < len(LEVELS) / 2:
            raise ImageError(
                path, "half of the percentiles of its brain are equal: use scaling=zscore, not quantile"
            )
        values = np.interp(values, found, stats.norm.ppf(np.divide(LEVELS, 100)))
    elif settings.brain_median is not None:
        median = np.median(values)
        if median <= 0:
            raise ImageError(path, f"the median of its brain is {median:g}: brain_median cannot scale it")
        values = values * (settings.brain_median / median)
    scaled = np.zeros(volume.shape, np.float32)
    scaled[brain_mask] = values
    return scaled


def _require_finite(damaged: np.ndarray | None, inside: np.ndarray, path: str | Path) -> None:
    """Refuse values in or enclosed by the brain that are not finite; around the brain they are background."""
    if damaged is None:
        return
    n_lost = int((ndimage.binary_fill_holes(inside) & damaged).sum())
    if n_lost:
        raise ImageError(
            path, f"{n_lost} voxels in its brain are NaN or infinite; fill them, or mask them out"
        )


def _like(img: nib.Nifti1Image, data: np.ndarray) -> nib.Nifti1Image:
    # nibabel keeps no bool; as bytes 0 and 1 the mask is the same and a quarter of a float
    return nib.Nifti1Image(data.view(np.uint8) if data.dtype == bool else data, img.affine)

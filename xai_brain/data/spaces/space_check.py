"""Test whether the content of an image is in MNI152 space; independent of torch.

A file name, a setting or an alignment states that an image is in MNI152. This module verifies the statement:
the correlation of the smoothed image with the template must be higher than after a shift of 8 or 12 mm along
any axis, a rotation by 16 degrees about any axis, or an exchange or reversal of axes. Brains are too
symmetrical to distinguish left from right in one image, so that a left-right mirrored image passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, from_matvec

from xai_brain.data.spaces.mni152_copies import (
    COARSE,
    changes,
    on_coarse_grid,
    template_and_copies,
    template_on_coarse_grid,
    unit_vector,
)

Alignment = Literal["affine", "rigid"]

MIN_CORRELATION = {"T1w": 0.8, "GM": 0.75, "WM": 0.75}
AFFINE_VOLUME = (0.7, 1.4)  # brain volume relative to the template's, after affine alignment
ANY_VOLUME = (0.45, 1.4)  # rigid alignment keeps brain size: adults have 0.55 to 1.0 of the template's volume
FEWEST_ML = 20.0  # smallest brain volume in the field of view of the template


@dataclass(frozen=True)
class SpaceCheck:
    """Agreement of an image with the MNI152 template.

    Parameters
    ----------
    reason : str
        Reason why the image is not accepted, with values; empty if it is accepted.
    correlation : float
        Correlation of the smoothed image with the smoothed template.
    change : str
        The change of the image with the highest correlation.
    changed_correlation : float
        Correlation after this change.
    volume_ratio : float
        Brain volume relative to the template; for tissue maps, relative extent.
    """

    reason: str
    correlation: float = float("nan")
    change: str = ""
    changed_correlation: float = float("nan")
    volume_ratio: float = float("nan")

    @property
    def passed(self) -> bool:
        return not self.reason

    @property
    def margin(self) -> float:
        """Correlation minus that after the best change; positive in MNI152 space."""
        return self.correlation - self.changed_correlation


def check_mni152(
    img: nib.Nifti1Image, brain_mask_img: nib.Nifti1Image | None = None, *, alignment: Alignment | None = None
) -> SpaceCheck:
    """Compare a skull-stripped T1w image with the MNI152 template.

    Parameters
    ----------
    img : nibabel.Nifti1Image
        Any axes and spacing; only voxels inside the brain are compared.
    brain_mask_img : nibabel.Nifti1Image, optional
        On the grid of `img`; by default the brain is where `img` is not 0.
    alignment : {"affine", "rigid"}, optional
        How the image was aligned. After affine alignment the brain volume must be near the template's.
        After rigid alignment, and when it is not known, the difference in size is removed first.

    Returns
    -------
    SpaceCheck
    """
    data = np.asanyarray(img.dataobj).astype(np.float32, copy=False)
    inside = data != 0 if brain_mask_img is None else np.asanyarray(brain_mask_img.dataobj) > 0.5
    return check_volume(np.where(inside, data, 0), inside.astype(np.float32), img.affine, alignment=alignment)


def check_volume(
    volume: np.ndarray, weight: np.ndarray, affine: np.ndarray, *, alignment: Alignment | None = None
) -> SpaceCheck:
    """As `check_mni152`, for arrays.

    Parameters
    ----------
    volume : ndarray of shape (X, Y, Z), float32
        Intensities, 0 outside the brain.
    weight : ndarray of shape (X, Y, Z), float32
        Share of each voxel that is brain, or the brain mask.
    affine : ndarray of shape (4, 4)
        Voxel to MNI152 mm, RAS+.
    alignment : {"affine", "rigid"}, optional

    Returns
    -------
    SpaceCheck
    """
    largest = float(np.abs(volume).max())  # squares of intensities of any unit must be finite
    values = on_coarse_grid(volume / np.float32(largest or 1), affine)
    weight = on_coarse_grid(weight, affine)
    if not float(weight.sum()) * np.prod(COARSE.spacing_mm) > 1e3 * FEWEST_ML:
        return SpaceCheck("almost none of its brain lies in the template's field of view")
    ratio = float(weight.sum() / template_on_coarse_grid("mask").sum())
    found = _check(
        _with_template_contrast(values, weight),
        "T1w",
        ratio,
        _centroid_mm(weight),
        same_size=alignment == "affine",
    )
    low, high = AFFINE_VOLUME if alignment == "affine" else ANY_VOLUME
    if not low <= ratio <= high:
        reason = f"its brain volume is {ratio:.2f} times the template's, {low} to {high} is expected"
        return replace(found, reason=reason)
    return found


def check_tissue_map(volume: np.ndarray, affine: np.ndarray) -> SpaceCheck:
    """Compare a map without a brain mask with the most similar template (tissue or T1w).

    Parameters
    ----------
    volume : ndarray of shape (X, Y, Z), float32
        Density or probability of grey or white matter, or a T1w image.
    affine : ndarray of shape (4, 4)
        Voxel to MNI152 mm, RAS+.

    Returns
    -------
    SpaceCheck
    """
    values = np.abs(on_coarse_grid(volume, affine))
    if not values.any():
        return SpaceCheck("it has no values in the field of view of the template")
    found = []
    for kind in ("GM", "WM", "T1w"):
        ratio = (_spread_mm(values) / _spread_mm(template_on_coarse_grid(kind))) ** 3
        found.append(_check(values, kind, ratio, _centroid_mm(values), same_size=False))
    best = max(found, key=lambda check: check.correlation)
    low, high = ANY_VOLUME
    if not low <= best.volume_ratio <= high:
        reason = (
            f"its extent is {best.volume_ratio:.2f} of the template's volume, {low} to {high} is expected"
        )
        return replace(best, reason=reason)
    return best


def _check(
    values: np.ndarray, kind: str, ratio: float, centroid_mm: np.ndarray, *, same_size: bool
) -> SpaceCheck:
    """Compare an image on the coarse grid with a template, unchanged and scaled to the template size."""
    vectors = [unit_vector(values)]
    if not same_size:  # the fixed point of an alignment is near the centroid or the anterior commissure
        factor = ratio ** (-1 / 3)
        for point_mm in (centroid_mm, np.zeros(3)):
            enlargement = from_matvec(factor * np.eye(3), (1 - factor) * point_mm)
            vectors.append(unit_vector(on_coarse_grid(values, enlargement @ COARSE.affine)))
    correlations = np.stack(vectors) @ template_and_copies(kind).T  # (n_vectors, 1 + n_changes)
    row = correlations[correlations[:, 0].argmax()]
    own, best = float(row[0]), int(row[1:].argmax())
    highest, least = float(row[1 + best]), MIN_CORRELATION[kind]
    reason = ""
    if not own > highest:
        reason = f"its correlation with the template is {own:.3f}, and {highest:.3f} after {changes()[best]}"
    elif own < least:
        reason = f"its correlation with the template is {own:.3f}, at least {least} is expected"
    return SpaceCheck(reason, own, changes()[best], highest, ratio)


def _with_template_contrast(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Scale the image to the mean and standard deviation of the template in the brain."""
    mean, sd = _mean_and_sd(values, weight)
    wanted_mean, wanted_sd = _mean_and_sd(template_on_coarse_grid("T1w"), template_on_coarse_grid("mask"))
    gain = wanted_sd / sd if sd > 1e-4 * float(np.abs(values).max()) else 0.0  # otherwise it is a mask
    return gain * values + (wanted_mean - gain * mean) * weight


def _mean_and_sd(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    inside = weight > 0.5 * min(1.0, float(weight.max()))
    intensities = values[inside] / weight[inside]
    return float(intensities.mean()), float(intensities.std())


def _centroid_mm(weight: np.ndarray) -> np.ndarray:
    voxels = np.indices(weight.shape).reshape(3, -1)
    centroid: np.ndarray = apply_affine(COARSE.affine, voxels @ weight.ravel() / weight.sum())
    return centroid


def _spread_mm(values: np.ndarray) -> float:
    """Root mean square distance of the values from their centroid."""
    places_mm = apply_affine(COARSE.affine, np.indices(values.shape).reshape(3, -1).T)
    squared = ((places_mm - _centroid_mm(values)) ** 2).sum(1)
    return float(np.sqrt(squared @ values.ravel() / values.sum()))

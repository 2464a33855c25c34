"""The stated space of an image and its comparison with the MNI152 template: accept, warn or refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xai_brain.data.spaces.space_check import SpaceCheck
from xai_brain.io.nifti import ImageError, is_mni152, template_brain_mask

POLICIES = ("error", "warn")
MIN_TEMPLATE_DICE = 0.85
MIN_TEMPLATE_SHARE = 0.8  # share of the mass of a map
TO_MNI = "align it with preprocessing.raw=true (extra `raw`), or set data.space=MNI152 if it is there"
ACCEPT = "data.space_check=warn accepts such images (children, strong atrophy, partial coverage)"


def refuse_other_space(space: str | None, path: str | Path) -> None:
    """Raise an error if the stated space of an image is not MNI152; other MNI templates are refused, too.

    Raises
    ------
    ImageError
        `space` is not MNI152.
    """
    if space is not None and not is_mni152(space):
        what = (
            f"space-{space}, which is not an MNI152 template"
            if space.upper().startswith("MNI")
            else f"space-{space}"
        )
        raise ImageError(
            path, f"is not in MNI152 space ({what}); transform it, or align it with preprocessing.raw=true"
        )


def require_overlap(brain_mask: np.ndarray, grid_name: str, path: str | Path) -> None:
    """Raise an error if the brain of an image without a stated space does not overlap with the template."""
    template = template_brain_mask(grid_name)
    dice = float(2 * (brain_mask & template).sum() / (brain_mask.sum() + template.sum()))
    if dice < MIN_TEMPLATE_DICE:
        known = f"Dice with the template's brain {dice:.2f}"
        raise ImageError(path, f"is not in MNI152 space ({known}); {TO_MNI}")


def require_overlap_of_map(volume: np.ndarray, grid_name: str, path: str | Path) -> None:
    """Raise an error if a map does not have nearly all of its mass in the brain of the template."""
    held = np.abs(volume)
    share = float(held[template_brain_mask(grid_name)].sum() / max(held.sum(), 1e-12))
    if share < MIN_TEMPLATE_SHARE:
        known = f"{100 * share:.0f} % of it lies in the template's brain"
        raise ImageError(
            path, f"is not in MNI152 space ({known}); register it first, or set data.space=MNI152"
        )


def check_claimed_space(
    check: SpaceCheck, *, space: str | None, aligned: bool, policy: str, path: str | Path
) -> str:
    """Raise an error if an image does not agree with the template, or return a warning.

    Parameters
    ----------
    check : SpaceCheck
    space : str or None
        Name of the MNI152 space that is stated for the image; None if none is stated.
    aligned : bool
        Whether it was aligned to MNI152 by this package.
    policy : {"error", "warn"}
        ``warn`` accepts an image that is stated to be in MNI152, or was aligned, although it does not agree.
    path : str or Path
        For messages.

    Returns
    -------
    str
        Disagreement with its values; empty if the image agrees with the template.

    Raises
    ------
    ImageError
        The image does not agree with the template.
    """
    if check.passed:
        return ""
    if aligned:
        warning = f"after alignment to MNI152 {check.reason}"
        remedy = "look at the image, and give it a brain mask (..._desc-brain_mask.nii.gz) or exclude it"
    elif space is not None:
        warning = f"is in {space} by its name or data.space, but {check.reason}"
        remedy = "correct its affine, or remove the claim and align it with preprocessing.raw=true"
    else:
        raise ImageError(path, f"is not in MNI152 space ({check.reason}); {TO_MNI}")
    if policy == "warn":
        return warning
    raise ImageError(path, f"{warning}; {remedy}; {ACCEPT}")

"""Preparation of acquired images: brain extraction, bias field, alignment to MNI152 and check."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from xai_brain.data.raw.brain_masks import background_values, find_brain
from xai_brain.data.raw.heads import align_to_mni, correct_bias, extract_brain, in_mni, rigid_part
from xai_brain.data.spaces.space_check import check_mni152
from xai_brain.io.nifti import ImageError, parse_entities


class AlignedBrain(NamedTuple):
    """A brain in MNI152 and its mask, on the same voxels; `mni_to_native` (4, 4) if it was aligned here."""

    brain_img: nib.Nifti1Image
    mask_img: nib.Nifti1Image
    mni_to_native: np.ndarray | None


def prepare_raw(
    t1w_img: nib.Nifti1Image,
    brain_mask_img: nib.Nifti1Image | None,
    *,
    alignment: str = "affine",
    skull_stripped: bool = False,
    in_mni152: bool = False,
    require_check: bool = True,
    path: str | Path = "image",
) -> AlignedBrain:
    """Extract the brain of an image if needed, correct its bias field and align it to MNI152.

    The brain is extracted unless there is a brain mask, or `skull_stripped` states that the image contains
    only brain, or the file name states this (``desc-brain``) and the aligned image passes the comparison with
    the template (see `xai_brain.data.spaces.space_check`).

    Parameters
    ----------
    t1w_img : nibabel.Nifti1Image
        Any axes; finite intensities.
    brain_mask_img : nibabel.Nifti1Image or None
        On the grid of the image.
    alignment : {"affine", "rigid"}, default "affine"
        Rigid alignment keeps the size of the brain.
    skull_stripped : bool, default False
        The image contains only brain.
    in_mni152 : bool, default False
        The image is in MNI152 already and is not aligned.
    require_check : bool, default True
        Raise an error for a brain that does not agree with the template after alignment.
    path : str or Path
        File of the image; its name may contain ``desc-brain``.

    Returns
    -------
    AlignedBrain

    Raises
    ------
    ImageError
        No brain was found, the alignment failed, or the result does not agree with the template.
    """

    def align(mask_img: nib.Nifti1Image | None) -> tuple[AlignedBrain, str]:
        """Aligned brain inside a mask (None: all voxels except background), and why it is not usable."""
        inside = find_brain(data, t1w_img, mask_img, path)
        found = AlignedBrain(_corrected(data, inside, t1w_img, path), _as_img(inside, t1w_img), None)
        if in_mni152:
            return found, check_mni152(found.brain_img, found.mask_img).reason
        affine = align_to_mni(found.brain_img, path)
        check = check_mni152(*_moved(found, affine)[:2], alignment="affine")
        return _moved(found, rigid_part(affine) if alignment == "rigid" else affine), check.reason

    data = np.asanyarray(t1w_img.dataobj)
    if brain_mask_img is None and not skull_stripped:
        if parse_entities(path).get("desc") == "brain":
            with suppress(ImageError):  # the name is wrong: the image contains more than brain
                found, reason = align(None)
                if not reason:
                    return found
        brain_mask_img = extract_brain(t1w_img, path)
    found, reason = align(brain_mask_img)
    # images whose space is stated as MNI152 are checked later, with all other images
    if reason and require_check and not in_mni152:
        raise ImageError(
            path,
            f"after alignment to MNI152 {reason}; look at the image, and give it a brain mask "
            "(a file ..._desc-brain_mask.nii.gz beside it) or leave it out",
        )
    return found


def _corrected(
    data: np.ndarray, inside: np.ndarray, img: nib.Nifti1Image, path: str | Path
) -> nib.Nifti1Image:
    """Correct the bias field after subtraction of the background, because N4 uses logarithms."""
    known = background_values(data)
    zero = known[-1] if known else min(float(data.min()), 0.0)
    return correct_bias(_as_img(np.where(inside, data - np.float32(zero), 0), img), path)


def _moved(brain: AlignedBrain, mni_to_native: np.ndarray) -> AlignedBrain:
    return AlignedBrain(
        in_mni(brain.brain_img, mni_to_native), in_mni(brain.mask_img, mni_to_native), mni_to_native
    )


def _as_img(values: np.ndarray, img: nib.Nifti1Image) -> nib.Nifti1Image:
    # nibabel cannot store bool
    return nib.Nifti1Image(values.view(np.uint8) if values.dtype == bool else values, img.affine)

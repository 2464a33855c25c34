"""Brains in native space whose alignment to MNI152 is known, without the packages that find it."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy.spatial.transform import Rotation

from xai_brain.data.raw import images as raw_images

KNOWN = from_matvec(Rotation.from_euler("xyz", [7, -4, 5], degrees=True).as_matrix() * 0.93, [12, -20, 9])


def template_brain(seed=None):
    """The template's brain at 4 mm, 0 outside; with a seed, a noisy copy."""
    img = load_mni152_template(resolution=4)
    inside = np.asarray(load_mni152_brain_mask(resolution=4).dataobj) > 0
    data = 100 * np.asarray(img.dataobj)
    if seed is not None:
        data = data * (1 + 0.05 * np.random.default_rng(seed).standard_normal(data.shape))
    return nib.Nifti1Image(np.where(inside, data, 0).astype(np.float32), img.affine)


def native(img):
    """The image in a world that `KNOWN` leads to."""
    return nib.Nifti1Image(img.dataobj, KNOWN @ img.affine)


def mask_of(brain):
    return nib.Nifti1Image((np.asarray(brain.dataobj) > 0).astype(np.uint8), brain.affine)


def replace_extraction_and_alignment(monkeypatch, brain):
    """Let extraction find this brain, and alignment `KNOWN`; returns the list of the calls to come."""
    calls = []

    def record(name, result):
        def function(img, path):
            calls.append(name)
            return result(img)

        monkeypatch.setattr(raw_images, name, function)

    record("extract_brain", lambda img: nib.Nifti1Image(mask_of(brain).dataobj, img.affine))
    record("correct_bias", lambda img: img)
    record("align_to_mni", lambda img: KNOWN)
    return calls

"""Whole heads around a brain, and the backgrounds that heads come with."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage

BACKGROUNDS = ("zero", "noise", "zero padding to a cube", "zeroed face")


def synthetic_head(brain_img, seed=0):
    """A brain inside cerebrospinal fluid, bone and scalp, with a face and a neck; 0 around the head.

    Parameters
    ----------
    brain_img : nibabel.Nifti1Image
        Upright, 0 outside the brain.
    seed : int

    Returns
    -------
    nibabel.Nifti1Image
        On the grid of the brain, float32.
    """
    brain = np.asanyarray(brain_img.dataobj).astype(np.float32)
    affine, spacing = brain_img.affine, voxel_sizes(brain_img.affine)
    inside = brain > 0
    white = np.percentile(brain[inside], 90)
    skull_cavity = ndimage.binary_closing(np.pad(inside, 8), iterations=4)[8:-8, 8:-8, 8:-8]
    skull_cavity = ndimage.binary_fill_holes(skull_cavity | inside)
    center = apply_affine(affine, np.argwhere(skull_cavity)).mean(0)
    x, y, z = np.moveaxis(apply_affine(affine, np.stack(np.indices(brain.shape), -1)) - center, -1, 0)
    face = (x / 62) ** 2 + ((y - 55) / 45) ** 2 + ((z + 55) / 70) ** 2 < 1
    neck = ((x / 55) ** 2 + ((y + 20) / 60) ** 2 < 1) & (z < -30)
    airway = (np.abs(x) < 8) & (np.abs(y - 35) < 12) & (z < -35)
    distance_mm = ndimage.distance_transform_edt(~skull_cavity, sampling=spacing)
    head = (distance_mm < 16) | face | neck
    depth_mm = ndimage.distance_transform_edt(np.pad(head, 1, mode="edge"), sampling=spacing)[
        1:-1, 1:-1, 1:-1
    ]

    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.standard_normal(brain.shape), 2)
    muscle = 0.5 + 0.12 * texture / texture.std()
    relative = np.where(face | neck, muscle, 0)
    relative[airway] = 0.03
    relative[head & (depth_mm < 5)] = 1.15  # fat of the scalp
    relative[distance_mm < 11] = 0.08  # bone
    relative[distance_mm < 4] = 0.22  # cerebrospinal fluid
    relative += head * 0.02 * np.abs(rng.standard_normal(brain.shape))
    return nib.Nifti1Image(np.where(inside, brain, white * relative).astype(np.float32), affine)


def with_background(head_img, brain_mask_img, background):
    """A head, and the mask of its brain, with one of `BACKGROUNDS` instead of its zeros."""
    data, inside = np.asanyarray(head_img.dataobj), np.asanyarray(brain_mask_img.dataobj) > 0
    affine = head_img.affine
    if background == "noise":
        noise = 0.01 * data.max() * np.hypot(*np.random.default_rng(1).standard_normal((2, *data.shape)))
        data = np.where(data > 0, data, noise)
    elif background == "zero padding to a cube":
        before = (max(data.shape) - np.array(data.shape)) // 2
        widths = list(zip(before, max(data.shape) - np.array(data.shape) - before, strict=True))
        affine = affine.copy()
        affine[:3, 3] = apply_affine(head_img.affine, -before)
        data, inside = np.pad(data, widths), np.pad(inside, widths)
    elif background == "zeroed face":
        brain_mm = apply_affine(affine, np.argwhere(inside))
        mm = apply_affine(affine, np.stack(np.indices(data.shape), -1)) - brain_mm.mean(0)
        data = np.where((mm[..., 1] > 25) & (mm[..., 2] < -25) & ~inside, 0, data)
    return nib.Nifti1Image(data.astype(np.float32), affine), nib.Nifti1Image(inside.astype(np.uint8), affine)

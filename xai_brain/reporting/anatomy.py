"""Anatomical backgrounds of maps, and the displayed slices."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np

from xai_brain.io.nifti import is_mni152, load_img
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.figures import brain as brain_figures
from xai_brain.reporting.figures import slices

AXIAL_MM = (-28.0, -8.0, 10.0, 30.0, 50.0)


def underlay_of(contents: ReportContents, like: Path) -> nib.Nifti1Image | None:
    """The MNI152 template, or the mean of some prepared images for maps in another space."""
    if is_mni152(contents.run.space):
        return _template()
    images = [load_img(path) for path in contents.prepared_images(8)]
    images = [img for img in images if img.shape == load_img(like).shape]
    if not images:
        return None
    return nib.Nifti1Image(np.mean([img.get_fdata() for img in images], axis=0), images[0].affine)


@lru_cache(maxsize=1)
def _template() -> nib.Nifti1Image:
    """The template at 2 mm, 0 outside the brain."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    template = load_mni152_template(resolution=2)
    inside = np.asanyarray(load_mni152_brain_mask(resolution=2).dataobj) > 0
    return nib.Nifti1Image(np.where(inside, template.get_fdata(), 0).astype(np.float32), template.affine)


def cuts_through(point: np.ndarray, underlay: nib.Nifti1Image) -> list[brain_figures.Cut]:
    """A sagittal, a coronal and an axial slice through a point, and further axial slices."""
    bounds = slices.world_bounds(underlay)
    axial = [z for z in AXIAL_MM if bounds[2][0] < z < bounds[2][1]] or list(np.linspace(*bounds[2], 8)[1:-1])
    nearest = int(np.argmin(np.abs(np.array(axial) - point[2])))
    axial[nearest] = float(point[2])
    return [("x", float(point[0])), ("y", float(point[1])), *(("z", z) for z in sorted(axial))]

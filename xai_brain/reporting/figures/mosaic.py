"""Small pictures of prepared images for quality control: three slices of one image each."""

from __future__ import annotations

from collections.abc import Iterable

import nibabel as nib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from xai_brain.reporting.figures.brain import SIDES
from xai_brain.reporting.figures.slices import Bounds, world_slice

STEP_MM = 2.0
CUTS = (("z", 10.0), ("y", -20.0), ("x", 4.0))  # mm in MNI152; near the middle of the brain
LETTER = 10  # pixels
OUTLINE = np.array([230, 70, 40], np.float32)


def draw_tiles(
    images: Iterable[nib.Nifti1Image], bounds: Bounds, brain: nib.Nifti1Image | None = None
) -> list[np.ndarray]:
    """An axial, a coronal and a sagittal slice of each image, side by side.

    Parameters
    ----------
    images : iterable of nibabel.Nifti1Image
        0 outside the brain.
    bounds : ((x0, x1), (y0, y1), (z0, z1)) in mm
    brain : nibabel.Nifti1Image, optional
        Brain mask whose border is drawn, that of the template for images in MNI152.

    Returns
    -------
    list of ndarray of shape (height, width, 3), uint8
        Left is left, up is anterior or superior, and right in the sagittal slice is anterior.
    """
    border = None
    if brain is not None:
        inside = _row_of_slices(brain, bounds) > 0.5
        border = inside & ~ndimage.binary_erosion(inside)
    letters = _letters(bounds)
    return [_tile(_row_of_slices(img, bounds), border, letters) for img in images]


def _letters(bounds: Bounds) -> Image.Image:
    """The sides of the slices, white on black: L and R, and P and A of the sagittal slice."""
    blank = nib.Nifti1Image(np.zeros((1, 1, 1), np.float32), np.eye(4))
    picture = Image.new("L", _row_of_slices(blank, bounds).shape[::-1])
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(LETTER)
    left = 0
    for axis, at in _cuts(bounds):
        wide = world_slice(blank, axis, at, bounds, step_mm=STEP_MM).shape[1]
        for x, letter, anchor in zip((left + 2, left + wide - 2), SIDES[axis], ("lt", "rt"), strict=True):
            draw.text((x, 2), letter, fill=255, font=font, anchor=anchor)
        left += wide
    return picture


def _tile(values: np.ndarray, border: np.ndarray | None, letters: Image.Image) -> np.ndarray:
    brightest = np.percentile(values[values > 0], 99.5) if (values > 0).any() else 1.0
    grey = np.clip(values / brightest * 255, 0, 255)
    colours = np.repeat(grey[..., None], 3, axis=-1)
    if border is not None:
        colours[border] = 0.35 * colours[border] + 0.65 * OUTLINE
    written = np.asarray(letters, np.float32)[..., None] / 255
    return (colours * (1 - written) + 255 * written).round().astype(np.uint8)


def _row_of_slices(img: nib.Nifti1Image, bounds: Bounds) -> np.ndarray:
    """Slices (height, width), the first row on top; lower slices are centred."""
    slices = [world_slice(img, axis, at, bounds, step_mm=STEP_MM)[::-1] for axis, at in _cuts(bounds)]
    height = max(each.shape[0] for each in slices)
    missing = [height - each.shape[0] for each in slices]
    return np.concatenate(
        [np.pad(each, ((n // 2, n - n // 2), (0, 0))) for each, n in zip(slices, missing, strict=True)],
        axis=1,
    )


def _cuts(bounds: Bounds) -> list[tuple[str, float]]:
    """The cuts in MNI152, or through the middle of images that lie elsewhere."""
    axes = {"x": 0, "y": 1, "z": 2}
    known = all(bounds[axes[axis]][0] < at < bounds[axes[axis]][1] for axis, at in CUTS)
    return [(axis, at if known else float(np.mean(bounds[axes[axis]]))) for axis, at in CUTS]

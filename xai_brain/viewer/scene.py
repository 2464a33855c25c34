"""One subject or group in memory, and how it is handed to the browser.

Axes are reordered and flipped to RAS for the display; values stay what the file holds. A map of another
grid is sampled on the background's grid for drawing only: what is read out comes from its own voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.viewer.canvas import colour_tables
from xai_brain.viewer.catalogue import Image, Images
from xai_brain.volumes import Grid, ImageError, load_img, resample_to_grid, same_grid

LIMIT_PERCENTILE = 99.5  # of |value| in the brain: where the colours end
PERCENTILES = np.linspace(0, 100, 1001)
N_CODES = 127  # of each sign; 128 is zero


@dataclass(frozen=True)
class Layer:
    """A map: as it is in its file, and on the displayed grid.

    Parameters
    ----------
    name : str
    img : nibabel.Nifti1Image
        Own grid and axes; what the readout reads.
    shown : ndarray of shape (X, Y, Z), float32
        On the displayed grid, 0 where the file holds no number.
    ranked : ndarray, sorted
        |value| of all voxels of the brain, on the displayed grid.
    """

    name: str
    img: nib.Nifti1Image
    shown: np.ndarray
    ranked: np.ndarray

    @cached_property
    def maximum(self) -> float:
        return float(np.abs(self.shown).max(initial=0))

    @cached_property
    def limit(self) -> float:
        """Where the colours end."""
        limit = float(np.percentile(self.ranked, LIMIT_PERCENTILE)) if self.ranked.size else 0.0
        return limit or self.maximum  # fewer than one voxel in 200 is not zero

    @property
    def signed(self) -> bool:
        return bool(self.shown.min(initial=0) < -1e-6 * self.maximum)

    def percentile(self, value: float) -> float:
        """Share of brain voxels whose |value| is not greater, in %."""
        below = np.searchsorted(self.ranked, abs(np.float32(value)), side="right")
        return 100 * float(below) / max(self.ranked.size, 1)

    def quantiles(self) -> list[float]:
        """|value| at `PERCENTILES` of the brain."""
        at = PERCENTILES / 100 * max(self.ranked.size - 1, 0)
        return np.interp(at, np.arange(self.ranked.size), self.ranked).tolist() if self.ranked.size else [0.0]

    def codes(self) -> np.ndarray:
        """uint8 for drawing: 128 is zero, steps grow with the square root of |value|.

        Maps have few high values; a linear code would leave one or two steps for all the others.
        """
        relative = self.shown / (self.maximum or 1.0)
        code = 128 + np.sign(relative) * np.rint(N_CODES * np.sqrt(np.abs(relative)))
        return code.astype(np.uint8)


@dataclass(frozen=True)
class Scene:
    """Everything that is shown of one subject or group.

    Parameters
    ----------
    title : str
    background : nibabel.Nifti1Image
        RAS axes; its grid is the displayed one.
    original : nibabel.Nifti1Image
        The background with the axes of its file.
    layers : mapping of method to Layer
    truth, labels : ndarray of shape (X, Y, Z), optional
        On the displayed grid; bool, and integer label indices.
    regions : mapping of label index to name
    messages : list of str
        What could not be shown, and why.
    """

    title: str
    background: nib.Nifti1Image
    original: nib.Nifti1Image
    layers: Mapping[str, Layer]
    truth: np.ndarray | None = None
    labels: np.ndarray | None = None
    regions: Mapping[int, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @cached_property
    def brain(self) -> np.ndarray:
        """Bool; everywhere when the background is nowhere 0."""
        return brain_of(np.asanyarray(self.background.dataobj))

    @property
    def grid(self) -> Grid:
        x, y, z = self.background.shape
        return Grid("shown", (x, y, z), self.background.affine)

    def start(self) -> list[int]:
        """Voxel to begin at: in the middle of the truth, else the peak of the first map."""
        if self.truth is not None and self.truth.any():
            inside = np.argwhere(self.truth)
            near = np.linalg.norm(inside - inside.mean(0), axis=1).argmin()
            return [int(i) for i in inside[near]]
        for layer in self.layers.values():
            if layer.maximum > 0:
                peak = np.where(self.brain, np.abs(layer.shown), 0).argmax()
                return [int(i) for i in np.unravel_index(peak, self.brain.shape)]
        return [n // 2 for n in self.background.shape]

    def box(self, margin: int = 3) -> list[list[int]]:
        """First and last voxel (exclusive) along each axis of what is worth showing."""
        sides = []
        for axis, n in enumerate(self.brain.shape):
            others = tuple(k for k in range(3) if k != axis)
            there = np.flatnonzero(self.brain.any(others))
            sides.append([max(int(there[0]) - margin, 0), min(int(there[-1]) + 1 + margin, n)])
        return sides

    def message(self, methods: Sequence[str], limits: Mapping[str, float]) -> tuple[dict[str, Any], list]:
        """What is sent to the browser: a small description, and uint8 buffers.

        Buffers: the background, the maps of the panels, the outlines, the colour tables.
        """
        layers = [self.layers[name] for name in methods if name in self.layers]
        buffers = [_bytes(for_looking(np.asanyarray(self.background.dataobj)))]
        buffers += [_bytes(layer.codes()) for layer in layers]
        outlines = {"truth": self.truth, "atlas": None if self.labels is None else _ranks(self.labels)}
        there = {name: data for name, data in outlines.items() if data is not None}
        buffers += [_bytes(data.astype(np.uint8)) for data in there.values()]
        buffers.append(memoryview(colour_tables().ravel()))
        affine = self.background.affine
        description = {
            "kind": "scene",
            "title": self.title,
            "shape": list(self.background.shape),
            "affine": affine.tolist(),
            "inverse": np.linalg.inv(affine).tolist(),
            "spacing": [float(size) for size in nib.affines.voxel_sizes(affine)],
            "start": self.start(),
            "box": self.box(),
            "outlines": list(there),
            "messages": self.messages,
            "panels": [
                {
                    "name": layer.name,
                    "maximum": layer.maximum,
                    "limit": limits.get(layer.name, layer.limit),
                    "signed": layer.signed,
                    "quantiles": layer.quantiles(),
                }
                for layer in layers
            ],
        }
        return description, buffers


def load_scene(
    images: Images, labels_img: nib.Nifti1Image | None = None, lut: pd.DataFrame | None = None
) -> Scene | list[str]:
    """Read the images of one entry; what cannot be read becomes a message.

    Returns
    -------
    Scene, or list of str when there is nothing to show
    """
    messages: list[str] = []
    with ThreadPoolExecutor(4) as pool:  # unzipping lets other threads run
        behind = [pool.submit(_read, image, "background") for image in images.background]
        waiting = {name: pool.submit(_read, image, name) for name, image in images.maps.items()}
        truth_read = pool.submit(_read, images.truth, "truth") if images.truth is not None else None
    backgrounds = [read for future in behind if not isinstance(read := future.result(), str)]
    messages += [text for future in behind if isinstance(text := future.result(), str)][:1]
    maps: dict[str, nib.Nifti1Image] = {}
    for name, future in waiting.items():
        read = future.result()
        if isinstance(read, str):
            messages.append(read)
        else:
            maps[name] = read
    if not backgrounds:
        if not maps:
            return messages or ["there is nothing to show"]
        first = next(iter(maps.values()))
        backgrounds = [nib.Nifti1Image(np.zeros(first.shape, np.float32), first.affine)]
        messages.append("there is no background image: maps are shown on black")
    original = _mean(backgrounds)
    background = nib.as_closest_canonical(original)
    brain = brain_of(np.asanyarray(background.dataobj))
    if (tilt := float(np.rad2deg(nib.affines.obliquity(background.affine).max()))) > 1:
        messages.append(f"the image is tilted by {tilt:.0f}°: planes follow its voxels, mm are true")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda item: _layer(*item, background, brain), maps.items()))
    messages += [text for _, text in made if text]
    truth = None
    if truth_read is not None:
        read = truth_read.result()
        if isinstance(read, str):
            messages.append(read)
        else:
            data = np.nan_to_num(_on_grid(read, background))
            truth = data > data.max(initial=0) / 2
    labels = None
    if labels_img is not None:
        labels = np.rint(np.nan_to_num(_on_grid(labels_img, background))).astype(np.int32)
    regions = {} if lut is None else {int(i): str(n) for i, n in zip(lut["index"], lut["name"], strict=True)}
    layers = {layer.name: layer for layer, _ in made if layer is not None}
    return Scene(images.title, background, original, layers, truth, labels, regions, messages)


def brain_of(background: np.ndarray) -> np.ndarray:
    brain = np.nan_to_num(background) > 0
    return brain if brain.any() else np.ones(brain.shape, bool)


def for_looking(data: np.ndarray) -> np.ndarray:
    """uint8: 1 to 255 between the 0.5th and 99.5th percentile of what is above 0, which stays 0."""
    data = np.nan_to_num(data)
    if data.min() >= 0 and data.max() <= 255 and not np.mod(data, 1).any():
        return data.astype(np.uint8)  # prepared for looking already
    inside = data > 0
    low, high = np.percentile(data[inside], [0.5, 99.5]) if inside.any() else (0.0, 1.0)
    scaled = 1 + 254 * np.clip((data - low) / max(high - low, 1e-6), 0, 1)
    return np.where(inside, scaled, 0).round().astype(np.uint8)


def _read(image: Image, name: str) -> nib.Nifti1Image | str:
    """A 3-D image, or why there is none."""
    try:
        if isinstance(image, str | Path):
            return load_img(image)
        data = np.asanyarray(image.dataobj).astype(np.float32)
        while data.ndim > 3 and data.shape[-1] == 1:
            data = data[..., 0]
        if data.ndim != 3:
            return f"{name}: has shape {data.shape}; a single 3-D volume is needed"
        return nib.Nifti1Image(data, image.affine)
    except ImageError as error:
        return f"{name}: {Path(error.path).name}: {error.reason}"
    except Exception as error:  # an image object of others can fail in any way when its data are read
        return f"{name}: cannot be read ({type(error).__name__}: {error})"


def _mean(images: list[nib.Nifti1Image]) -> nib.Nifti1Image:
    alike = [img for img in images if same_grid(img, images[0])]
    return nib.Nifti1Image(
        np.mean([np.asanyarray(img.dataobj) for img in alike], axis=0, dtype=np.float32), images[0].affine
    )


def _on_grid(img: nib.Nifti1Image, background: nib.Nifti1Image) -> np.ndarray:
    """Values at the voxels of the background: the same ones when the grid is the same, else the nearest."""
    canonical = nib.as_closest_canonical(img)
    if same_grid(canonical, background):
        return np.asanyarray(canonical.dataobj)
    x, y, z = background.shape
    return resample_to_grid(img, Grid("shown", (x, y, z), background.affine), order=0)


def _layer(
    name: str, img: nib.Nifti1Image, background: nib.Nifti1Image, brain: np.ndarray
) -> tuple[Layer | None, str]:
    message = ""
    if not same_grid(nib.as_closest_canonical(img), background):
        message = f"{name}: is on another grid than the image; drawn at the nearest voxels, read from its own"
    shown = _on_grid(img, background)
    if n_bad := int((~np.isfinite(np.asanyarray(img.dataobj))).sum()):
        message = f"{name}: {n_bad} voxels hold no number"
        shown = np.nan_to_num(shown, posinf=0, neginf=0)
    layer = Layer(name, img, shown, np.sort(np.abs(shown[brain])))
    if layer.maximum == 0:
        outside = np.nan_to_num(np.asanyarray(img.dataobj)).any()
        message = f"{name}: lies outside of the image" if outside else f"{name}: the map is empty"
    return layer, message


def _ranks(labels: np.ndarray) -> np.ndarray:
    """Labels as uint8 that differ between neighbours; the outline needs no more."""
    indices, rank = np.unique(labels, return_inverse=True)
    rank = rank.reshape(labels.shape) - int(np.searchsorted(indices, 0))
    return np.where(labels == 0, 0, 1 + rank % 255)


def _bytes(data: np.ndarray) -> memoryview:
    return memoryview(data.ravel(order="F"))  # x runs fastest, as in the file

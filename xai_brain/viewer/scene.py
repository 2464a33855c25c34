"""The images of one participant or group in memory, and their message to the browser.

Axes are reordered and flipped to RAS for the display; the values are those of the file. A map on another grid
is sampled on the grid of the background for drawing only; values are read from its own voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np

from xai_brain.config.evaluation import MIN_CLUSTER_VOXELS
from xai_brain.viewer.canvas import colour_tables
from xai_brain.viewer.layers import Layer, brain_of
from xai_brain.viewer.meaning import value_text

WHITE = 215  # grey of the brightest tissue


@dataclass(frozen=True)
class Scene:
    """All images that are shown for one participant or group.

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
        Images that could not be shown, with the reason.
    explained : str
        A sentence about what the maps explain; may be empty.
    sidecars : mapping of method to the content of the sidecar
    """

    title: str
    background: nib.Nifti1Image
    original: nib.Nifti1Image
    layers: Mapping[str, Layer]
    truth: np.ndarray | None = None
    labels: np.ndarray | None = None
    regions: Mapping[int, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    explained: str = ""
    sidecars: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def brain(self) -> np.ndarray:
        """Brain mask, bool; True everywhere if the background has no zeros."""
        return brain_of(np.asanyarray(self.background.dataobj))

    def start(self) -> list[int]:
        """Initial voxel: the centre of the true location, otherwise the peak of the first map."""
        if self.truth is not None and self.truth.any():
            inside = np.argwhere(self.truth)
            near = np.linalg.norm(inside - inside.mean(0), axis=1).argmin()
            return [int(i) for i in inside[near]]
        for layer in self.layers.values():
            if layer.maximum > 0:
                peak = np.where(self.brain, np.abs(layer.shown), 0).argmax()
                return [int(i) for i in np.unravel_index(peak, self.brain.shape)]
        return [n // 2 for n in self.background.shape]

    def start_mm(self) -> list[float]:
        """Initial position, (x, y, z) in RAS+ mm."""
        return [float(x) for x in nib.affines.apply_affine(self.background.affine, self.start())]

    def voxel_at(self, mm: Sequence[float]) -> list[int]:
        """Nearest displayed voxel."""
        voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(self.background.affine), mm)).astype(int)
        return [int(i) for i in np.clip(voxel, 0, np.array(self.brain.shape) - 1)]

    def box(self, margin: int = 3) -> list[list[int]]:
        """Bounding box of the displayed region: first and last voxel (exclusive) along each axis."""
        sides = []
        for axis, n in enumerate(self.brain.shape):
            others = tuple(k for k in range(3) if k != axis)
            there = np.flatnonzero(self.brain.any(others))
            sides.append([max(int(there[0]) - margin, 0), min(int(there[-1]) + 1 + margin, n)])
        return sides

    def meanings(self) -> dict[str, list[str]]:
        """Meaning of positive and negative values, where it is known, and the methods that it applies to."""
        found: dict[str, list[str]] = {}
        for name, layer in self.layers.items():
            if text := value_text(self.sidecars.get(name, {}), layer.signed):
                found.setdefault(text, []).append(name)
        return found

    def message(
        self, methods: Sequence[str], limits: Mapping[str, float]
    ) -> tuple[dict[str, Any], list[bytes]]:
        """The message to the browser: a description and uint8 buffers.

        Buffers: the background, the maps of the panels, the outlines, the colour tables.
        """
        layers = [self.layers[name] for name in methods if name in self.layers]
        buffers = [_bytes(scale_to_uint8(np.asanyarray(self.background.dataobj)))]
        buffers += [_bytes(layer.codes()) for layer in layers]
        outlines = {"truth": self.truth, "atlas": None if self.labels is None else _ranks(self.labels)}
        there = {name: data for name, data in outlines.items() if data is not None}
        buffers += [_bytes(data.astype(np.uint8)) for data in there.values()]
        buffers.append(colour_tables().tobytes())
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
            "explained": self.explained,
            "meanings": self.meanings(),
            "methods": list(self.layers),
            "least": MIN_CLUSTER_VOXELS,
            "panels": [
                {
                    "name": layer.name,
                    "maximum": layer.maximum,
                    "limit": limits.get(layer.name, layer.limit),
                    "signed": layer.signed,
                    "quantiles": layer.quantiles(),
                    "corrected": layer.corrected,
                }
                for layer in layers
            ],
        }
        return description, buffers


def scale_to_uint8(data: np.ndarray) -> np.ndarray:
    """Display intensities, uint8: 1 to WHITE from the 1st to the 99.5th percentile of positive values.

    White matter is then light grey, so that its structure and the colours of the maps remain visible.
    """
    data = np.nan_to_num(data)
    inside = data > 0
    low, high = np.percentile(data[inside], [1, 99.5]) if inside.any() else (0.0, 1.0)
    share = np.clip((data - low) / (high - low), 0, 1) if high > low else np.full(data.shape, 0.5)
    return np.where(inside, 1 + (WHITE - 1) * share, 0).round().astype(np.uint8)


def _ranks(labels: np.ndarray) -> np.ndarray:
    """Labels as uint8 that differ between neighbouring regions, which is sufficient for outlines."""
    indices, rank = np.unique(labels, return_inverse=True)
    rank = rank.reshape(labels.shape) - int(np.searchsorted(indices, 0))
    return np.where(labels == 0, 0, 1 + rank % 255)


def _bytes(data: np.ndarray) -> bytes:
    return data.tobytes(order="F")  # x runs fastest, as in the file

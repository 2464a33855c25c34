"""Values at a position, and clusters of a map, from the values in the files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from xai_brain.config.evaluation import MIN_CLUSTER_VOXELS
from xai_brain.statistics.cluster_tables import cluster_labels
from xai_brain.viewer.layers import Layer
from xai_brain.viewer.scene import Scene


def voxel_at(img: nib.Nifti1Image, mm: Sequence[float] | np.ndarray) -> tuple[int, ...] | None:
    """Voxel of an image (axes of its file) at a position, None outside the image."""
    voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(img.affine), mm)).astype(int)
    inside = ((voxel >= 0) & (voxel < img.shape)).all()
    return tuple(int(i) for i in voxel) if inside else None


def readout_at(scene: Scene, mm: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Values of all layers at a position.

    Parameters
    ----------
    scene : Scene
    mm : (x, y, z), RAS+ mm

    Returns
    -------
    dict
        ``mm``, ``voxel`` (axes of the background's file, None outside), ``region``, ``intensity``, and
        ``values``: for each method ``name``, ``value`` (None outside or not finite) and ``percentile``
        (percentage of brain voxels whose absolute value is not greater).
    """
    at = voxel_at(scene.original, mm)
    shown = voxel_at(scene.background, mm)
    region = None
    if scene.labels is not None and shown is not None:
        index = int(scene.labels[shown])
        region = scene.regions.get(index, f"label {index}" if index else "no region")
    intensity = None if at is None else finite(scene.original.dataobj[at])
    values = []
    for layer in scene.layers.values():
        voxel = voxel_at(layer.img, mm)
        value = None if voxel is None else finite(layer.img.dataobj[voxel])
        percentile = None if value is None else layer.percentile(value)
        values.append({"name": layer.name, "value": value, "percentile": percentile})
    return {
        "mm": [float(x) for x in mm],
        "voxel": None if at is None else list(at),
        "region": region,
        "intensity": intensity,
        "values": values,
    }


def as_text(readout: dict[str, Any]) -> dict[str, Any]:
    """A readout with its values as text, so that the browser shows the same digits as Python."""
    values = [
        {**row, "value": None if row["value"] is None else f"{row['value']:.6g}"} for row in readout["values"]
    ]
    return {**readout, "values": values}


def finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def clusters_of(
    scene: Scene,
    layer: Layer,
    threshold: float,
    *,
    sign: str = "both",
    inside: bool = True,
    min_voxels: int = MIN_CLUSTER_VOXELS,
    at_most: int = 20,
) -> list[dict[str, Any]]:
    """Clusters of voxels (connected by faces) beyond a threshold, sorted by |peak|.

    Parameters
    ----------
    scene : Scene
    layer : Layer
    threshold : float
        Threshold of |value|; voxels of value 0 never belong to a cluster.
    sign : {"both", "positive", "negative"}, default "both"
        Positive and negative voxels are never in one cluster.
    inside : bool, default True
        Only in the brain.
    min_voxels : int, default 5
        Smaller clusters are not listed.
    at_most : int, default 20

    Returns
    -------
    list of dict
        ``peak`` (value), ``voxel`` (of the displayed grid), ``mm``, ``volume_ml``, ``region``.
    """
    values = np.where(scene.brain, layer.shown, 0) if inside else layer.shown
    voxel_ml = abs(float(np.linalg.det(scene.background.affine[:3, :3]))) / 1000
    found = []
    for name, direction in (("positive", 1), ("negative", -1)):
        if sign not in ("both", name):
            continue
        height = direction * values
        marks, _ = cluster_labels(height, float(np.float32(threshold)), min_voxels)
        n = int(marks.max())
        if not n:
            continue
        sizes = np.bincount(marks.ravel())[1:]
        tops = ndimage.maximum(height, marks, np.arange(1, n + 1))
        boxes = ndimage.find_objects(marks)
        for k in np.argsort(-tops, kind="stable")[:at_most]:
            box = boxes[k]
            part = np.where(marks[box] == k + 1, height[box], -np.inf)
            corner = np.array([side.start for side in box])
            voxel = corner + np.unravel_index(part.argmax(), part.shape)
            mm = nib.affines.apply_affine(scene.background.affine, voxel)
            found.append(
                {
                    "peak": direction * float(tops[k]),
                    "voxel": [int(i) for i in voxel],
                    "mm": [float(x) for x in mm],
                    "volume_ml": float(sizes[k]) * voxel_ml,
                    "region": readout_at(scene, mm)["region"],
                }
            )
    return sorted(found, key=lambda row: -abs(row["peak"]))[:at_most]

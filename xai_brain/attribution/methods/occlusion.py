"""What the output loses when a place of the brain is replaced: boxes, from coarse to fine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise, product

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.methods.integrated_gradients import baseline_volumes
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.masks import brain_of
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes, edge_in_voxels
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference

Box = tuple[slice, slice, slice]


class Occlusion:
    """Fall of the output per replaced voxel, of boxes that are halved where it falls most.

    All channels are replaced together and have one map, unless ``share_mask=False``. A value is the fall for
    a box divided by its voxels and by the channels that are replaced.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference, optional
    fill : str, optional
        What takes the place of the brain in a box, see `ReplacementVolumes`. Default:
        ``counterfactual_mean`` with a reference, else ``zero``.
    window_mm : float, default 40
        Largest edge of the boxes of the first level, which tile the brain's bounding box.
    n_levels : int, default 3
        A box of the next level has half the edges.
    n_refined : int, default 12
        Boxes with the largest absolute change that are halved along each axis, into eight.
    share_mask : bool, default True
        Whether a box replaces all channels of a volume; otherwise each channel has boxes and a map of its
        own, and the other channels stay as they are.
    voxel_size_mm : sequence of 3 float, optional
        Default: that of the reference.
    blur_sigma_mm : float, default 12
        Of ``fill="blur"``.
    chunk_size : int, optional
        Boxes in one pass; default: what fits into memory.

    References
    ----------
    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.
    """

    info = MethodInfo(
        name="Occlusion",
        value_meaning="raw and signed: decrease of the output per voxel and channel of the replaced box",
        multiplies_by_inputs=True,
        citation=(
            "Zeiler MD, Fergus R. Visualizing and understanding convolutional networks. ECCV 2014. "
            "arXiv:1311.2901."
        ),
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        fill: str | None = None,
        window_mm: float = 40.0,
        n_levels: int = 3,
        n_refined: int = 12,
        share_mask: bool = True,
        voxel_size_mm: Sequence[float] | None = None,
        blur_sigma_mm: float = 12.0,
        chunk_size: int | None = None,
    ):
        self.window_voxels = edge_in_voxels("window_mm", window_mm, reference, voxel_size_mm)
        if min(n_levels, n_refined) < 1:
            raise AttributionError("n_levels and n_refined of Occlusion are at least 1")
        self.model = model
        self.engine, self.reference = BatchedScorer(model, chunk_size), reference
        self.fill = ReplacementVolumes(
            fill or default_fill(reference), reference, blur_sigma_mm, voxel_size_mm
        )
        self.n_levels, self.n_refined, self.share_mask = n_levels, n_refined, share_mask
        self.info = replace(self.info, per_channel=not share_mask)

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; the map is 0 outside the brain."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        fills = baseline_volumes(self.fill, self.reference, inputs, targets)
        brain = brain_of(inputs, self.reference).bool().expand(len(inputs), 1, *inputs.shape[2:])
        on_host = brain[:, 0].cpu()
        maps = torch.zeros_like(inputs)
        n_channels = inputs.shape[1]
        groups = [slice(n_channels)] if self.share_mask else [slice(k, k + 1) for k in range(n_channels)]
        parts = [(i, channels) for i in range(len(inputs)) for channels in groups]
        boxes = [tiles(on_host[i], self.window_voxels) for i, _ in parts]
        with self.engine.prepared(inputs):
            for _ in range(self.n_levels):
                boxes = [
                    [box for box in those if on_host[i][box].any()]
                    for those, (i, _) in zip(boxes, parts, strict=True)
                ]
                drops = []
                for those, (i, channels) in zip(boxes, parts, strict=True):
                    fill = inputs[i].clone()
                    fill[channels] = fills[i, channels]
                    drops.append(
                        self._explain_level(inputs[i], fill, brain[i], targets[i], those, maps[i, channels])
                    )
                values = iter(torch.cat(drops).tolist())  # the only transfer of a level
                boxes = [
                    [
                        part
                        for k in largest([next(values) for _ in those], self.n_refined)
                        for part in split_octants(those[k])
                    ]
                    for those in boxes
                ]
        return maps

    def _explain_level(
        self,
        volume: torch.Tensor,
        fill: torch.Tensor,
        brain: torch.Tensor,
        target: torch.Tensor,
        boxes: list[Box],
        evidence: torch.Tensor,
    ) -> torch.Tensor:
        """Write the boxes of a volume into the map of its replaced channels; returns the fall for each."""
        edges = [[getattr(edge, end) for end in ("start", "stop") for edge in box] for box in boxes]
        table = torch.tensor(edges, dtype=torch.long, device=volume.device).view(-1, 6)
        places = in_box(table[:, :3], table[:, 3:], volume.shape[1:]) & brain  # (n_boxes, 1, X, Y, Z)
        drops = score_drops(self.engine, volume, fill, lambda rows: places[rows], len(boxes), target)
        per_value = drops / (places.sum((1, 2, 3, 4)) * len(evidence))
        for box, value in zip(boxes, per_value, strict=True):
            evidence[:, *box] = brain[:, *box] * value
        return drops


def largest(values: list[float], n: int) -> list[int]:
    """Numbers of the values with the largest magnitude, the first of equal ones first."""
    return sorted(range(len(values)), key=lambda k: -abs(values[k]))[:n]


def default_fill(reference: Reference | None) -> str:
    return "zero" if reference is None else "counterfactual_mean"


def score_drops(
    engine: BatchedScorer,
    volume: torch.Tensor,
    fill: torch.Tensor,
    replaced: Callable[[slice], torch.Tensor],
    n: int,
    target: torch.Tensor,
) -> torch.Tensor:
    """Output of a volume minus that with the k-th mask applied, (n,).

    The masks of one volume are processed together, so that rounding, to which differences of outputs are
    sensitive, does not depend on the other volumes.

    Parameters
    ----------
    engine : BatchedScorer
        Prepared.
    volume, fill : Tensor of shape (C, X, Y, Z)
    replaced : function of a slice of the masks that gives them, (rows, 1, X, Y, Z)
        Share of the fill in every voxel, from 0 to 1, or bool.
    n : int
    target : Tensor of shape ()
    """
    before = engine.scores(volume[None], target[None])
    drops = torch.empty(n, device=volume.device)

    def run(rows: slice) -> None:
        volumes = torch.lerp(volume, fill, replaced(rows).to(volume))
        drops[rows] = before - engine.scores(volumes, target.expand(len(volumes)))

    engine.chunks.run(n, run)
    return drops


def in_box(lows: torch.Tensor, highs: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Voxels of boxes, bool, (M, 1, X, Y, Z), from their first voxels and those after the last, (M, 3)."""
    along = []
    for axis, size in enumerate(shape):
        places = torch.arange(size, device=lows.device)
        along.append((places >= lows[:, axis, None]) & (places < highs[:, axis, None]))  # (M, size)
    x, y, z = along
    return (x[:, :, None, None] & y[:, None, :, None] & z[:, None, None, :])[:, None]


def tiles(brain: torch.Tensor, window_voxels: Sequence[float]) -> list[Box]:
    """Boxes of about equal size, no edge longer than the window's, that tile the brain's bounding box.

    Parameters
    ----------
    brain : bool Tensor of shape (X, Y, Z)
    window_voxels : sequence of 3 float
    """
    edges = []
    for axis, window in enumerate(window_voxels):
        others = [a for a in range(3) if a != axis]
        places = brain.any(others[1]).any(others[0]).nonzero().ravel()
        if not len(places):
            return []
        first, last = int(places[0]), int(places[-1]) + 1
        n_parts = -int(-(last - first) // max(window, 1))
        cuts = [first + round(k * (last - first) / n_parts) for k in range(n_parts + 1)]
        edges.append([slice(a, b) for a, b in pairwise(cuts)])
    x_parts, y_parts, z_parts = edges
    return list(product(x_parts, y_parts, z_parts))


def split_octants(box: Box) -> list[Box]:
    """A box halved along each axis; an axis of one voxel stays."""

    def halves(part: slice) -> list[slice]:
        middle = (part.start + part.stop + 1) // 2
        return [slice(a, b) for a, b in ((part.start, middle), (middle, part.stop)) if a < b]

    return [(x, y, z) for x in halves(box[0]) for y in halves(box[1]) for z in halves(box[2])]

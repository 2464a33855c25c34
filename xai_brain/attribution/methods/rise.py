"""RISE in three dimensions: mean of random masks, weighted by the output of the volumes that they keep."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets, seed_of
from xai_brain.attribution.methods.integrated_gradients import baseline_volumes
from xai_brain.attribution.methods.occlusion import default_fill, score_drops
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.masks import brain_of, smooth_masks
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes, edge_in_voxels
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference


class RISE:
    """Expected output if a voxel is kept while random places are replaced, minus the mean of all masks.

    A mask is a coarse grid of cells that are kept at random, moved by a random part of a cell and
    interpolated trilinearly. The published map contains the mean output, which is equal for all voxels
    except for noise; without it the values have a sign. All channels get the same mask and map.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference, fill, voxel_size_mm, blur_sigma_mm
        See `Occlusion`; the published fill is ``zero``.
    n_masks : int, default 1000
    kept : float, default 0.5
        Probability that a cell is kept.
    cell_mm : float, default 24
        Edge of a cell.
    random_state : int, default 0
    chunk_size : int, optional
        Masks in one pass; default: what fits into memory.

    References
    ----------
    Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018.
    """

    info = MethodInfo(
        name="RISE",
        value_meaning="raw and signed: expected output if the voxel is kept, minus the mean of all masks",
        multiplies_by_inputs=True,
        citation=(
            "Petsiuk V, Das A, Saenko K. RISE: randomized input sampling for explanation of black-box "
            "models. BMVC 2018. arXiv:1806.07421."
        ),
        trial_settings={"n_masks": 2},
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        fill: str | None = None,
        n_masks: int = 1000,
        kept: float = 0.5,
        cell_mm: float = 24.0,
        voxel_size_mm: Sequence[float] | None = None,
        blur_sigma_mm: float = 12.0,
        random_state: int = 0,
        chunk_size: int | None = None,
    ):
        self.cell_voxels = edge_in_voxels("cell_mm", cell_mm, reference, voxel_size_mm)
        if n_masks < 2 or not 0 < kept < 1:
            raise AttributionError(
                f"n_masks={n_masks}, kept={kept:g}: RISE needs two masks or more, and kept between 0 and 1"
            )
        self.model, self.reference = model, reference
        self.engine = BatchedScorer(model, chunk_size)
        self.fill = ReplacementVolumes(
            fill or default_fill(reference), reference, blur_sigma_mm, voxel_size_mm
        )
        self.n_masks, self.kept, self.random_state = n_masks, kept, random_state

    @in_float32
    def attribute(self, inputs: Tensor, target: int | Tensor | None = None) -> Tensor:
        """See `Method.attribute`; the map is 0 outside the brain."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        fills = baseline_volumes(self.fill, self.reference, inputs, targets)
        brain = brain_of(inputs, self.reference).expand(len(inputs), 1, *inputs.shape[2:])
        maps = torch.zeros_like(inputs)
        with self.engine.prepared(inputs):
            for i, map_ in enumerate(maps):
                self._explain(inputs[i], fills[i], brain[i], targets[i], map_)
        return maps

    def _explain(self, volume: Tensor, fill: Tensor, brain: Tensor, target: Tensor, map_: Tensor) -> None:
        """Add the values of a volume to its map."""
        cells, shifts = (drawn.to(volume) for drawn in self._draw(volume))

        def masks(rows: slice) -> Tensor:
            return smooth_masks(cells[rows], shifts[rows], self.cell_voxels, volume.shape[1:])

        def replaced(rows: slice) -> Tensor:
            return (1 - masks(rows)) * brain

        drops = score_drops(self.engine, volume, fill, replaced, self.n_masks, target)
        weights = (drops.mean() - drops) / (self.n_masks * self.kept)  # output minus the mean output

        def add(rows: slice) -> None:
            map_.add_(brain * torch.einsum("m,m...->...", weights[rows], masks(rows)))

        self.engine.chunks.run(self.n_masks, add)

    def _draw(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """Cells that are kept, (n_masks, x, y, z), and moves in cells, (n_masks, 3), of a volume's masks."""
        generator = torch.Generator().manual_seed(seed_of(volume, self.random_state))
        sizes = zip(volume.shape[1:], self.cell_voxels, strict=True)
        shape = [math.ceil(size / cell) + 1 for size, cell in sizes]
        cells = torch.rand(self.n_masks, *shape, generator=generator) < self.kept
        return cells, torch.rand(self.n_masks, 3, generator=generator)

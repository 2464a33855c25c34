"""KernelSHAP: Shapley values of the regions of an atlas or of supervoxels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import pandas as pd
import torch
from torch import Tensor, nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets, seed_of
from xai_brain.attribution.methods.integrated_gradients import baseline_volumes
from xai_brain.attribution.methods.occlusion import default_fill, score_drops
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.masks import brain_of
from xai_brain.attribution.perturbation.regions import atlas_regions, spread_evenly, supervoxels
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes, edge_in_voxels
from xai_brain.attribution.perturbation.shapley import draw_coalitions, shapley_values
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference


class KernelShap:
    """Shapley value of each region that is replaced, spread evenly over its voxels.

    It is the mean decrease of the output when the region is replaced, over all orders of replacing the
    regions. The map sums to the decrease when all regions are replaced. Voxels of no region are 0. Channels
    are replaced together and share the map.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference, optional
        Necessary for an atlas, with its affine.
    labels_img, table
        Regions of an atlas, see `RegionAblation`. Default: supervoxels of each volume.
    size_mm, contrast : float, default 30, 0.5
        Edge of supervoxels, and weight of intensities for their shape, see `supervoxels`.
    fill, voxel_size_mm, blur_sigma_mm
        See `Occlusion`.
    n_samples : int, default 1024
        Sets of regions that are replaced, at least eight for each region. If there are no more sets, all of
        them are evaluated, and the Shapley values are exact.
    random_state : int, default 0
    chunk_size : int, optional
        Sets in one pass; default: what fits into memory.

    References
    ----------
    Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017; Covert and Lee,
    "Improving KernelSHAP", AISTATS 2021 (pairs of a set and its complement).
    """

    info = MethodInfo(
        name="KernelShap",
        value_meaning="raw and signed: Shapley value of the replaced region, per voxel and channel",
        multiplies_by_inputs=True,
        citation="Lundberg SM, Lee SI. A unified approach to interpreting model predictions. NeurIPS 2017. "
        "arXiv:1705.07874.",
        trial_settings={"n_samples": 1, "size_mm": 90.0},
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        labels_img: str | Path | nib.Nifti1Image | None = None,
        table: str | Path | pd.DataFrame | None = None,
        size_mm: float = 30.0,
        contrast: float = 0.5,
        fill: str | None = None,
        n_samples: int = 1024,
        voxel_size_mm: Sequence[float] | None = None,
        blur_sigma_mm: float = 12.0,
        random_state: int = 0,
        chunk_size: int | None = None,
    ):
        self.size_voxels = edge_in_voxels("size_mm", size_mm, reference, voxel_size_mm)
        if contrast < 0 or n_samples < 1:
            what = f"contrast={contrast:g}, n_samples={n_samples}"
            raise AttributionError(f"{what}: KernelShap needs at least 0 and 1")
        self.model, self.reference, self.engine = model, reference, BatchedScorer(model, chunk_size)
        fill = fill or default_fill(reference)
        self.fill = ReplacementVolumes(fill, reference, blur_sigma_mm, voxel_size_mm)
        self.contrast, self.n_samples, self.random_state = contrast, n_samples, random_state
        self.regions = None if labels_img is None else atlas_regions(labels_img, table, reference)

    @in_float32
    def attribute(self, inputs: Tensor, target: int | Tensor | None = None) -> Tensor:
        """See `Method.attribute`; the map is 0 outside the regions."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        fills = baseline_volumes(self.fill, self.reference, inputs, targets)
        brain = brain_of(inputs, self.reference).bool().expand(len(inputs), 1, *inputs.shape[2:])
        maps = torch.empty_like(inputs)
        with self.engine.prepared(inputs):
            for i, volume in enumerate(inputs):
                maps[i] = self._explain(volume, fills[i], brain[i, 0], targets[i])
        return maps

    def _explain(self, volume: Tensor, fill: Tensor, brain: Tensor, target: Tensor) -> Tensor:
        """Map of a volume, (X, Y, Z)."""
        regions = self.regions
        if regions is None:
            regions = supervoxels(volume, brain, self.size_voxels, self.contrast)
        regions = regions.to(volume.device)
        if not (n := int(regions.max())):
            return torch.zeros_like(volume[0])
        sets, weights = draw_coalitions(n, self.n_samples, seed_of(volume, self.random_state))
        replaced = torch.cat([sets, torch.ones(1, n, dtype=torch.bool)])  # in the last row all regions
        replaced = nn.functional.pad(replaced, (1, 0)).to(volume.device)  # voxels of no region stay
        engine, masks = self.engine, lambda rows: replaced[rows][:, regions][:, None]
        drops = score_drops(engine, volume, fill, masks, len(replaced), target).double().cpu()
        values = shapley_values(sets, weights, drops[:-1], drops[-1:])
        return spread_evenly(values.to(volume), regions, len(volume))

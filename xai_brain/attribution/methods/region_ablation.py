"""What the output loses when a region of an atlas is replaced."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import pandas as pd
import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.methods.integrated_gradients import baseline_volumes
from xai_brain.attribution.methods.occlusion import default_fill, score_drops
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.regions import atlas_regions, spread_evenly
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference


class RegionAblation:
    """Fall of the output when a region is replaced, spread evenly over its voxels in the brain.

    So the sum over a region is what the output loses with it, and large regions do not win by their size.
    Voxels of no region are 0.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference
        With its affine.
    labels_img : str, Path or nibabel.Nifti1Image
        Label image (0: no region) in the space of the volumes, on any grid, or the name of an atlas that
        nilearn downloads; see `xai_brain.atlas.atlas.load_atlas`.
    table : str, Path or DataFrame, optional
        Names of its labels; default: the table beside the image.
    fill : str, default "counterfactual_mean"
        See `ReplacementVolumes`.
    blur_sigma_mm : float, default 12
        Of ``fill="blur"``.
    chunk_size : int, optional
        Regions in one pass; default: what fits into memory.

    Raises
    ------
    AttributionError
        The reference has no affine, or no region lies in the brain.
    AtlasError, ImageError
        The label image cannot be read or used.
    """

    info = MethodInfo(
        name="RegionAblation",
        value_meaning="raw and signed: decrease of the output per voxel of the region that is replaced",
        multiplies_by_inputs=True,
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference,
        labels_img: str | Path | nib.Nifti1Image,
        table: str | Path | pd.DataFrame | None = None,
        fill: str | None = None,
        blur_sigma_mm: float = 12.0,
        chunk_size: int | None = None,
    ):
        self.model = model
        self.engine, self.reference = BatchedScorer(model, chunk_size), reference
        self.fill = ReplacementVolumes(fill or default_fill(reference), reference, blur_sigma_mm)
        self.regions = atlas_regions(labels_img, table, reference)

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`; the map is 0 outside the regions."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs, one_channel="RegionAblation")
        self.reference.check(inputs)
        fills = baseline_volumes(self.fill, self.reference, inputs, targets)
        regions = self.regions.to(inputs.device)
        numbers = torch.arange(1, int(self.regions.max()) + 1, device=inputs.device).view(-1, 1, 1, 1)
        maps = torch.empty_like(inputs)
        with self.engine.prepared(inputs):
            for i, volume in enumerate(inputs):
                drops = score_drops(
                    *(self.engine, volume, fills[i], lambda rows: (regions == numbers[rows])[:, None]),
                    *(len(numbers), targets[i]),
                )
                maps[i] = spread_evenly(drops, regions)
        return maps

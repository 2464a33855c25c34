"""Score-CAM on volumes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from xai_brain.attribution.calling_context import in_float32
from xai_brain.attribution.inputs import as_targets
from xai_brain.attribution.methods.grad_cam import features_and_scores, find_layer
from xai_brain.attribution.methods.integrated_gradients import baseline_volumes
from xai_brain.attribution.methods.occlusion import default_fill, score_drops
from xai_brain.attribution.model_state import CachedCheck
from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.masks import upsampled
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes
from xai_brain.attribution.protocol import MethodInfo
from xai_brain.attribution.reference import Reference


class ScoreCAM:
    """Channels of one layer, weighted by the output for volumes that are kept where the channel is high.

    Each channel, interpolated to the input grid and scaled to [0, 1], is the share of the volume that is
    kept; the rest is replaced. The weights of the channels are the softmax of the outputs. No gradients are
    used. The map is not negative where the layer is not; channels without variation have no weight.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    reference : Reference, optional
    layer : str, optional
        See `LayerMap`. One pass is needed for each of its channels.
    fill : str, optional
        What replaces the volume, see `ReplacementVolumes`; as published: ``zero``. Default:
        ``counterfactual_mean`` with a reference, else ``zero``.
    blur_sigma_mm : float, default 12
        Of ``fill="blur"``.
    voxel_size_mm : sequence of 3 float, optional
        For the blur; default: that of the reference.
    chunk_size : int, optional
        Channels in one pass; default: what fits into memory.

    References
    ----------
    Wang et al., "Score-CAM", CVPR workshops 2020.
    """

    info = MethodInfo(
        name="ScoreCAM",
        value_meaning="raw: mean of the channels of the layer, weighted by the output if they are kept",
        multiplies_by_inputs=True,
        citation=(
            "Wang H, Wang Z, Du M, et al. Score-CAM: score-weighted visual explanations for convolutional "
            "neural networks. CVPR workshops 2020:111–119. arXiv:1910.01279."
        ),
    )

    def __init__(
        self,
        model: nn.Module,
        reference: Reference | None = None,
        layer: str | None = None,
        fill: str | None = None,
        blur_sigma_mm: float = 12.0,
        voxel_size_mm: Sequence[float] | None = None,
        chunk_size: int | None = None,
    ):
        self.model, self.layer = model, layer
        self.engine, self.reference = BatchedScorer(model, chunk_size), reference
        self.fill = ReplacementVolumes(
            fill or default_fill(reference), reference, blur_sigma_mm, voxel_size_mm
        )
        self._found = CachedCheck(find_layer)

    @in_float32
    def attribute(self, inputs: torch.Tensor, target: int | torch.Tensor | None = None) -> torch.Tensor:
        """See `Method.attribute`."""
        inputs = inputs.detach()
        targets = as_targets(target, inputs)
        fills = baseline_volumes(self.fill, self.reference, inputs, targets)
        maps = torch.empty_like(inputs)
        with self.engine.prepared(inputs):
            layer = self._found.result_for(self.model, inputs, self.layer)
            for i in range(len(inputs)):
                with torch.no_grad():
                    rows = slice(i, i + 1)
                    features, _ = features_and_scores(self.model, layer, inputs[rows], targets[rows])
                weights = self._weights(features[0], inputs[i], fills[i], targets[i])
                coarse = torch.einsum("k,k...->...", weights, features[0])
                maps[i] = upsampled(coarse[None, None], inputs.shape)[0]
        return maps

    def _weights(
        self, features: torch.Tensor, volume: torch.Tensor, fill: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        """Weights of the channels (K, X', Y', Z'), (K,)."""

        def replaced(rows: slice) -> torch.Tensor:
            masks = upsampled(features[rows, None], volume.shape)
            low, high = (of(masks, (2, 3, 4), keepdim=True) for of in (torch.amin, torch.amax))
            return 1 - (masks - low) / (high - low).clamp_min(torch.finfo(masks.dtype).tiny)

        drops = score_drops(self.engine, volume, fill, replaced, len(features), target)
        voxels = features.flatten(1)
        constant = voxels.amax(1) == voxels.amin(1)
        # the output of the volume and that of the fill are the same for all channels: softmax removes them
        return torch.softmax(-drops.masked_fill(constant, torch.inf), 0).masked_fill(constant, 0)

"""LayerCAM on volumes."""

from __future__ import annotations

import torch

from xai_brain.attribution.methods.grad_cam import LayerMap
from xai_brain.attribution.protocol import MethodInfo


class LayerCAM(LayerMap):
    """Output of one layer times its positive gradient, voxel by voxel, summed over the channels.

    Because every voxel has its own weight, the method can be applied to early layers with a fine grid. The
    map is not negative where the layer is not.

    Parameters
    ----------
    model, layer
        See `LayerMap`.

    References
    ----------
    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE
    Transactions on Image Processing 2021.
    """

    info = MethodInfo(
        name="LayerCAM",
        value_meaning="raw: output of the layer times its positive gradient; positive: for the class",
        multiplies_by_inputs=True,
        citation=(
            "Jiang PT, Zhang CB, Hou Q, Cheng MM, Wei Y. LayerCAM: exploring hierarchical class activation "
            "maps for localization. IEEE Trans Image Process 2021;30:5875–5888."
        ),
    )

    def combine(self, features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """See `LayerMap.combine`."""
        return (gradient.clamp_min(0) * features).sum(1, keepdim=True)

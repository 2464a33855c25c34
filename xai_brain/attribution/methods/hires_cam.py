"""HiResCAM on volumes."""

from __future__ import annotations

import torch

from xai_brain.attribution.methods.grad_cam import LayerMap
from xai_brain.attribution.protocol import MethodInfo


class HiResCAM(LayerMap):
    """Output of one layer times its gradient, voxel by voxel, summed over the channels.

    Grad-CAM averages the gradient over the voxels first, so that it may show places that the network does
    not use. The two are equal if a mean over the voxels and a linear layer follow. If only linear layers
    follow, the map on the grid of the layer sums to the output without their biases.

    Parameters
    ----------
    model, layer
        See `LayerMap`.

    References
    ----------
    Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
    networks", arXiv 2011.08891.
    """

    info = MethodInfo(
        name="HiResCAM",
        value_meaning="raw and signed: output of the layer times its gradient; positive: for the class",
        multiplies_by_inputs=True,
        citation=(
            "Draelos RL, Carin L. Use HiResCAM instead of Grad-CAM for faithful explanations of "
            "convolutional neural networks. 2020. arXiv:2011.08891."
        ),
    )

    def combine(self, features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """See `LayerMap.combine`."""
        return (gradient * features).sum(1, keepdim=True)

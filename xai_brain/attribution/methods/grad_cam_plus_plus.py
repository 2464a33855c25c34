"""Grad-CAM++ on volumes."""

from __future__ import annotations

import torch

from xai_brain.attribution.methods.grad_cam import LayerMap
from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.protocol import MethodInfo


class GradCAMPlusPlus(LayerMap):
    """Channels of one layer, weighted by a sum of their positive gradients.

    The positive gradients g of a channel A count g / (2 + g sum(A)), so that a small structure of a channel
    contributes as much as a large one. The map is not negative where the layer is not.

    Parameters
    ----------
    model, layer
        See `LayerMap`; the sum of a channel must not be negative, as after a ReLU.

    Notes
    -----
    The published weights contain the factor exp(score), which is the same for all voxels and is omitted: it
    exceeds the range of float32 for scores above 88, and the mean map of participants would be that of the
    participants with the highest scores.

    References
    ----------
    Chattopadhay et al., "Grad-CAM++", WACV 2018.
    """

    info = MethodInfo(
        name="GradCAMPlusPlus",
        value_meaning="raw and not negative: high values support the class",
        multiplies_by_inputs=True,
        citation=(
            "Chattopadhay A, Sarkar A, Howlader P, Balasubramanian VN. Grad-CAM++: generalized "
            "gradient-based visual explanations for deep convolutional networks. WACV 2018:839–847. "
            "arXiv:1710.11063."
        ),
    )

    def combine(self, features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """See `LayerMap.combine`.

        Raises
        ------
        AttributionError
            A channel has a negative sum: the weights may be infinite or negative.
        """
        total = features.sum((2, 3, 4), keepdim=True)  # (N, K, 1, 1, 1)
        if bool((total < 0).any()):
            raise AttributionError(
                "the layer gives channels with a negative sum, for which Grad-CAM++ has no weights; choose "
                "a ReLU as layer=, or another method (GradCAM, HiResCAM)"
            )
        positive = gradient.clamp_min(0)
        # eq. 10 and 5: g^2 / (2 g^2 + sum(A) g^3) relu(g), reduced, because powers underflow
        weights = (positive / (2 + total * positive)).sum((2, 3, 4), keepdim=True)
        return (weights * features).sum(1, keepdim=True)

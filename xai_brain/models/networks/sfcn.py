"""The simple fully convolutional network of Peng et al. 2021."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn

from xai_brain.models.weights import load_weights

PUBLISHED_LAYER = re.compile(r"^feature_extractor\.conv_(\d)\.([01])\.")
PUBLISHED_HEAD = re.compile(r"^classifier\.conv_\d\.")


class SFCN(nn.Module):
    """Blocks of 3x3x3 convolution, batch norm, max pooling and ReLU; a last 1x1x1 block; global mean.

    Parameters
    ----------
    input_shape : sequence of 3 int, default (58, 70, 58)
        Voxels of the grid; each block except the last halves it.
    n_classes : int, default 2
    channels : sequence of int, default (32, 64, 128, 256, 256, 64)
    dropout : float, default 0.5
    weights : str, optional
        Weights file: a published state dict (github.com/ha-ha-ha-han/UKBiobank_deep_pretrain, for 160x192x160
        voxels) or one of this class (see `load_weights`). The published network ends in a log-softmax; its
        logits differ by a constant per participant, which does not change the probabilities.

    References
    ----------
    Peng et al., "Accurate brain age prediction with lightweight deep neural networks", Medical Image
    Analysis 68:101871, 2021.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (58, 70, 58),
        n_classes: int = 2,
        channels: Sequence[int] = (32, 64, 128, 256, 256, 64),
        dropout: float = 0.5,
        weights: str | None = None,
    ):
        super().__init__()
        *pooling, last = channels
        if min(input_shape) < 2 ** len(pooling):
            raise ValueError(
                f"input shape {tuple(input_shape)} is too small; at least {2 ** len(pooling)} voxels per "
                "axis are needed, or fewer channels"
            )
        layers: list[nn.Module] = []
        for before, after in zip([1, *pooling], pooling, strict=False):
            convolution = nn.Conv3d(before, after, kernel_size=3, padding=1)
            layers += [convolution, nn.BatchNorm3d(after), nn.MaxPool3d(2), nn.ReLU()]
        layers += [nn.Conv3d(pooling[-1], last, kernel_size=1), nn.BatchNorm3d(last), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(last, n_classes)
        if weights is not None:
            load_weights(self, weights, own_key)

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """Logits (N, n_classes) of volumes (N, 1, X, Y, Z)."""
        return self.linear(self.dropout(self.features(volumes).mean((2, 3, 4))))


def own_key(key: str) -> str:
    """Key of `SFCN` for a key of a published state dict; other keys are returned as they are."""
    key = PUBLISHED_LAYER.sub(lambda match: f"features.{4 * int(match[1]) + int(match[2])}.", key)
    return PUBLISHED_HEAD.sub("linear.", key)

"""A shallow network that keeps place: one convolution, read out where it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


class ShallowNet(nn.Module):
    """Means of 2x2x2 voxels, one convolution, batch norm, ReLU, means of 2x2x2 again, a linear layer.

    For a hundred subjects and not thousands: deep networks forget where something is before they have learned
    what to look for, while a linear layer on places is most of what so few subjects can teach. Made for
    ``trainer.standardize=zscore``.

    Parameters
    ----------
    input_shape : sequence of 3 int, default (58, 70, 58)
        Voxels of the grid; at least 4 per axis.
    n_classes : int, default 2
    channels : int, default 16
    dropout : float, default 0.5
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (58, 70, 58),
        n_classes: int = 2,
        channels: int = 16,
        dropout: float = 0.5,
    ):
        super().__init__()
        if min(input_shape) < 4:
            raise ValueError(
                f"input shape {tuple(input_shape)} is too small; at least 4 voxels per axis are needed"
            )
        self.shrink = nn.AvgPool3d(2)
        self.conv = nn.Conv3d(1, channels, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm3d(channels)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool3d(2)
        self.dropout = nn.Dropout(dropout)
        n_places = math.prod(n // 4 for n in input_shape)
        self.linear = nn.Linear(channels * n_places, n_classes)
        nn.init.zeros_(self.linear.weight)  # what the first subjects teach is not added to noise

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """Logits (N, n_classes) of volumes (N, 1, X, Y, Z)."""
        x = self.relu(self.norm(self.conv(self.shrink(volumes))))
        return self.linear(self.dropout(self.pool(x).flatten(1)))

"""A shallow network that preserves location: one convolution and a linear layer on its output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


class ShallowNet(nn.Module):
    """Means of 2x2x2 voxels, one convolution, batch norm, ReLU, means of 2x2x2 again, a linear layer.

    For cohorts of about a hundred participants, in which a linear layer on localised features performs better
    than a deep network. It should be used with ``trainer.standardize=zscore``.

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
        nn.init.zeros_(self.linear.weight)  # learning starts from zero instead of random weights

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """Logits (N, n_classes) of volumes (N, 1, X, Y, Z)."""
        x = self.relu(self.norm(self.conv(self.shrink(volumes))))
        return self.linear(self.dropout(self.pool(x).flatten(1)))

"""A small vision transformer for volumes, of blocks of MONAI."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import ViT
from torch import nn


class VolumeTransformer(nn.Module):
    """MONAI's ViT with a class token; returns logits (N, n_classes).

    Voxels beyond the last whole patch are not seen.

    Parameters
    ----------
    input_shape : sequence of 3 int
    n_classes : int, default 2
    patch : int, default 6
        Voxels along each axis.
    width, depth, n_heads : int
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int = 2,
        patch: int = 6,
        width: int = 48,
        depth: int = 2,
        n_heads: int = 4,
    ):
        super().__init__()
        self.network = ViT(
            1,
            tuple(input_shape),
            patch,
            hidden_size=width,
            mlp_dim=2 * width,
            num_layers=depth,
            num_heads=n_heads,
            classification=True,
            num_classes=n_classes,
            post_activation=None,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)[0]

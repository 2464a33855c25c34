"""The network of Kan et al. 2020: three convolutional blocks and one linear layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from xai_brain.models.networks.archive import archive_kind
from xai_brain.models.weights import load_weights, read_state_dict

# There are two published state dicts with different names of the same tensors.
PUBLISHED_KEYS = (
    (re.compile(r"^hidden(\d)\.0\."), lambda m: f"block{m[1]}.conv."),
    (re.compile(r"^hidden(\d)\.1\."), lambda m: f"block{m[1]}.norm."),
    (re.compile(r"^linear\."), lambda m: "linear."),
    (re.compile(r"^features\.(0|4|8)\."), lambda m: f"block{int(m[1]) // 4 + 1}.conv."),
    (re.compile(r"^features\.(1|5|9)\."), lambda m: f"block{int(m[1]) // 4 + 1}.norm."),
    (re.compile(r"^classifier\.3\."), lambda m: "linear."),
)
PUBLISHED_NAME = re.compile(r"(^|\.)(hidden[123]\.[01]|features\.\d+|classifier\.3)\.")


class ConvBlock(nn.Module):
    """Convolution 3x3x3, batch norm, ReLU, max pooling by 2.

    ReLU and max pooling commute, for values and gradients. Pooling first reduces the memory of the ReLU
    activations by a factor of 8; ReLU first keeps a rectified feature map at full resolution for Grad-CAM.

    Parameters
    ----------
    in_channels, out_channels : int
    pool_first : bool
    """

    def __init__(self, in_channels: int, out_channels: int, pool_first: bool):
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, kernel_size=3)
        self.norm = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool3d(2)
        self.pool_first = pool_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, X, Y, Z) -> (N, out_channels, X', Y', Z')."""
        x = self.norm(self.conv(x))
        out: torch.Tensor = self.relu(self.pool(x)) if self.pool_first else self.pool(self.relu(x))
        return out


class Kan2020(nn.Module):
    """Convolutional network for sex classification; 322,818 parameters at 32 channels and 58x70x58.

    Parameters
    ----------
    input_shape : tuple of 3 int, default (58, 70, 58)
        Voxels of the grid.
    n_classes : int, default 2
    channels : sequence of 3 int, default (32, 64, 128)
    dropout : float, default 0.5
    weights : str, optional
        Weights file: one of the two published state dicts or a state dict of this class (see `load_weights`).

    Examples
    --------
    >>> network = Kan2020(input_shape=(30, 28, 26), channels=(2, 3, 4))
    >>> network(torch.rand(2, 1, 30, 28, 26)).shape
    torch.Size([2, 2])

    References
    ----------
    Kan et al., "Interpretation of 3D CNNs for Brain MRI Data Classification", AIST 2020.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (58, 70, 58),
        n_classes: int = 2,
        channels: Sequence[int] = (32, 64, 128),
        dropout: float = 0.5,
        weights: str | None = None,
    ):
        super().__init__()
        c1, c2, c3 = channels
        self.block1 = ConvBlock(1, c1, pool_first=True)
        self.block2 = ConvBlock(c1, c2, pool_first=True)
        self.block3 = ConvBlock(c2, c3, pool_first=False)
        size = [int(n) for n in input_shape]
        for _ in range(3):
            size = [(n - 2) // 2 for n in size]
        if min(size) < 1:
            raise ValueError(
                f"input shape {tuple(input_shape)} is too small; at least 22 voxels per axis are needed"
            )
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(c3 * size[0] * size[1] * size[2], n_classes)
        if weights is not None:
            load_weights(self, weights, own_key)

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """Logits (N, n_classes) of volumes (N, 1, X, Y, Z)."""
        x = self.block3(self.block2(self.block1(volumes)))
        scores: torch.Tensor = self.linear(self.dropout(x.flatten(1)))  # (N, channels x X' x Y' x Z')
        return scores


def is_published(path: str | Path) -> bool:
    """Whether the tensor names of a file are those of one of the two published state dicts."""
    if archive_kind(Path(path)):
        return False
    return any(PUBLISHED_NAME.search(key) for key in read_state_dict(path))


def own_key(key: str) -> str:
    """Key of `Kan2020` for a key of a published state dict; other keys are returned as they are.

    The published ``best_model_all`` ends in a log-softmax; its logits differ by a constant per participant,
    which does not change the probabilities.
    """
    for pattern, name in PUBLISHED_KEYS:
        if pattern.match(key):
            return pattern.sub(name, key)
    return key

"""Small networks and images for the tests of `xai_brain.explain`."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import torch
from torch import nn

FLIPPED = np.array([[-2.0, 0, 0, 40], [0, 2.5, 0, -30], [0, 0, 3.0, -20], [0, 0, 0, 1]])
PERMUTED = np.array([[0, 0, 3.0, -25], [2.0, 0, 0, -40], [0, 2.5, 0, -30], [0, 0, 0, 1]])


class Pooled(nn.Module):
    """A small convolutional network for volumes of any size."""

    def __init__(self, n_outputs=2, n_channels=1):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv3d(n_channels, 4, 3, padding=1)
        self.head = nn.Linear(4, n_outputs)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3, 4)))


class OneVoxel(nn.Module):
    """Logits that depend on one voxel of volumes of one size."""

    def __init__(self, shape, index):
        super().__init__()
        self.shape, self.index = shape, index
        self.weight = nn.Parameter(torch.tensor([-1.0, 1.0]))

    def forward(self, x):
        if tuple(x.shape[2:]) != tuple(self.shape):
            raise RuntimeError(
                f"mat1 and mat2 shapes cannot be multiplied ({x.shape[2]} and {self.shape[0]})"
            )
        return x[:, 0, *self.index, None] * self.weight


def image(affine=FLIPPED, shape=(14, 16, 12), seed=0):
    values = np.random.default_rng(seed).random(shape).astype(np.float32)
    return nib.Nifti1Image(values, affine)


def two_files(folder):
    """Two images on different grids."""
    first, second = folder / "sub-01_T1w.nii.gz", folder / "sub-02_T1w.nii.gz"
    image(FLIPPED).to_filename(first)
    image(PERMUTED, (12, 14, 16), 1).to_filename(second)
    return [str(first), str(second)]

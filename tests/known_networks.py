"""Networks whose maps are known, and references for them."""

from __future__ import annotations

import torch
from torch import nn

from xai_brain.attribution import Reference

WEIGHTS = torch.arange(4 * 6 * 8, dtype=torch.float32).view(1, 4, 6, 8).cos()


class Linear(nn.Module):
    """Class 1 is a weighted sum of the voxels plus 5, class 0 its negative."""

    def forward(self, x):
        score = (x * WEIGHTS).sum((1, 2, 3, 4)) + 5
        return torch.stack([-score, score], 1)


def reference_of(volumes, brain=None, affine=None):
    shape = volumes.shape[2:]
    return Reference(
        class_means=torch.stack([volumes[::2].mean(0), volumes[1::2].mean(0)]),
        volumes=volumes,
        targets=torch.arange(len(volumes)) % 2,
        brain_mask=torch.ones(shape, dtype=torch.bool) if brain is None else brain,
        voxel_size_mm=(1.0, 1.0, 1.0),
        affine=affine,
    )

"""Toy networks and methods with known answers, for tests of metrics."""

from __future__ import annotations

import numpy as np
import torch
from conftest import SHAPE
from torch import nn

BRAIN = np.zeros(SHAPE, bool)
BRAIN[1:11, 2:12, 1:15] = True
TARGETS = torch.tensor([1, 0, 1])
VOXEL_MM = (3.0, 2.0, 4.0)


class Linear(nn.Module):
    """Two classes, each a weighted sum of the voxels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(int(np.prod(SHAPE)), 2)

    def forward(self, x):
        return self.linear(x.flatten(1))

    def weight(self, target):
        return self.linear.weight[target].detach().view(SHAPE).numpy()


class OfWeights:
    """A method that is given by a function of model, inputs and targets."""

    def __init__(self, make, model=None):
        self.make, self.model = make, model

    def attribute(self, inputs, target):
        return self.make(self.model, inputs, target)

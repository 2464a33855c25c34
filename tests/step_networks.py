"""Networks with a given operation or activation after their first block."""

from __future__ import annotations

import torch
from conftest import ToyNet
from torch import nn
from torch.nn import functional as F


class Step(ToyNet):
    """ToyNet with another operation on the features of its first block."""

    def __init__(self, step, activation=None):
        torch.manual_seed(0)
        super().__init__()
        self.norm.running_mean.copy_(torch.tensor([0.3, -0.2, 0.1, 0.5]))
        self.step = step
        self.activation = activation or torch.relu
        self.eval()

    def forward(self, x):
        x = self.step(self.relu1(self.norm(self.conv1(x))))
        return self.linear(self.activation(self.conv2(x)).mean((2, 3, 4)))


ACTIVATIONS = {
    "GELU": nn.GELU(), "SiLU": nn.SiLU(), "Mish": nn.Mish(), "Hardswish": nn.Hardswish(), "ELU": nn.ELU(),
    "SELU": nn.SELU(inplace=True), "Softplus": nn.Softplus(), "Tanh": nn.Tanh(), "Sigmoid": nn.Sigmoid(),
    "ReLU6": nn.ReLU6(), "LeakyReLU": nn.LeakyReLU(0.1), "PReLU": nn.PReLU(),
    "clamp": lambda x: x.clamp(-0.1, 0.3), "clamp(min=0)": lambda x: torch.clamp(x, min=0),
    "clamp_": lambda x: (2 * x).clamp_(-0.1, 0.3), "in place": lambda x: F.relu(x, inplace=True),
}  # fmt: skip
POOLING = {
    "overlapping": nn.MaxPool3d(3, 2, 1), "dilated": nn.MaxPool3d(2, 1, dilation=2),
    "adaptive": nn.AdaptiveMaxPool3d((3, 4, 5)), "functional": lambda x: F.max_pool3d(x, 3, stride=1),
    "torch's": lambda x: torch.max_pool3d(x, 2),
}  # fmt: skip

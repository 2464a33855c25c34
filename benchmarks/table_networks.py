"""Networks of the table of networks and methods: convolutional networks, and how a kind is described."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from xai_brain.models.networks.archive import TorchScript

CONVOLUTION, RELU = "conv2", "relu2"


class Small(nn.Module):
    """Two convolutions, normalisation, an activation after each, pooling, and a linear layer on the mean."""

    def __init__(
        self,
        activation: Callable[[], nn.Module] = nn.ReLU,
        norm: Callable[[int], nn.Module] = nn.BatchNorm3d,
        pool: nn.Module | None = None,
        n_channels: int = 1,
        n_outputs: int = 2,
    ):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv3d(n_channels, 6, 3, padding=1), norm(6)
        self.relu1, self.pool = activation(), pool or nn.MaxPool3d(2)
        self.conv2, self.norm2 = nn.Conv3d(6, 8, 3, padding=1), norm(8)
        self.relu2 = activation()
        self.linear = nn.Linear(8, n_outputs)

    def forward(self, x):
        x = self.pool(self.relu1(self.norm1(self.conv1(x))))
        return self.linear(self.relu2(self.norm2(self.conv2(x))).mean((2, 3, 4)))


class Reused(Small):
    def forward(self, x):
        x = self.pool(self.relu1(self.norm1(self.conv1(x))))
        return self.linear(self.relu1(self.norm2(self.conv2(x))).mean((2, 3, 4)))


class Functional(Small):
    def __init__(self):
        super().__init__(activation=nn.Identity)

    def forward(self, x):
        x = F.max_pool3d(F.relu(self.norm1(self.conv1(x))), 2)
        return self.linear(torch.relu_(self.norm2(self.conv2(x))).mean((2, 3, 4)))


class Gated(Small):
    """The features are multiplied by a gate that is computed from them."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Conv3d(8, 8, 1)

    def forward(self, x):
        x = self.pool(self.relu1(self.norm1(self.conv1(x))))
        x = self.relu2(self.norm2(self.conv2(x)))
        return self.linear((x * torch.sigmoid(self.gate(x))).mean((2, 3, 4)))


class Clamp(nn.Module):
    def forward(self, x):
        return x.clamp(min=0, max=1)


@dataclass(frozen=True)
class Tokens:
    """Tokens of a transformer.

    Parameters
    ----------
    layer : str
        Module whose output is the features of tokens at the last layer normalisation of several patches on
        which the output depends; with ``of_input=True``, its input.
    patch : tuple of 3 int
        Voxels of a token of this layer.
    class_token : bool, default False
        Whether the first token has no patch.
    of_input : bool, default False
    """

    layer: str
    patch: tuple[int, ...]
    class_token: bool = False
    of_input: bool = False


@dataclass(frozen=True)
class Kind:
    """One row of the table.

    Parameters
    ----------
    name : str
    network : torch.nn.Module
        As it is given to methods.
    layer : str
        Where Grad-CAM is to look: the last ReLU module on a volume, or the last convolution if a function or
        another activation follows it.
    score_layer : str, optional
        Where Score-CAM is to look instead, in networks whose last layer has hundreds of channels: its cost is
        one pass for each.
    twin : torch.nn.Module, optional
        The same function with a ReLU module at every place, for networks without other gates.
    n_channels, n_outputs : int
    outputs : str, default "classes"
        Meaning of the outputs, see `xai_brain.attribution.network_outputs.KINDS`.
    original : torch.nn.Module, optional
        The same function without what the package adds to it, or what an archive hides.
    tokens : Tokens, optional
    label, region : int, Tensor of shape (X, Y, Z), optional
        Of a segmentation.
    shape : tuple of 3 int, optional
        Voxels of its inputs, if it takes certain numbers only.
    n_volumes : int, default 2
        Volumes that are explained.
    """

    name: str
    network: nn.Module
    layer: str
    twin: nn.Module | None = None
    n_channels: int = 1
    n_outputs: int = 2
    outputs: str = "classes"
    original: nn.Module | None = None
    tokens: Tokens | None = None
    label: int | None = None
    region: torch.Tensor | None = None
    shape: tuple[int, int, int] | None = None
    n_volumes: int = 2
    score_layer: str | None = None

    @property
    def is_usual(self) -> bool:
        """One channel, two classes, and modules that can be looked into."""
        is_archive = isinstance(self.network, TorchScript)
        return (self.n_channels, self.n_outputs, self.outputs) == (1, 2, "classes") and not is_archive


def convolutional(shape: tuple[int, int, int], small: bool) -> list[Kind]:
    """Networks with weights of a fixed seed and batch statistics that are not trivial.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels of their inputs.
    small : bool
        Whether DenseNet and ResNet have a few layers only.
    """
    torch.manual_seed(0)
    two: dict = {"n_channels": 2}
    three: dict = {"n_outputs": 3}
    all_kinds = [
        _monai(
            *("DenseNet121", _dense_net(small)),
            *("class_layers.relu" if small else "features.transition3.relu", "features.relu0"),
        ),
        _monai("ResNet18", _res_net(small), "layer3.0.act" if small else "layer4.1.act", "act"),
        _like("ReLU in place", Small(lambda: nn.ReLU(inplace=True)), RELU),
        _like("ReLU module used twice", Reused(), "relu1"),
        _like("functional ReLU", Functional(), CONVOLUTION),
        Kind("GELU", Small(nn.GELU), CONVOLUTION),
        Kind("SiLU", Small(nn.SiLU), CONVOLUTION),
        Kind("Mish", Small(nn.Mish), CONVOLUTION),
        _like("InstanceNorm", Small(norm=lambda n: nn.InstanceNorm3d(n, affine=True)), RELU),
        _like("GroupNorm", Small(norm=lambda n: nn.GroupNorm(2, n)), RELU),
        _like("overlapping max pooling", Small(pool=nn.MaxPool3d(3, 2, 1)), RELU),
        Kind("product of two branches", Gated(), RELU),
        Kind("clamp", Small(Clamp), CONVOLUTION),
        _like("two channels", Small(**two), RELU, **two),
        _like("one logit", Small(n_outputs=1), RELU, n_outputs=1, outputs="one_logit"),
        _like("several labels", Small(**three), RELU, **three, outputs="labels"),
    ]
    for kind in all_kinds:
        for network in filter(None, (kind.network, kind.twin)):
            settle(network, torch.Size([4, kind.n_channels, *shape]))
    original = Small()
    settle(original, torch.Size([4, 1, *shape]))
    archive = Kind("TorchScript archive", _archived(original), RELU, original=original)
    return [*all_kinds, archive]


def _like(name: str, network: nn.Module, layer: str, **about: Any) -> Kind:
    """A kind that is the same function as a network with two ReLU modules."""
    twin = copy.deepcopy(network)
    twin.forward = Small.forward.__get__(twin)
    twin.relu1, twin.relu2 = nn.ReLU(), nn.ReLU()
    return Kind(name, network, layer, twin, **about)


def _archived(network: nn.Module) -> nn.Module:
    """The network from a file of ``torch.jit.save``."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(path := str(Path(folder) / "network.pt"))
        return TorchScript(path).eval()


def _monai(name: str, network: nn.Module, layer: str, score_layer: str) -> Kind:
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return Kind(name, network, layer, twin, score_layer=score_layer)


def _dense_net(small: bool) -> nn.Module:
    from monai.networks.nets import DenseNet, DenseNet121

    if not small:
        return DenseNet121(spatial_dims=3, in_channels=1, out_channels=2)
    return DenseNet(3, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2), bn_size=2)


def _res_net(small: bool) -> nn.Module:
    from monai.networks.nets import ResNet

    depth, widths = ([1] * 4, [4, 4, 8, 8]) if small else ([2] * 4, [64, 128, 256, 512])
    return ResNet(
        "basic",
        depth,
        widths,
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_stride=1 if small else 2,
        num_classes=2,
    )


@torch.no_grad()
def settle(network: nn.Module, shape: torch.Size) -> None:
    """Statistics of volumes for the batch norms, and logits that differ like those of a trained network.

    The same for a network and its twin.
    """
    network.train()
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        network(torch.randn(shape, generator=generator))
    network.eval()
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    logits = network(torch.randn(shape, generator=generator))
    logits = logits[0] if isinstance(logits, tuple) else logits
    gain = 2 / logits.std(0).mean()
    last.weight.mul_(gain)
    last.bias.sub_(logits.mean(0)).mul_(gain)

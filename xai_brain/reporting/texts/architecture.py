"""Architecture of the network in words, from the settings of a run; the network itself is not loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from xai_brain.io.nifti import GRIDS
from xai_brain.reporting.contents import ReportContents
from xai_brain.reporting.wording import listed

Described = tuple[str, int | None]  # layers, and number of parameters if the shape of the images is known
NOT_LAYERS = ("_target_", "weights")  # settings that do not describe the layers


def architecture(contents: ReportContents) -> str:
    """Name, layers and number of parameters of the network, as "A 3-D convolutional network, ..."."""
    settings = contents.setting("model", {}) or {}
    target = str(settings.get("_target_") or "")
    name = target.rpartition(".")[2]
    grid = GRIDS.get(contents.setting("preprocessing.grid", ""))
    shape = None if grid is None else grid.shape
    known = target.startswith(("xai_brain.", "monai."))
    if not known or name not in ARCHITECTURES:
        own = [f"{key} = {value}" for key, value in settings.items() if key not in NOT_LAYERS]
        own = [text for text in own if not text.endswith(" = None")]
        named = f" ({target}{f'; {listed(own)}' if own else ''})" if target else ""
        return f"A 3-D convolutional network{named}"
    title, describe = ARCHITECTURES[name]
    n_outputs = 1 if contents.task.reported_as == "number" else max(len(contents.class_names), 2)
    layers, n_parameters = describe(settings, shape, n_outputs)
    count = f"; {n_parameters:,} parameters" if n_parameters else ""
    weights = "; initialised with given weights" if settings.get("weights") else ""
    return f"The 3-D convolutional network {title} ({layers}{count}{weights})"


def _kan2020(settings: dict[str, Any], shape: Sequence[int] | None, n_classes: int) -> Described:
    channels = settings.get("channels", (32, 64, 128))
    size = list(shape or ())
    for _ in channels:
        size = [(n - 2) // 2 for n in size]
    n = convolutions(channels) + linear(channels[-1] * prod(size), n_classes)
    return (
        f"{len(channels)} blocks of a 3×3×3 convolution with {_filters(channels)}, batch normalisation, ReLU "
        f"and 2×2×2 maximum pooling, then dropout of {settings.get('dropout', 0.5):g} and a linear layer"
    ), n if shape else None


def _sfcn(settings: dict[str, Any], shape: Sequence[int] | None, n_classes: int) -> Described:
    *pooled, last = settings.get("channels", (32, 64, 128, 256, 256, 64))
    n = convolutions(pooled) + pooled[-1] * last + 3 * last + linear(last, n_classes)
    return (
        f"{len(pooled)} blocks of a 3×3×3 convolution with {_filters(pooled)}, batch normalisation, "
        f"2×2×2 maximum pooling and ReLU, a 1×1×1 convolution with {last} filters, batch normalisation and "
        f"ReLU, the mean over space, dropout of {settings.get('dropout', 0.5):g} and a linear layer"
    ), n


def _shallow(settings: dict[str, Any], shape: Sequence[int] | None, n_classes: int) -> Described:
    channels = int(settings.get("channels", 16))
    n = convolutions([channels]) + linear(channels * prod(n // 4 for n in shape or ()), n_classes)
    return (
        f"means of 2×2×2 voxels, a 3×3×3 convolution with {channels} filters, batch normalisation, ReLU, "
        f"means of 2×2×2 voxels, dropout of {settings.get('dropout', 0.5):g} and a linear layer"
    ), n if shape else None


def _resnet(settings: dict[str, Any], shape: Sequence[int] | None, n_classes: int) -> Described:
    layers, planes = settings.get("layers", ()), settings.get("block_inplanes", ())
    blocks = listed(map(str, layers))
    return (
        f"{blocks} {settings.get('block', 'basic')} residual blocks with {_filters(planes)}, in the "
        "implementation of MONAI"
    ), None


def _densenet(settings: dict[str, Any], shape: Sequence[int] | None, n_classes: int) -> Described:
    return "four dense blocks of 6, 12, 24 and 16 layers, in the implementation of MONAI", None


ARCHITECTURES: dict[str, tuple[str, Callable[[dict[str, Any], Sequence[int] | None, int], Described]]] = {
    "Kan2020": ("of Kan 2020", _kan2020),
    "SFCN": ("SFCN of Peng 2021", _sfcn),
    "ShallowNet": ("with one convolution", _shallow),
    "ResNet": ("ResNet of He 2016", _resnet),
    "DenseNet121": ("DenseNet-121 of Huang 2017", _densenet),
}


def convolutions(channels: Sequence[int]) -> int:
    """Parameters of successive 3×3×3 convolutions of one input channel, each with batch normalisation."""
    return sum(
        27 * before * after + 3 * after for before, after in zip([1, *channels], channels, strict=False)
    )


def linear(n_inputs: int, n_outputs: int) -> int:
    """Parameters of a linear layer."""
    return n_inputs * n_outputs + n_outputs


def _filters(channels: Sequence[int]) -> str:
    return f"{listed(map(str, channels))} filters"

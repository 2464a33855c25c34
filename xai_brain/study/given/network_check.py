"""Checks of a network that was trained elsewhere, with the first image, and of its outputs."""

from __future__ import annotations

import re

import numpy as np
import torch

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.network_outputs import (
    AdaptedNetwork,
    OutputKind,
    SegmentationTarget,
    output_kind,
)
from xai_brain.parallel.progress import log_warning
from xai_brain.study.given.images import Preprocess, ReadyImage
from xai_brain.task.selected_output import OutputError

LARGE_INTENSITY = 50.0  # z-scores and intensities that are scaled to [0, 1] are far below
CONSTANT_FACES = 0.9  # share of voxels at the faces of an image with one value


def checked_kind(
    adapted: AdaptedNetwork, first: ReadyImage, outputs: str | None, segmentation: SegmentationTarget | None
) -> OutputKind:
    """What the outputs of the network are, from those for the first image."""
    place = next(iter(adapted.parameters()), torch.zeros(()))
    devices = {str(each.device) for each in adapted.parameters()}
    if len(devices) > 1:
        raise AttributionError(
            f"the network lies on several devices ({', '.join(sorted(devices))}); move it to one"
        )
    for name, module in adapted.network.named_modules():
        if getattr(module, "track_running_stats", None) is False and "BatchNorm" in type(module).__name__:
            raise AttributionError(
                f"the network has batch normalisation without running statistics ({name or 'itself'}): its "
                "output for an image depends on the other images of the batch, and has no map of its own"
            )
    inputs = first.volume[None].to(place.device)
    inputs = inputs.to(place.dtype) if place.is_floating_point() else inputs
    try:
        with torch.no_grad():
            result = adapted(inputs)
    except OutputError as error:
        raise AttributionError(str(error)) from error
    except AttributionError:
        raise
    except torch.OutOfMemoryError as error:
        raise AttributionError(
            f"one volume of shape {tuple(inputs.shape)} does not fit into the memory of {place.device}; use "
            "a coarser grid (preprocess=) or another device"
        ) from error
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        raise AttributionError(
            f"the network cannot process {first.given.path}, an input of shape {tuple(inputs.shape)} "
            f"(N, C, X, Y, Z): {_reason(error)}"
        ) from error
    if segmentation is not None:
        segmentation.region_of(result)
        return output_kind("numbers", result.flatten(1)[:, :1])
    return output_kind(outputs, require_finite(result, [first]))


def _reason(error: Exception) -> str:
    """What is wrong and what to do, in one line."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if sizes := re.search(r"mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)", text):
        given, needed = sizes.groups()
        return (
            f"a linear layer receives {given} values instead of {needed}; the images need the grid it was "
            "trained with (preprocess=)"
        )
    return f"{text}; give preprocess= or as many channels as it was trained with"


def require_finite(outputs: torch.Tensor, batch: list[ReadyImage]) -> torch.Tensor:
    """The outputs, if they are finite for every image of the batch."""
    for one, of_image in zip(batch, outputs, strict=True):
        if not bool(of_image.isfinite().all()):
            raise AttributionError(
                f"the network returns NaN or infinite values for {one.given.path}; check its weights and the "
                "intensities that it expects (preprocess=)"
            )
    return outputs


def warn_of_raw_intensities(first: ReadyImage, preprocess: Preprocess) -> None:
    """Warn of a background that is not 0, and of voxels that are far larger than scaled intensities."""
    warn_of_background(first)
    if preprocess is not None or first.given.prepared is not None:
        return
    values = first.volume.flatten()[:: 1 + first.volume.numel() // 200_000].abs()
    values = values[values != 0]
    if values.numel() and (high := float(np.quantile(values.numpy(), 0.99))) > LARGE_INTENSITY:
        log_warning(
            f"{first.given.path}: intensities of up to about {round(high)} are given to the network as they "
            "are; if it was trained on scaled images, state their preparation with preprocess="
        )


def warn_of_background(first: ReadyImage) -> None:
    """Warn if most voxels at the faces of the input have the same value, which is not 0."""
    volume = first.volume[0]
    faces = torch.cat([volume.select(axis, end).flatten() for axis in range(3) for end in (0, -1)])
    value = float(faces.median())
    if value != 0 and float((faces == value).float().mean()) > CONSTANT_FACES:
        log_warning(
            f"{first.given.path}: the background of the input is {value:.3g} and not 0: methods treat voxels "
            "that are not 0 as tissue, and maps extend over the background; if the network was not trained "
            "so, scale the tissue only"
        )


def output_names(adapted: AdaptedNetwork, kind: OutputKind, first: ReadyImage) -> list[str]:
    """Default names of the outputs: their indices."""
    place = next(iter(adapted.parameters()), torch.zeros(()))
    if adapted.segmentation is not None:
        return [f"label {adapted.segmentation.label}"]
    with torch.no_grad():
        values = kind.predict(adapted(first.volume[None].to(place)))
    return [str(k) for k in range(values.shape[1])]

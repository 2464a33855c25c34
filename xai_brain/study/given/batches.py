"""Batches of given images: their inputs, predictions and maps by one network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.network_outputs import AdaptedNetwork
from xai_brain.attribution.protocol import MethodInfo, method_info
from xai_brain.parallel.progress import track
from xai_brain.parallel.threads import ReadAhead
from xai_brain.study.explanation.batches import attribute_with_details
from xai_brain.study.given.built_methods import GivenMethods
from xai_brain.study.given.images import GivenImage, ReadyImage
from xai_brain.study.given.network_check import require_finite
from xai_brain.study.given.targets import Target, explained_indices


def prepared_batches(
    given: Sequence[GivenImage], prepare: Callable[[GivenImage], ReadyImage], size: int, what: str = ""
) -> Iterator[list[ReadyImage]]:
    """Consecutive volumes of one shape and voxel size, `size` at most; `what` describes the progress."""
    waiting: list[ReadyImage] = []
    shown = track(given, what, "images") if what else given
    with ReadAhead(prepare, given) as ready:
        for number, one in enumerate(shown, start=1):
            image = ready.get(one)
            if waiting and not _on_one_grid(waiting[0], image):
                yield waiting
                waiting = []
            waiting.append(image)
            if len(waiting) == size or number == len(given):
                yield waiting
                waiting = []


def _on_one_grid(first: ReadyImage, second: ReadyImage) -> bool:
    """Whether two volumes can be in one batch."""
    return first.volume.shape == second.volume.shape and first.voxel_size_mm == second.voxel_size_mm


def inputs_of(network: AdaptedNetwork, batch: Sequence[ReadyImage]) -> torch.Tensor:
    """Volumes (N, C, X, Y, Z) on the device and in the precision of a network."""
    place = next(iter(network.parameters()), torch.zeros(()))
    inputs = torch.stack([one.volume for one in batch]).to(place.device)
    return inputs.to(place.dtype) if place.is_floating_point() else inputs


@dataclass(frozen=True, eq=False)
class BatchMaps:
    """Maps of a batch by one method: `maps` (N, C, X, Y, Z), details for each image, and the method."""

    maps: torch.Tensor
    details: list[dict[str, Any]]
    info: MethodInfo
    output: str


@dataclass(frozen=True, eq=False)
class PredictedBatch:
    """Images, their predictions (N, n_outputs) by one network, and the index of the explained output of each.

    `first` is the position of the first image among all, the seed of methods that draw random numbers.
    """

    images: list[ReadyImage]
    inputs: torch.Tensor
    values: torch.Tensor
    indices: np.ndarray
    first: int

    @classmethod
    def of(
        cls, images: list[ReadyImage], built: GivenMethods, target: Target, names: list[str], first: int
    ) -> PredictedBatch:
        """Predict the images; the region of a segmentation has been set."""
        inputs = inputs_of(built.adapted, images)
        with torch.no_grad():
            outputs = require_finite(built.adapted(inputs), images)
            values = built.kind.predict(outputs).float().cpu()
        ids, rows = [one.given.participant_id for one in images], slice(first, first + len(images))
        indices = explained_indices(target, values.numpy(), names, built.kind, ids, rows)
        return cls(images, inputs, values, indices, first)

    def maps(self, built: GivenMethods, label: str) -> BatchMaps:
        """Explain the images by one method."""
        method, output = built.make(label, self.images[0].voxel_size_mm)
        targets = torch.from_numpy(self.indices).to(self.inputs.device)
        torch.manual_seed(self.first)
        try:
            maps, details = attribute_with_details(method, self.inputs.detach().requires_grad_(), targets)
        except AttributionError as error:
            raise AttributionError(f"{label}: {error}") from error
        if maps.shape != self.inputs.shape:
            raise AttributionError(
                f"{label}: gave shape {tuple(maps.shape)} for inputs {tuple(self.inputs.shape)}"
            )
        finite = maps.isfinite().flatten(1).all(1).tolist()
        if not all(finite):
            broken = self.images[finite.index(False)].given.participant_id
            raise AttributionError(f"{label}: the map of {broken} contains NaN or infinite values")
        return BatchMaps(maps, details, method_info(method), output)

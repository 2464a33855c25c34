"""Reference of thresholds for the maps of `xai_brain.explain`: the network with randomised parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from xai_brain.attribution.model_state import AttributionError, preserved
from xai_brain.attribution.network_outputs import AdaptedNetwork, SegmentationTarget
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.runs.directory import RunDirectory
from xai_brain.runs.threshold_statement import RANDOMIZED
from xai_brain.study.given.batches import PredictedBatch, inputs_of, prepared_batches
from xai_brain.study.given.built_methods import GivenMethods, network_hash
from xai_brain.study.given.folder import map_of_channels
from xai_brain.study.given.images import GivenImage, ReadyImage
from xai_brain.study.given.targets import Target
from xai_brain.study.run_images import brain_of
from xai_brain.study.thresholds.random_parameters import check_parameters, randomize_parameters
from xai_brain.study.thresholds.reference_networks import NullMap, cost_of_randomized, refuse_blocks
from xai_brain.study.thresholds.statistic import voxel_mm3


@dataclass(frozen=True, eq=False)
class Explanation:
    """What `xai_brain.explain` has explained, to repeat it with other parameters of the network.

    `seconds` is the duration for one image.
    """

    built: GivenMethods
    images: list[GivenImage]
    prepare: Callable[[GivenImage], ReadyImage]
    target: Target
    names: list[str]
    batch_size: int
    seconds: float


@dataclass
class GivenNetworks:
    """Copies of a given network with randomised parameters, on the given images; see `NullNetworks`.

    Each copy explains what the network explains: the given output, or the class that the copy itself
    predicts. The region of a segmentation is that of the given network.
    """

    explanation: Explanation
    config: Config
    run: RunDirectory
    reference = RANDOMIZED
    unit = "randomised networks"

    def check(self) -> None:
        refuse_blocks(self.config)
        built = self.explanation.built
        if network_hash(built.adapted) != built.network_hash:
            raise ConfigError(
                "threshold: the parameters of the network have changed since its maps were made; explain the "
                "images again"
            )
        check_parameters(built.adapted.network)

    def cost(self, n: int) -> str:
        n_images = min(self.config.evaluation.threshold.n_participants, len(self.explanation.images))
        return cost_of_randomized(n, n_images, self.explanation.seconds)

    def maps(self, labels: Sequence[str], number: int) -> Iterator[NullMap]:
        given = self.explanation
        chosen = self._positions(number)
        images = [given.images[k] for k in chosen]
        each_has_one = not isinstance(given.target, int | str | SegmentationTarget)
        target = [given.target[k] for k in chosen] if each_has_one else given.target  # type: ignore[index]
        size = -(-len(images) // -(-len(images) // given.batch_size))  # batches of nearly equal size
        try:
            network = copy.deepcopy(given.built.adapted)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise AttributionError(f"threshold: the network cannot be copied ({reason})") from error
        with preserved(network), preserved(given.built.adapted):
            batches = prepared_batches(images, given.prepare, size)
            volumes = (inputs_of(network, batch) for batch in batches)
            randomize_parameters(network.network, volumes, number)
            built, first = given.built.on(network), 0
            for batch in prepared_batches(images, given.prepare, size):
                network.region = self._region(batch)
                try:
                    predicted = PredictedBatch.of(batch, built, target, given.names, first)
                    yield from self._maps(predicted, built, labels)
                except AttributionError as error:
                    raise AttributionError(f"threshold, randomised network {number}: {error}") from error
                first += len(batch)

    def _positions(self, number: int) -> np.ndarray:
        """Of the images of random participants."""
        ids = np.array([image.participant_id for image in self.explanation.images])
        n = self.config.evaluation.threshold.n_participants
        drawn = np.random.default_rng(number).permutation(np.unique(ids))[:n]
        return np.flatnonzero(np.isin(ids, drawn))

    def _region(self, batch: list[ReadyImage]) -> torch.Tensor | None:
        network: AdaptedNetwork = self.explanation.built.adapted
        if network.segmentation is None:
            return None
        network.region = None
        with torch.no_grad():
            return network.segmentation.region_of(network(inputs_of(network, batch)))

    def _maps(self, batch: PredictedBatch, built: GivenMethods, labels: Sequence[str]) -> Iterator[NullMap]:
        names = [(one.given.participant_id, one.given.session_id) for one in batch.images]
        brains = [brain_of(self.run, *name) for name in names]
        for label in labels:
            found = batch.maps(built, label)
            for one, name, brain, maps in zip(batch.images, names, brains, found.maps, strict=True):
                values, _ = map_of_channels(maps, found.info.per_channel)
                on_own_grid = one.to_own_grid(values.numpy()).astype(np.float32)
                row = dict(zip(("participant_id", "session_id"), name, strict=True))
                yield NullMap(label, row, on_own_grid, brain, voxel_mm3(one.shown[0].affine))

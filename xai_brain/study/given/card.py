"""Report card of a network that was trained elsewhere: metrics without a true location, and a known one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError, preserved
from xai_brain.attribution.network_outputs import AdaptedNetwork
from xai_brain.attribution.outputs import ClassScore
from xai_brain.attribution.protocol import method_info
from xai_brain.attribution.reference import Reference
from xai_brain.config.evaluation import CardConfig
from xai_brain.config.setting import ConfigError
from xai_brain.metrics.maps import maps_of
from xai_brain.metrics.report_card import report_card
from xai_brain.metrics.table import METRICS
from xai_brain.parallel.progress import log, track
from xai_brain.reporting.wording import fixed
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.given.built_methods import GivenMethods
from xai_brain.study.given.images import Preprocess, ReadyImage, given_images, preparation
from xai_brain.study.given.known_component import RADIUS_MM, STRENGTHS, component_scores
from xai_brain.study.given.network_check import checked_kind, output_names, warn_of_raw_intensities
from xai_brain.study.given.reference import make_reference
from xai_brain.study.given.spaces import space_of
from xai_brain.study.given.targets import Target, explained_indices
from xai_brain.study.methods import Method, method_settings
from xai_brain.study.training.networks import Network

WITHOUT_TRUTH = (
    *("deletion", "insertion", "infidelity", "completeness", "parameter_randomization"),
    *("noise_stability", "max_sensitivity", "seconds", "peak_mb"),
)


@dataclass(frozen=True)
class NetworkCard:
    """Scores of methods on a network that was trained elsewhere; made by `network_card`.

    Parameters
    ----------
    table : pandas.DataFrame
        Means over images: method, kind, metric, title, value, ci_low, ci_high, chance, n_subjects.
    component : pandas.DataFrame
        Relevance rank accuracy for a component with a known location, see
        `xai_brain.study.given.known_component.component_scores`.

    Examples
    --------
    >>> card = network_card(network, images, ["GradCAM"], center_mm=[34, -20, -10])  # doctest: +SKIP
    >>> card.component  # doctest: +SKIP
    """

    table: pd.DataFrame
    component: pd.DataFrame

    def __repr__(self) -> str:
        return f"NetworkCard({', '.join(self.component['method'].unique())})"

    def _repr_html_(self) -> str:
        tables = (self.component, self.table)
        return "".join(table.to_html(index=False, float_format=fixed) for table in tables)


def network_card(
    network: nn.Module,
    images: Any,
    methods: Sequence[Method],
    target: Target = "predicted",
    *,
    center_mm: Sequence[float],
    radius_mm: float = RADIUS_MM,
    strengths: Sequence[float] = STRENGTHS,
    metrics: Sequence[str] = WITHOUT_TRUTH,
    outputs: str | None = None,
    output_key: str | int | None = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess = None,
    reference: Any = None,
    fill: str | None = None,
    affine: np.ndarray | None = None,
    space: str | None = None,
    batch_size: int = 8,
    card_settings: dict[str, Any] | None = None,
) -> NetworkCard:
    """Examine which methods can be believed on a network whose true location is not known.

    Two parts: metrics that need no true location, and a component with a known location that is added to the
    output of the network (`xai_brain.study.given.known_component`). A method that finds the component finds
    such local features in parallel to this network; whether it finds what the network itself has learned is
    not shown. The component is added to the last output.

    Parameters
    ----------
    network, images, methods, target, outputs, output_key, class_names, preprocess, reference, fill, affine, \
space, batch_size
        As in `xai_brain.explain`; the prepared volumes of all images must be on one grid.
    center_mm : sequence of 3 float
        Centre of the sphere of the component.
    radius_mm : float, default 22
    strengths : sequence of float, default (0, 2, 8)
        Of the component, in standard deviations of the output; 0 shows the level without a component.
    metrics : sequence of str
        Of `xai_brain.metrics.table.METRICS` that need no true location.
    card_settings : dict, optional
        Fields of `xai_brain.config.evaluation.CardConfig`, such as ``{"n_steps": 10}``.

    Returns
    -------
    NetworkCard

    Raises
    ------
    ConfigError, AttributionError

    Examples
    --------
    >>> network_card(network, images, ["GradCAM"], center_mm=[34, -20, -10])  # doctest: +SKIP
    """
    if unknown := [name for name in metrics if name not in WITHOUT_TRUTH]:
        raise ConfigError(f"metrics: {unknown[0]!r} is none of {', '.join(WITHOUT_TRUTH)}")
    settings, given = method_settings(methods), given_images(images, affine)
    prepare = preparation(preprocess, space_of(given, space), None)
    adapted = AdaptedNetwork(network, output_key)
    with preserved(adapted), tempfile.TemporaryDirectory() as folder:
        ready = [prepare(one) for one in track(given, "prepare images", "images")]
        _require_one_grid(ready)
        warn_of_raw_intensities(ready[0], preprocess)
        kind = checked_kind(adapted, ready[0], outputs, None)
        names = list(class_names or output_names(adapted, kind, ready[0]))
        of_training = make_reference(reference, prepare, names)
        place = next(iter(adapted.parameters()), torch.zeros(()))
        inputs = torch.stack([one.volume for one in ready]).to(place)
        built = GivenMethods(settings, adapted, kind, None, of_training, fill)
        context = GivenContext.of(built, ready, inputs, target, names, batch_size, Path(folder))
        context = replace(context, card=CardConfig(**{"removal": "blur", **(card_settings or {})}))
        rows = [
            row
            for label in track(list(settings), "metrics", "methods")
            for row in _rows(context, label, metrics)
        ]
        component = component_scores(
            adapted, kind, inputs, ready[0].affine, settings, target=len(names) - 1, center_mm=center_mm,
            radius_mm=radius_mm, strengths=strengths, batch_size=batch_size,
        )  # fmt: skip
    table = report_card(pd.DataFrame(rows)) if rows else pd.DataFrame()
    return NetworkCard(table, component)


@dataclass
class GivenContext:
    """Inputs of the metrics of a network that was trained elsewhere; see `EvaluationContext`."""

    built: GivenMethods
    card: CardConfig
    ready: list[ReadyImage]
    inputs: torch.Tensor
    targets: torch.Tensor
    batch_size: int
    run: RunDirectory  # of tables that are not kept
    network: Network
    shared: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        built: GivenMethods,
        ready: list[ReadyImage],
        inputs: torch.Tensor,
        target: Target,
        names: list[str],
        batch_size: int,
        folder: Path,
    ) -> GivenContext:
        """The context of all images."""
        with torch.no_grad():
            outputs = torch.cat([built.adapted(part) for part in inputs.split(batch_size)])
        values = built.kind.predict(outputs).float().cpu().numpy()
        ids = [one.given.participant_id for one in ready]
        indices = explained_indices(target, values, names, built.kind, ids, slice(0, len(ids)))
        network = Network(folder / "network", 0, 0, built.network_hash)
        targets = torch.from_numpy(indices).to(inputs.device)
        return cls(built, CardConfig(), ready, inputs, targets, batch_size, RunDirectory(folder), network)

    def head(self, n: int) -> GivenContext:
        """The same context for the first n images."""
        return replace(self, ready=self.ready[:n], inputs=self.inputs[:n], targets=self.targets[:n])

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Result of ``make()``, computed once for this key and number of images."""
        key = key, len(self.ready)
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]

    @property
    def rows(self) -> pd.DataFrame:
        """Table of the images: participant_id."""
        return pd.DataFrame({"participant_id": [one.given.participant_id for one in self.ready]})

    @property
    def classifier(self) -> AdaptedNetwork:
        """The network with its outputs adapted."""
        return self.built.adapted

    @property
    def reference(self) -> Reference:
        """The reference, or without one the mean of the images and their brain."""
        if self.built.reference is not None:
            return self.built.reference
        volumes = self.inputs.cpu()
        return Reference(
            volumes.mean(0, keepdim=True), volumes, torch.zeros(len(volumes), dtype=torch.long),
            (volumes != 0).flatten(0, 1).any(0), self.ready[0].voxel_size_mm,
        )  # fmt: skip

    def scorer(self, output: str) -> ClassScore:
        """Function that gives the explained output of the network."""
        return ClassScore(self.built.adapted, output, self.built.kind)

    def method(
        self, label: str, model: AdaptedNetwork | None = None, reference: Reference | None = None
    ) -> Any:
        """Attribution method of this label, on the network or on `model`."""
        built = self.built if model is None else self.built.on(model)
        return built.make(label, self.ready[0].voxel_size_mm)[0]

    def output(self, label: str) -> str:
        """Name of the output that a method explains."""
        return self.built.make(label, self.ready[0].voxel_size_mm)[1]

    def saved(self, label: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps (N, C, X, Y, Z), and the outputs that they explain."""
        maps = self.cached(
            ("maps", label), lambda: maps_of(self.method(label), self.inputs, self.targets, self.batch_size)
        )
        return maps, self.targets

    def brains(self) -> list[np.ndarray]:
        """Voxels that are not 0, for each image."""
        return list((self.inputs != 0).any(1).cpu().numpy())

    def common_brain(self) -> np.ndarray:
        """Voxels that are not 0 in each of the images."""
        return np.asarray(np.all(self.brains(), axis=0))


def _rows(context: GivenContext, label: str, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the metrics of a method; metrics that do not apply are named in the log."""
    units: dict[str, list[str]] = {}
    for name in metrics:
        units.setdefault(METRICS[name].function, []).append(name)
    kind = "baseline" if method_info(context.method(label)).is_baseline else "method"
    rows = []
    for names in units.values():
        metric = METRICS[names[0]]
        part = context.head(getattr(context.card, metric.participants))
        try:
            scores = metric.load_function()(part, label)
        except (AttributionError, ConfigError, ValueError) as error:
            log(f"network card: {label}: no {', '.join(names)} ({error})")
            continue
        for name in names:
            values, chance = (
                np.broadcast_to(np.asarray(each, float), len(part.ready)) for each in scores[name]
            )
            ids = part.rows["participant_id"]
            rows += [
                {"method": label, "kind": kind, "metric": name, "participant_id": i, "value": v, "chance": c}
                for i, v, c in zip(ids, values, chance, strict=True)
            ]
    return rows


def _require_one_grid(ready: list[ReadyImage]) -> None:
    shapes = {(tuple(one.volume.shape), one.voxel_size_mm) for one in ready}
    if len(shapes) > 1 or not all(np.allclose(one.affine, ready[0].affine, atol=1e-3) for one in ready):
        raise ConfigError(
            "images: the metrics of a card need volumes on one grid; give preprocess= or images in MNI152"
        )

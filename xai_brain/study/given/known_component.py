"""A component with a known location, added to the output of any network.

Where a network looks is not known. What a component that is added to its output depends on is known: a method
that does not find a strong component at its location cannot be expected to find what the network has learned.
The reverse does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from nibabel.affines import apply_affine
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.network_outputs import AdaptedNetwork, OutputKind
from xai_brain.attribution.protocol import method_info, takes
from xai_brain.attribution.reference import Reference
from xai_brain.metrics.localization import localization
from xai_brain.metrics.maps import maps_of
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.study.given.built_methods import GivenMethods

RADIUS_MM = 22.0
STRENGTHS = (0.0, 2.0, 8.0)  # standard deviations of the output
OF_ATTENTION = ("AttentionRollout", "AttentionRelevance")
COLUMNS = ["method", "strength", "fill", "rra", "ci_low", "ci_high", "chance", "n", "reason"]


class KnownComponent(nn.Module):
    """A network to whose last output a component is added.

    The component is a fixed high-pass filter (a voxel minus the mean of the 27 voxels around it), a ReLU, and
    the mean over a sphere.

    Parameters
    ----------
    network : torch.nn.Module
        Returns (N, n_outputs).
    sphere : bool Tensor of shape (X, Y, Z)
    """

    kernel: torch.Tensor
    weight: torch.Tensor
    mean: torch.Tensor
    factor: torch.Tensor

    def __init__(self, network: nn.Module, sphere: torch.Tensor):
        super().__init__()
        self.network = network
        kernel = torch.full((1, 1, 3, 3, 3), -1 / 27)
        kernel[0, 0, 1, 1, 1] += 1
        self.register_buffer("kernel", kernel)
        self.register_buffer("weight", sphere.float() / sphere.sum())
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("factor", torch.zeros(()))

    def component(self, volumes: torch.Tensor) -> torch.Tensor:
        """The component before scaling, (N,), of volumes (N, C, X, Y, Z)."""
        n, c = volumes.shape[:2]
        filtered = nn.functional.conv3d(volumes.reshape(n * c, 1, *volumes.shape[2:]), self.kernel, padding=1)
        return (filtered.relu().view_as(volumes) * self.weight).sum((1, 2, 3, 4)) / c

    @torch.no_grad()
    def scale(self, volumes: torch.Tensor, strength: float) -> None:
        """Give the component, over these volumes, mean 0 and `strength` standard deviations of the output."""
        outputs = torch.cat([self.network(part)[:, -1] for part in volumes.split(1)])
        values = torch.cat([self.component(part) for part in volumes.split(1)])
        self.mean.copy_(values.mean())
        self.factor.copy_(strength * outputs.std() / values.std().clamp_min(1e-12))

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        outputs = self.network(volumes)
        added = self.factor * (self.component(volumes) - self.mean)
        one_hot = torch.zeros(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
        one_hot[-1] = 1
        return outputs + added[:, None] * one_hot


def component_scores(
    network: nn.Module,
    kind: OutputKind,
    volumes: torch.Tensor,
    affine: np.ndarray,
    settings: Mapping[str, Mapping[str, Any]],
    *,
    target: int,
    center_mm: Sequence[float],
    radius_mm: float = RADIUS_MM,
    strengths: Sequence[float] = STRENGTHS,
    batch_size: int = 8,
) -> pd.DataFrame:
    """How well methods find a component at a known location.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; returns (N, n_outputs).
    kind : OutputKind
    volumes : Tensor of shape (N, C, X, Y, Z)
        0 outside of the brain, on one grid.
    affine : ndarray of shape (4, 4)
    settings : mapping of label to settings of methods
    target : int
        Explained output: that of the last output of the network.
    center_mm, radius_mm
        Sphere of the component.
    strengths : sequence of float, default (0, 2, 8)
        Standard deviation of the component, in standard deviations of the output.
    batch_size : int, default 8

    Returns
    -------
    pandas.DataFrame
        The columns of `COLUMNS`: relevance rank accuracy with its interval over images and its chance level.
        All methods explain the logit (or number). Methods that replace tissue have a row with the blurred
        image, and one with the mean of the third of the images whose component is smallest; this one excludes
        these images, in which there is no component to remove. `reason` states why a method is not
        applicable.

    Raises
    ------
    AttributionError
        The sphere lies outside of the brain, or the network returns probabilities.
    """
    if kind.outputs[0] == "probability":
        raise AttributionError(
            "the component is added to logits or numbers, and the network returns probabilities; give the "
            "network without its softmax"
        )
    indices = np.moveaxis(np.indices(tuple(volumes.shape[2:])), 0, -1)
    sphere = np.linalg.norm(apply_affine(affine, indices) - np.asarray(center_mm), axis=-1) <= radius_mm
    brains = (volumes != 0).any(1).cpu().numpy()
    if not all((sphere & brain).any() for brain in brains):
        raise AttributionError(
            f"center_mm={list(center_mm)}: the sphere lies outside of the brain of an image"
        )
    model = KnownComponent(network, torch.from_numpy(sphere)).to(volumes.device).eval()
    model.scale(volumes, 1.0)
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(0))
    of_small = _reference(model, volumes, spacing, target, affine)
    targets = torch.full((len(volumes),), target, device=volumes.device)
    chances = np.array([(sphere & brain).sum() / brain.sum() for brain in brains])
    rows = []
    for strength in strengths:
        model.scale(volumes, strength)
        for label, given in settings.items():
            for fill, reference in (("blur", None), ("images with a small component", of_small)):
                if reference is not None and not _has_fill(given):
                    continue
                about = {"method": label, "strength": strength, "fill": fill if _has_fill(given) else ""}
                kept = np.arange(len(volumes)) if reference is None else _with_component(reference, target)
                reason, scores = _scores(
                    (label, given),
                    model,
                    kind,
                    reference,
                    volumes[kept],
                    targets[kept],
                    spacing,
                    sphere,
                    brains[kept],
                    batch_size,
                )
                mean, low, high = bootstrap_mean(np.array(scores)) if scores else (np.nan,) * 3
                chance = float(chances[kept].mean())
                rows.append({**about, "rra": mean, "ci_low": low, "ci_high": high, "chance": chance,
                             "n": len(scores), "reason": reason})  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _with_component(reference: Reference, target: int) -> np.ndarray:
    """Numbers of the images whose component is not small."""
    return np.flatnonzero((reference.targets == target).numpy())


def _has_fill(given: Mapping[str, Any]) -> bool:
    return takes(instantiate(given), "fill")


def _scores(
    labelled: tuple[str, Mapping[str, Any]],
    model: KnownComponent,
    kind: OutputKind,
    reference: Reference | None,
    volumes: torch.Tensor,
    targets: torch.Tensor,
    spacing: np.ndarray,
    sphere: np.ndarray,
    brains: np.ndarray,
    batch_size: int,
) -> tuple[str, list[float]]:
    """Why the method is not applicable, or its relevance rank accuracy for every image."""
    label, given = labelled
    if takes(instantiate(given), "layer"):
        return "not applicable: explains one layer of the network, beside which the component runs", []
    if method_info(instantiate(given)).name in OF_ATTENTION:
        return "not applicable: explains the attention of the network, beside which the component runs", []
    fill = "blur" if reference is None else None
    own = {**given, **({"fill": "counterfactual_mean"} if reference is not None and _has_fill(given) else {})}
    try:
        built = GivenMethods({label: own}, AdaptedNetwork(model), kind, kind.outputs[0], reference, fill)
        x, y, z = (float(mm) for mm in spacing)
        method, _ = built.make(label, (x, y, z))
        maps = maps_of(method, volumes, targets, batch_size)
    except (AttributionError, ValueError) as error:
        return f"not applicable: {error}", []
    found = [
        localization(values.sum(0).numpy(), sphere & brain, brain)["rra"]
        for values, brain in zip(maps, brains, strict=True)
    ]
    return "", [float(value) for value in found]


def _reference(
    model: KnownComponent, volumes: torch.Tensor, spacing: np.ndarray, target: int, affine: np.ndarray
) -> Reference:
    """Images with a small component (lowest third) as one class, the others as the class of the target."""
    with torch.no_grad():
        values = torch.cat([model.component(part) for part in volumes.split(1)])
    small = values <= values.quantile(1 / 3)
    other = 1 if target == 0 else 0
    labels = torch.where(small, other, target)
    n_classes = max(target, other) + 1
    means = torch.stack([
        volumes[labels == k].mean(0) if bool((labels == k).any()) else volumes[small].mean(0)
        for k in range(n_classes)
    ])  # fmt: skip
    x, y, z = (float(mm) for mm in spacing)
    return Reference(
        class_means=means.cpu(), volumes=volumes.cpu(), targets=labels.cpu(),
        brain_mask=(volumes != 0).flatten(0, 1).any(0).cpu(), voxel_size_mm=(x, y, z),
        affine=torch.from_numpy(np.asarray(affine, float)),
    )  # fmt: skip

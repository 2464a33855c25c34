"""Deletion and insertion: class probability without, and with only, the highest voxels of a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.replacement import ReplacementVolumes
from xai_brain.attribution.reference import Reference
from xai_brain.metrics.localization import ranked

BASELINES = ("zero", "blur", "training_mean")


def removal_baselines(
    name: str,
    inputs: torch.Tensor,
    reference: Reference | None = None,
    blur_sigma_mm: float = 12.0,
    voxel_size_mm: Sequence[float] | None = None,
) -> torch.Tensor:
    """Volumes that replace removed voxels, (N, 1, X, Y, Z).

    Parameters
    ----------
    name : {"zero", "blur", "training_mean"}
        zero: 0, the mean of the brain after z-scoring. blur: the image after Gaussian smoothing.
        training_mean: the mean of the training participants.
    inputs : Tensor of shape (N, 1, X, Y, Z)
    reference : Reference, optional
        Required for ``training_mean``.
    blur_sigma_mm : float, default 12.0
    voxel_size_mm : sequence of 3 float, optional
        For ``blur``; default: that of the reference.

    Raises
    ------
    ValueError
        Unknown name, or the reference or voxel size that it needs is missing.
    """
    if name not in BASELINES:
        raise ValueError(f"baseline={name!r}: one of {', '.join(BASELINES)}")
    fills = ReplacementVolumes(name, reference, blur_sigma_mm, voxel_size_mm)
    no_target = torch.zeros(len(inputs), dtype=torch.long)  # none of the three depends on it
    return fills.make(inputs.detach(), no_target, torch.ones_like(inputs[:1]), torch.Generator())[0]


def removal_steps(
    attribution: np.ndarray, brain_mask: np.ndarray, n_steps: int, random_state: int = 0
) -> np.ndarray:
    """Step at which each voxel is removed: highest first, in equal parts of the brain.

    Parameters
    ----------
    attribution : ndarray of shape (X, Y, Z)
        Voxels are ranked by absolute value; equal values are in random order.
    brain_mask : bool ndarray of shape (X, Y, Z)
    n_steps : int
    random_state : int, default 0

    Returns
    -------
    int ndarray of shape (X, Y, Z)
        1 to n_steps in the brain; 0 outside.
    """
    order = ranked(np.abs(attribution[brain_mask]), random_state)
    step_of = np.empty(len(order), np.int64)
    step_of[order] = 1 + np.arange(len(order)) * n_steps // len(order)
    steps = np.zeros(brain_mask.shape, np.int64)
    steps[brain_mask] = step_of
    return steps


def deletion_insertion(
    model: nn.Module,
    inputs: torch.Tensor,
    baselines: torch.Tensor,
    attributions: torch.Tensor,
    target: torch.Tensor,
    brain_mask: np.ndarray,
    n_steps: int = 20,
    random_state: int = 0,
) -> dict[str, np.ndarray]:
    """Scores while voxels are replaced by a baseline (deletion) or restored (insertion) in order of a map.

    Parameters
    ----------
    model : torch.nn.Module
        Returns probabilities (N, n_classes), see `ClassScore`.
    inputs, baselines, attributions : Tensor of shape (N, 1, X, Y, Z)
    target : Tensor of shape (N,)
    brain_mask : bool ndarray of shape (X, Y, Z)
    n_steps : int, default 20
    random_state : int, default 0
        Order of equal values.

    Returns
    -------
    dict
        ``deletion`` and ``insertion``: ndarray of shape (N, n_steps + 1), the score before the first
        and after each step. Voxels outside the brain are not changed.

    References
    ----------
    Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018.
    """
    curves: dict[str, list[np.ndarray]] = {"deletion": [], "insertion": []}
    engine = BatchedScorer(model)
    # the whole image and the whole baseline end both curves: 2 n_steps passes serve 2 (n_steps + 1) points
    volumes = torch.empty(2 * n_steps, *inputs.shape[1:], device=inputs.device, dtype=inputs.dtype)
    deleted, inserted = volumes[: n_steps + 1], volumes[n_steps + 1 :]
    thresholds = torch.arange(n_steps + 1, device=inputs.device).view(-1, 1, 1, 1, 1)
    with engine.prepared(inputs):
        for image, baseline, attribution, class_index in zip(
            inputs.detach(), baselines, attributions, target, strict=True
        ):
            steps = removal_steps(attribution[0].detach().cpu().numpy(), brain_mask, n_steps, random_state)
            step_of = torch.from_numpy(steps).to(inputs.device)[None, None]
            gone = (step_of <= thresholds) & (step_of > 0)  # (n_steps + 1, 1, X, Y, Z)
            torch.where(gone, baseline, image, out=deleted)
            torch.where((step_of > thresholds)[1:-1], baseline, image, out=inserted)
            scores = engine.scores(volumes, class_index.expand(2 * n_steps)).cpu().numpy()
            whole, nothing = scores[[0]], scores[[n_steps]]
            curves["deletion"].append(scores[: n_steps + 1])
            curves["insertion"].append(np.concatenate([nothing, scores[n_steps + 1 :], whole]))
    return {name: np.stack(rows) for name, rows in curves.items()}


def random_order(
    model: nn.Module,
    inputs: torch.Tensor,
    baselines: torch.Tensor,
    target: torch.Tensor,
    brain_mask: np.ndarray,
    n_steps: int = 20,
    random_state: int = 0,
) -> dict[str, np.ndarray]:
    """Chance level of `deletion_insertion`: curves for voxels in random order.

    Every participant has a different order. Parameters and result are those of `deletion_insertion`.
    """
    rng = np.random.default_rng(random_state)
    orders = torch.from_numpy(rng.random(tuple(inputs.shape), np.float32))
    return deletion_insertion(model, inputs, baselines, orders, target, brain_mask, n_steps, random_state)


def area_under(curves: np.ndarray) -> np.ndarray:
    """Area under curves over the share of voxels from 0 to 1, (N,), by trapezoids."""
    return np.trapezoid(curves, dx=1 / (curves.shape[1] - 1), axis=1)

"""Whether a network loses its class with the voxels that a map ranks first, and finds it with them alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from xai_brain.attribution.mask_engine import MaskEngine
from xai_brain.evaluation.localization import ranked


def removal_steps(
    attribution: np.ndarray, brain_mask: np.ndarray, n_steps: int, random_state: int = 0
) -> np.ndarray:
    """At which step each voxel is removed, highest first, in equal parts of the brain.

    Parameters
    ----------
    attribution : ndarray of shape (X, Y, Z)
        Its absolute value ranks; equal values are in random order.
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
    """Score while voxels go to (deletion) or come from (insertion) a baseline, in the order of a map.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes); probabilities, see `ClassScore`.
    inputs, baselines, attributions : Tensor of shape (N, 1, X, Y, Z)
    target : Tensor of shape (N,)
    brain_mask : bool ndarray of shape (X, Y, Z)
    n_steps : int, default 20
    random_state : int, default 0
        Order of equal values.

    Returns
    -------
    dict
        ``deletion`` and ``insertion``: ndarray of shape (N, n_steps + 1), the score before any and after each
        step. Outside of the brain nothing changes.

    References
    ----------
    Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018.
    """
    engine = MaskEngine(model)
    curves: dict[str, list[np.ndarray]] = {"deletion": [], "insertion": []}
    thresholds = torch.arange(n_steps + 1, device=inputs.device).view(-1, 1, 1, 1, 1)
    with engine.prepared(inputs):
        for image, baseline, attribution, class_index in zip(
            inputs, baselines, attributions, target, strict=True
        ):
            steps = removal_steps(attribution[0].cpu().numpy(), brain_mask, n_steps, random_state)
            step_of = torch.from_numpy(steps).to(inputs.device)[None, None]
            gone = (step_of <= thresholds) & (step_of > 0)  # (n_steps + 1, 1, X, Y, Z)
            in_brain = step_of > 0
            targets = class_index.expand(n_steps + 1)
            deleted = torch.where(gone, baseline, image)
            inserted = torch.where(in_brain & ~gone, baseline, image)
            curves["deletion"].append(engine.scores(deleted, targets).cpu().numpy())
            curves["insertion"].append(engine.scores(inserted, targets).cpu().numpy())
    return {name: np.stack(rows) for name, rows in curves.items()}


def area_under(curves: np.ndarray) -> np.ndarray:
    """Area under curves over the share of voxels from 0 to 1, (N,), by trapezoids."""
    return np.trapezoid(curves, dx=1 / (curves.shape[1] - 1), axis=1)

"""Infidelity: how well a map predicts the change of the score when a block of the brain is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer

SCALES = ("relative", "normalized", "raw")
PIECE = 16  # volumes in memory at once


@dataclass(frozen=True)
class BlockChanges:
    """Changes of the score when blocks are removed; the same for every method.

    Parameters
    ----------
    blocks : bool ndarray of shape (n_blocks, n_brain)
        Voxels of the brain in each block, the same for all participants.
    changes : ndarray of shape (N, n_blocks)
        Score of the whole image minus that without the block.
    removed : ndarray of shape (N, C, n_brain)
        Image minus baseline.
    brain_mask : bool ndarray of shape (X, Y, Z)
    """

    blocks: np.ndarray
    changes: np.ndarray
    removed: np.ndarray
    brain_mask: np.ndarray


def random_blocks(
    brain_mask: np.ndarray,
    voxel_size_mm: Sequence[float],
    n_blocks: int = 64,
    sides_mm: Sequence[float] = (10.0, 20.0, 40.0),
    random_state: int = 0,
) -> np.ndarray:
    """Cubes around random voxels of the brain.

    Parameters
    ----------
    brain_mask : bool ndarray of shape (X, Y, Z)
    voxel_size_mm : sequence of 3 float
    n_blocks : int, default 64
    sides_mm : sequence of float, default (10, 20, 40)
        Side lengths, used cyclically and rounded to whole voxels (at least one).
    random_state : int, default 0

    Returns
    -------
    bool ndarray of shape (n_blocks, n_brain)
    """
    places = np.argwhere(brain_mask)  # (n_brain, 3)
    centers = places[np.random.default_rng(random_state).integers(0, len(places), n_blocks)]
    blocks = np.empty((n_blocks, len(places)), bool)
    for i, center in enumerate(centers):
        side = np.maximum(np.rint(sides_mm[i % len(sides_mm)] / np.asarray(voxel_size_mm)), 1)
        low = center - side // 2
        blocks[i] = ((places >= low) & (places < low + side)).all(1)
    return blocks


def block_changes(
    model: nn.Module,
    inputs: torch.Tensor,
    baselines: torch.Tensor,
    target: torch.Tensor,
    brain_mask: np.ndarray,
    blocks: np.ndarray,
) -> BlockChanges:
    """Score all participants without each block, in batches.

    Parameters
    ----------
    model : torch.nn.Module
        Returns the explained output (N, n_classes), see `ClassScore`.
    inputs, baselines : Tensor of shape (N, C, X, Y, Z)
    target : Tensor of shape (N,)
    brain_mask : bool ndarray of shape (X, Y, Z)
    blocks : bool ndarray of shape (n_blocks, n_brain)
        For example from `random_blocks`.
    """
    inputs, brain = inputs.detach(), torch.from_numpy(brain_mask)
    masks = torch.zeros(len(blocks), 1, *brain_mask.shape, dtype=torch.bool)
    masks[:, 0, brain] = torch.from_numpy(blocks)
    engine, changes = BatchedScorer(model), []
    with engine.prepared(inputs):
        whole = engine.scores(inputs, target)
        for image, baseline, class_index in zip(inputs, baselines, target, strict=True):
            scores = [
                engine.scores(
                    torch.where(part.to(inputs.device), baseline, image), class_index.expand(len(part))
                )
                for part in masks.split(PIECE)
            ]
            changes.append(torch.cat(scores))
    fell = (whole[:, None] - torch.stack(changes)).cpu().numpy().astype(np.float64)
    removed = (inputs - baselines).cpu()[:, :, brain].numpy()
    return BlockChanges(blocks, fell, removed, brain_mask)


def infidelity(
    attributions: torch.Tensor,
    found: BlockChanges,
    multiply_by_inputs: bool = True,
    scale: str = "relative",
) -> np.ndarray:
    """Mean squared error of the change of the score that a map predicts, (N,).

    Parameters
    ----------
    attributions : Tensor of shape (N, C, X, Y, Z)
        Raw and signed.
    found : BlockChanges
    multiply_by_inputs : bool, default True
        Whether values are contributions of voxels, so that the prediction is their sum in the block, over all
        channels. False for gradients, which are contributions per unit of intensity: the sum of map x (image
        - baseline).
    scale : {"relative", "normalized", "raw"}, default "relative"
        ``raw`` and ``normalized`` are Captum's ``infidelity`` without and with ``normalize``, which
        multiplies each map by the factor with the smallest error, since most methods have no fixed unit.
        ``relative`` divides that by the mean squared change: 0 for a perfect prediction, 1 for none, NaN
        when no block changes the score.

    Returns
    -------
    ndarray of shape (N,)

    References
    ----------
    Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019.
    """
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r}: one of {', '.join(SCALES)}")
    values = attributions.detach().cpu().numpy()[:, :, found.brain_mask].astype(np.float64)
    return _errors(values, found, multiply_by_inputs, scale)


def infidelity_of_chance(
    found: BlockChanges, multiply_by_inputs: bool = True, n_maps: int = 20, random_state: int = 0
) -> np.ndarray:
    """Mean relative infidelity of uniform random maps, (N,).

    It is below 1 because large blocks have larger sums and change the score more, for any map.

    Parameters
    ----------
    found : BlockChanges
    multiply_by_inputs : bool, default True
    n_maps : int, default 20
    random_state : int, default 0
    """
    rng = np.random.default_rng(random_state)
    shape = len(found.removed), 1, found.removed.shape[2]  # one value per voxel, for all channels
    drawn = [_errors(rng.random(shape), found, multiply_by_inputs, "relative") for _ in range(n_maps)]
    return np.mean(drawn, 0)


def _errors(values: np.ndarray, found: BlockChanges, multiply_by_inputs: bool, scale: str) -> np.ndarray:
    """Infidelity of maps (N, C, n_brain), or (N, 1, n_brain) with one value for all channels."""
    values = (values if multiply_by_inputs else values * found.removed).sum(1)
    predicted, fell = values @ found.blocks.T.astype(np.float64), found.changes  # (N, n_blocks)
    if scale == "raw":
        return ((predicted - fell) ** 2).mean(1)
    # the best multiple b of a map minimises the mean of (b predicted - fell)^2
    power = (predicted**2).sum(1)
    best = np.divide((predicted * fell).sum(1), power, out=np.zeros(len(power)), where=power > 0)
    error = ((best[:, None] * predicted - fell) ** 2).mean(1)
    if scale == "normalized":
        return error
    fall = (fell**2).mean(1)
    return np.divide(error, fall, out=np.full(len(fall), np.nan), where=fall > 0)

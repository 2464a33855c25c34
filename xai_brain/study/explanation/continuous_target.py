"""Statistics of a continuous target over the training participants of a fold."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.target_distribution import TargetDistribution

QUARTER = 0.25


def target_distribution(
    train: pd.DataFrame,
    load: Callable[[str], np.ndarray],
    progress: Callable[[list[int]], Iterable[int]] = iter,
) -> TargetDistribution:
    """Mean volumes at both ends of the target, and its correlation with every voxel, in one pass.

    Parameters
    ----------
    train : pandas.DataFrame
        target and volume_path of the training images.
    load : callable(path) -> ndarray of shape (X, Y, Z)
    progress : callable, optional
        Wraps the positions of the images.

    Raises
    ------
    AttributionError
        All targets are equal.
    """
    targets, paths = train["target"].to_numpy(float), train["volume_path"].tolist()
    if len(np.unique(targets)) < 2:
        raise AttributionError(
            f"{len(targets)} training images have equal targets: there are no opposite ends of the target"
        )
    n = max(round(QUARTER * len(targets)), 1)
    order = np.argsort(targets, kind="stable")
    ends = {"low": set(order[:n].tolist()), "high": set(order[-n:].tolist())}
    sums = {end: np.zeros(()) for end in ends}  # takes the shape of a volume
    mean = squares = products = np.zeros(())
    centred = targets - targets.mean()
    for count, i in enumerate(progress(list(range(len(paths)))), 1):
        volume = load(paths[i]).astype(np.float64)
        change = volume - mean  # Welford's recurrence
        mean = mean + change / count
        squares = squares + change * (volume - mean)
        products = products + centred[i] * volume
        for end, members in ends.items():
            if i in members:
                sums[end] = sums[end] + volume
    spread = np.sqrt(np.maximum(squares, 0) * np.square(centred).sum())
    varies = squares > 1e-12 * len(paths)
    correlation = np.divide(products, spread, out=np.zeros(mean.shape), where=varies)

    def volume_of(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32))[None]

    return TargetDistribution(
        low_mean=volume_of(sums["low"] / n),
        high_mean=volume_of(sums["high"] / n),
        correlation=volume_of(correlation),
        low=float(targets[order[:n]].mean()),
        high=float(targets[order[-n:]].mean()),
        median=float(np.median(targets)),
        sd=float(targets.std()),
    )

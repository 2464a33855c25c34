"""Standardisation of the inputs of a network at every voxel: statistics, and those of other images."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from xai_brain.config.setting import ConfigError
from xai_brain.models.calibrated import CalibratedNetwork


def volume_statistics(volumes: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and reciprocal standard deviation of volumes at every voxel, (1, X, Y, Z) each.

    The reciprocal is 0 at voxels outside the brain in half of the volumes or more, where the standard
    deviation only reflects the different borders of the brains. One volume is in memory at a time.

    Parameters
    ----------
    volumes : iterable of Tensor of shape (1, X, Y, Z)
        At least one.
    """
    n, total, squares, n_in_brain = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for each in volumes:
        volume = each.double()
        n, total, squares = n + 1, total + volume, squares + volume.square()
        n_in_brain = n_in_brain + (volume != 0).double()
    mean = total / n
    variance = (squares / n - mean.square()).clamp(min=0)
    usable = (n_in_brain > n / 2) & (variance > 1e-12)
    inverse_sd = torch.where(usable, variance.clamp(min=1e-12).rsqrt(), 0.0)
    return mean.float(), inverse_sd.float()


def use_statistics(network: CalibratedNetwork, mean: torch.Tensor, inverse_sd: torch.Tensor) -> None:
    """Standardise the inputs of a network by the statistics of other images than those of training.

    Raises
    ------
    ConfigError
        The network does not standardise its inputs.
    """
    if network.standardize is None:
        raise ConfigError(
            "adapt=standardize: the networks do not standardise their inputs; train them with "
            "trainer.standardize=zscore (or mean)"
        )
    network.mean_volume.copy_(mean)
    if network.standardize == "zscore":
        network.inverse_sd.copy_(inverse_sd)

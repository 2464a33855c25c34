"""A number as a distribution over bins: soft classification after Peng et al. 2021."""

from __future__ import annotations

import torch
from torch import nn

from xai_brain.config.setting import ConfigError

LIMIT_SD = 3.5  # centre of the last bin, in standard deviations of the training targets


def bin_centres(n_bins: int) -> torch.Tensor:
    """Centres (n_bins,) of bins of equal width, in standard deviations from the mean."""
    return torch.linspace(-LIMIT_SD, LIMIT_SD, n_bins)


class ExpectedValue(nn.Module):
    """Expected value (N, 1) of the distributions that logits (N, n_bins) describe, standardised.

    Parameters
    ----------
    n_bins : int
    """

    centres: torch.Tensor
    n_inputs: int

    def __init__(self, n_bins: int):
        super().__init__()
        self.n_inputs = n_bins
        self.register_buffer("centres", bin_centres(n_bins)[:, None], persistent=False)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(1) @ self.centres


def soft_labels(targets: torch.Tensor, n_bins: int) -> torch.Tensor:
    """Distribution (N, n_bins) for each standardised target (N,).

    The mass of a normal distribution around the target in each bin, divided by its sum. The standard
    deviation is the width of a bin, as in the publication (one year).
    """
    centres = bin_centres(n_bins).to(targets)
    half = (centres[1] - centres[0]) / 2
    edges = torch.cat([centres - half, centres[-1:] + half])
    below = torch.special.ndtr((edges - targets[:, None]) / (2 * half))
    mass = below.diff(dim=1)
    return mass / mass.sum(1, keepdim=True)


def soft_bin_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence of the predicted distributions from the soft labels.

    Parameters
    ----------
    logits : Tensor of shape (N, n_bins)
    targets : Tensor of shape (N,)
        Standardised.

    Raises
    ------
    ConfigError
        A target lies beyond the bins.

    References
    ----------
    Peng et al., "Accurate brain age prediction with lightweight deep neural networks", Medical Image
    Analysis 68:101871, 2021.
    """
    if (farthest := float(targets.abs().max())) > LIMIT_SD:
        raise ConfigError(
            f"task.loss_function=soft_bins: a target is {farthest:.1f} standard deviations from the mean of "
            f"the training participants, the bins end at {LIMIT_SD:g}; correct the table, or use mse, "
            "l1 or huber"
        )
    labels = soft_labels(targets.to(logits), logits.shape[1])
    return nn.functional.kl_div(logits.log_softmax(1), labels, reduction="batchmean")

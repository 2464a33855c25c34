"""A 2-D network on slabs of slices; a participant is classified by a majority vote of the slabs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from xai_brain.task.classification import Classification


class SlabNet(nn.Module):
    """Convolutional network whose channels are the slices of a slab.

    Parameters
    ----------
    input_shape : sequence of 3 int
        Slices of a slab and the two axes of a slice.
    n_classes : int, default 2
    channels : sequence of int, default (16, 32, 64)
        Channels of the blocks; each block halves the slice.
    dropout : float, default 0.5
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int = 2,
        channels: Sequence[int] = (16, 32, 64),
        dropout: float = 0.5,
    ):
        super().__init__()
        n_slices, *size = (int(n) for n in input_shape)
        if min(size) < 2 ** len(channels):
            raise ValueError(
                f"slices of {size[0]} x {size[1]} voxels are too small; "
                f"at least {2 ** len(channels)} are needed"
            )
        layers: list[nn.Module] = []
        for before, after in zip([n_slices, *channels], channels, strict=False):
            convolution = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels[-1], n_classes)

    def forward(self, slabs: torch.Tensor) -> torch.Tensor:
        """Logits (N, n_classes) of slabs (N, n_slices, X, Z)."""
        return self.linear(self.dropout(self.features(slabs).mean((2, 3))))


def vote(slab_logits: torch.Tensor, n_slabs: int) -> torch.Tensor:
    """Logits of participants by a majority vote over slabs.

    The logits are the logarithms of the shares of votes. The mean probability of the slabs counts as an
    additional vote, so that it decides ties and no share is 0.

    Parameters
    ----------
    slab_logits : Tensor of shape (n_subjects * n_slabs, n_classes)
        All slabs of the first participant, then those of the next.
    n_slabs : int

    Returns
    -------
    Tensor of shape (n_subjects, n_classes)
    """
    by_subject = slab_logits.unflatten(0, (-1, n_slabs)).double()
    votes = nn.functional.one_hot(by_subject.argmax(-1), by_subject.shape[-1]).sum(1)
    mean = by_subject.softmax(-1).mean(1)
    return ((votes + mean) / (n_slabs + 1)).clamp_min(1e-12).log()


def calibrated_votes(
    validation: torch.Tensor, validation_targets: torch.Tensor, test: torch.Tensor, n_slabs: int
) -> torch.Tensor:
    """Logits of the test participants by `vote`, calibrated on the validation participants.

    Parameters
    ----------
    validation, test : Tensor of shape (n_subjects * n_slabs, n_classes)
    validation_targets : Tensor of shape (n_subjects * n_slabs,)
    n_slabs : int
    """
    temperature = Classification().fit_temperature(vote(validation, n_slabs), validation_targets[::n_slabs])
    return vote(test, n_slabs) / temperature

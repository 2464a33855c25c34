"""What a method may know of the training subjects of a fold."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Reference:
    """Training subjects of the fold whose model is explained; never a test subject.

    Parameters
    ----------
    class_means : Tensor of shape (n_classes, 1, X, Y, Z)
        Mean volume of each class.
    volumes : Tensor of shape (M, 1, X, Y, Z)
        A sample of volumes.
    targets : Tensor of shape (M,)
        Their classes.
    brain_mask : bool Tensor of shape (X, Y, Z)
        Voxels that lie in the brain of any training subject.
    """

    class_means: torch.Tensor
    volumes: torch.Tensor
    targets: torch.Tensor
    brain_mask: torch.Tensor

    def counterfactual_mean(self, target: torch.Tensor) -> torch.Tensor:
        """Mean of the other classes' mean volumes, (N, 1, X, Y, Z), for targets (N,)."""
        n_classes = len(self.class_means)
        weights = torch.ones(n_classes, n_classes) - torch.eye(n_classes)
        others = torch.einsum("kc,c...->k...", weights / (n_classes - 1), self.class_means.cpu())
        return others[target.cpu()]

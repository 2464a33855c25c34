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
    voxel_size_mm : tuple of 3 float
    """

    class_means: torch.Tensor
    volumes: torch.Tensor
    targets: torch.Tensor
    brain_mask: torch.Tensor
    voxel_size_mm: tuple[float, float, float]

    def counterfactual_mean(self, target: torch.Tensor) -> torch.Tensor:
        """Mean of the other classes' mean volumes, (N, 1, X, Y, Z), for targets (N,)."""
        n_classes = len(self.class_means)
        weights = torch.ones(n_classes, n_classes) - torch.eye(n_classes)
        others = torch.einsum("kc,c...->k...", weights / (n_classes - 1), self.class_means.cpu())
        return others[target.cpu()]

    def nearest_counterfactual(
        self, inputs: torch.Tensor, target: torch.Tensor, brain: torch.Tensor, n_nearest: int
    ) -> torch.Tensor:
        """Mean of the nearest volumes of other classes, (N, 1, X, Y, Z).

        Parameters
        ----------
        inputs : Tensor of shape (N, 1, X, Y, Z)
        target : Tensor of shape (N,)
        brain : Tensor of shape (1 or N, 1, X, Y, Z)
            Where the Euclidean distance is measured.
        n_nearest : int
        """
        volumes = self.volumes.to(inputs)
        nearest = []
        for i, (volume, its_target) in enumerate(zip(inputs, target.tolist(), strict=True)):
            others = volumes[(self.targets != its_target).to(volumes.device)]
            inside = brain[i if len(brain) > 1 else 0]
            distance = ((others - volume) * inside).square().sum((1, 2, 3, 4))
            nearest.append(others[distance.argsort()[:n_nearest]].mean(0))
        return torch.stack(nearest)

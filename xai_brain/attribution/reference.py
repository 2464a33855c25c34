"""What a method may know of the training subjects of a fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.outputs import check_targets
from xai_brain.attribution.target_distribution import TargetDistribution


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
    class_variances : Tensor of shape (n_classes, 1, X, Y, Z), optional
        Unbiased (n - 1) variance of each class. Only the t-map needs it.
    class_counts : Tensor of shape (n_classes,), optional
        Subjects of each class.
    affine : Tensor of shape (4, 4), optional
        Voxel to world, RAS+ mm. Only what places an atlas needs it.
    distribution : TargetDistribution, optional
        Of a continuous target, whose training subjects are one class.

    Examples
    --------
    >>> reference = study.reference(fold=1)
    >>> reference.class_means.shape
    torch.Size([2, 1, 46, 55, 46])
    """

    class_means: torch.Tensor
    volumes: torch.Tensor
    targets: torch.Tensor
    brain_mask: torch.Tensor
    voxel_size_mm: tuple[float, float, float]
    class_variances: torch.Tensor | None = None
    class_counts: torch.Tensor | None = None
    affine: torch.Tensor | None = None
    distribution: TargetDistribution | None = None

    def __post_init__(self) -> None:
        # tensors that were made in inference mode cannot be kept for a backward pass, their clones can
        with torch.inference_mode(False):
            for field in fields(self):
                value = getattr(self, field.name)
                if isinstance(value, torch.Tensor) and value.is_inference():
                    object.__setattr__(self, field.name, value.clone())

    @property
    def mean(self) -> torch.Tensor:
        """Mean of all training subjects, (1, X, Y, Z); of the classes, where their counts are not known."""
        if self.class_counts is None:
            return self.class_means.mean(0)
        weights = (self.class_counts / self.class_counts.sum()).to(self.class_means)
        return torch.einsum("k,k...->...", weights, self.class_means)

    def of_network(self, predict: Callable[[torch.Tensor], torch.Tensor]) -> Reference:
        """The same reference for a network; only of a continuous target it depends on the predictions."""
        if self.distribution is None:
            return self
        return replace(self, distribution=self.distribution.of_network(predict))

    def check(self, inputs: torch.Tensor, targets: torch.Tensor | None = None) -> None:
        """Refuse inputs of another shape than the training volumes, and targets of other classes.

        Parameters
        ----------
        inputs : Tensor of shape (N, C, X, Y, Z)
        targets : Tensor of shape (N,), optional

        Raises
        ------
        AttributionError
        """
        shape = self.class_means.shape[1:]
        if inputs.shape[1:] != shape:
            raise AttributionError(
                f"inputs of shape {tuple(inputs.shape)}: the reference is made of volumes of shape "
                f"{tuple(shape)} (channels and voxels); both have to be equal"
            )
        if targets is not None:
            check_targets(targets, len(self.class_means), "the reference")

    def require_volumes(self) -> None:
        """Refuse a reference without volumes.

        Raises
        ------
        AttributionError
        """
        if not len(self.volumes):
            raise AttributionError(
                "the reference holds no volumes to start from; set explain.n_reference_volumes to 1 or more"
            )

    def welch_t(self, target: int) -> torch.Tensor:
        """Welch's t of a class against all others together, (1, X, Y, Z).

        Parameters
        ----------
        target : int

        Returns
        -------
        Tensor of shape (1, X, Y, Z)
            Positive where the class is higher; 0 outside the brain and where nothing varies.

        Raises
        ------
        AttributionError
            There are no variances and counts, or fewer than two subjects on one side.
        """
        self._require_several()
        if self.class_variances is None or self.class_counts is None:
            raise AttributionError(
                "a t-map needs Reference(..., class_variances=..., class_counts=...) of the training subjects"
            )
        means, variances = self.class_means.double(), self.class_variances.double()
        counts = self.class_counts.to(means)
        others = [k for k in range(len(means)) if k != target]
        n, n_rest = counts[target], counts[others].sum()
        if min(n, n_rest) < 2:
            raise AttributionError(
                f"a t-map needs two training subjects of class {target} and of the rest, "
                f"not {int(n)} and {int(n_rest)}"
            )
        # mean and variance of the other classes together, from those of each
        mean_rest = torch.einsum("k,k...->...", counts[others] / n_rest, means[others])
        squares = torch.einsum("k,k...->...", counts[others] - 1, variances[others].nan_to_num())
        squares = squares + torch.einsum("k,k...->...", counts[others], (means[others] - mean_rest).square())
        error = (variances[target] / n + squares / (n_rest - 1) / n_rest).sqrt()
        t = torch.where(error > 0, (means[target] - mean_rest) / error, 0.0)
        return (t * self.brain_mask.to(t.device)).float()

    def counterfactual_mean(self, target: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Mean of the other classes' mean volumes, (N, 1, X, Y, Z), for targets (N,).

        Of a continuous target it is the mean volume at the end that is opposite to the prediction.
        """
        if self.distribution is not None:
            return self.distribution.opposite_mean(inputs)
        self._require_several()
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
        self._require_several()
        volumes = self.volumes.to(inputs)
        nearest = []
        for i, (volume, its_target) in enumerate(zip(inputs, target.tolist(), strict=True)):
            others = volumes[(self.targets != its_target).to(volumes.device)]
            inside = brain[i if len(brain) > 1 else 0]
            distance = ((others - volume) * inside).square().sum((1, 2, 3, 4))
            nearest.append(others[distance.argsort()[:n_nearest]].mean(0))
        return torch.stack(nearest)

    def _require_several(self) -> None:
        if len(self.class_means) < 2:
            raise AttributionError(
                "the reference has no classes to compare, as the task of the network has none; use a method "
                "without a reference, or fill=blur, zero or training_mean"
            )

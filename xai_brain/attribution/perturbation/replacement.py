"""What takes the place of tissue in a perturbation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from xai_brain.attribution.model_state import AttributionError
from xai_brain.attribution.perturbation.masks import mean_and_sd_in
from xai_brain.attribution.reference import Reference

OF_TRAINING_SUBJECTS = ("counterfactual_mean", "nearest_counterfactual", "training_mean")
OF_THE_IMAGE = ("blur", "brain_mean", "zero", "noise", "kan2020_blur")
FILLS = OF_TRAINING_SUBJECTS + OF_THE_IMAGE
N_NEAREST = 5


class ReplacementVolumes:
    """Replacement volumes for a batch: of one kind, or several, which are mixed anew in every iteration.

    Parameters
    ----------
    names : str or sequence of str
        ``counterfactual_mean``: mean training image of the other classes, or at the opposite end of a
        continuous target (see `TargetDistribution`). ``nearest_counterfactual``: mean
        of the five nearest training subjects of the other classes. ``training_mean``: of all classes.
        ``blur``: the image, blurred by a Gaussian. ``brain_mean``: the mean of its brain. ``zero``.
        ``noise``: normal, with mean and standard deviation of its brain. ``kan2020_blur``: the blur of the
        published code, a box of 5x5x5 voxels with zeros outside the volume.
    reference : Reference, optional
        Of the first three.
    blur_sigma_mm : float
        Standard deviation of the blur.
    voxel_size_mm : sequence of 3 float, optional
        Of the volumes, for the blur; default: that of the reference.

    Raises
    ------
    AttributionError
        Unknown fill, or one that lacks what it is made from.
    """

    def __init__(
        self,
        names: str | Sequence[str],
        reference: Reference | None,
        blur_sigma_mm: float,
        voxel_size_mm: Sequence[float] | None = None,
    ):
        self.names = [names] if isinstance(names, str) else list(names)
        self.reference, self.blur_sigma_mm = reference, blur_sigma_mm
        self.voxel_size_mm = voxel_size_mm or (reference.voxel_size_mm if reference else None)
        for name in self.names:
            if name not in FILLS:
                raise AttributionError(f"fill={name!r}: one of {', '.join(FILLS)}")
            if name in OF_TRAINING_SUBJECTS and reference is None:
                raise AttributionError(f"fill={name!r} needs reference=Reference(...) of training subjects")
            if name == "blur" and self.voxel_size_mm is None:
                raise AttributionError(
                    "fill='blur' is in mm: give voxel_size_mm=(3.125, 3.125, 3.125) or alike"
                )

    def make(
        self, inputs: torch.Tensor, targets: torch.Tensor, brain: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """All fills of a batch, (n_fills, N, 1, X, Y, Z).

        Parameters
        ----------
        inputs : Tensor of shape (N, 1, X, Y, Z)
        targets : Tensor of shape (N,)
            Class that is to be taken away.
        brain : Tensor of shape (1 or N, 1, X, Y, Z)
            1 in the brain.
        generator : torch.Generator
            On the CPU; for noise.
        """
        if self.reference is not None and set(self.names) & set(OF_TRAINING_SUBJECTS):
            self.reference.check(inputs, targets)
        return torch.stack([self._make(name, inputs, targets, brain, generator) for name in self.names])

    def mixtures(self, n_iter: int, generator: torch.Generator) -> torch.Tensor:
        """Random weights of the fills in every iteration, (n_iter, n_fills), which sum to 1."""
        weights = torch.rand(n_iter, len(self.names), generator=generator).log().neg()  # Dirichlet(1, ..., 1)
        return weights / weights.sum(1, keepdim=True)

    def _make(
        self,
        name: str,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        brain: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        if name == "zero":
            return torch.zeros_like(inputs)
        if name == "kan2020_blur":
            return kan2020_blur(inputs)
        if name == "blur":
            assert self.voxel_size_mm is not None
            return gaussian_blur(inputs, [self.blur_sigma_mm / size for size in self.voxel_size_mm])
        if name in ("brain_mean", "noise"):
            mean, sd = mean_and_sd_in(inputs, brain)
            if name == "brain_mean":
                return torch.where(brain > 0, mean, inputs)
            noise = torch.randn(inputs.shape[1:], generator=generator).to(inputs)  # one draw for all subjects
            return torch.where(brain > 0, mean + sd * noise, inputs)
        assert self.reference is not None
        if name == "training_mean":
            return self.reference.class_means.mean(0, keepdim=True).to(inputs).expand_as(inputs)
        if name == "counterfactual_mean":
            return self.reference.counterfactual_mean(targets, inputs).to(inputs)
        return self.reference.nearest_counterfactual(inputs, targets, brain, N_NEAREST)


def edge_in_voxels(
    setting: str, edge_mm: float, reference: Reference | None, voxel_size_mm: Sequence[float] | None
) -> list[float]:
    """Edge of a box along each axis in voxels, at least 1.

    Parameters
    ----------
    setting : str
        Its name, for messages.
    edge_mm : float
    reference : Reference, optional
    voxel_size_mm : sequence of 3 float, optional
        Default: that of the reference.

    Raises
    ------
    AttributionError
        The edge is not above 0, or the voxel size is not known.
    """
    sizes = voxel_size_mm or (reference.voxel_size_mm if reference else None)
    if sizes is None:
        raise AttributionError(f"{setting}={edge_mm:g} is in mm: give voxel_size_mm or a reference")
    if not edge_mm > 0:
        raise AttributionError(f"{setting}={edge_mm:g}: a length above 0 mm is needed")
    return [max(edge_mm / size, 1.0) for size in sizes]


def mixed(fills: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums (N, C, X, Y, Z) of fills (N, n_fills, C, X, Y, Z), with weights (N, n_fills)."""
    return fills[:, 0] if fills.shape[1] == 1 else torch.einsum("nf,nf...->n...", weights, fills)


def gaussian_blur(inputs: torch.Tensor, sigma_voxels: float | Sequence[float]) -> torch.Tensor:
    """Gaussian smoothing of the last three axes with replicated edges.

    Parameters
    ----------
    inputs : Tensor of shape (N, C, X, Y, Z)
    sigma_voxels : float or 3 float
        True standard deviation: the kernel reaches to four of them.
    """
    sigmas = [sigma_voxels] * 3 if isinstance(sigma_voxels, int | float) else list(sigma_voxels)
    shape = inputs.shape
    inputs = inputs.reshape(-1, 1, *shape[2:])
    for axis, sigma in zip((2, 3, 4), sigmas, strict=True):
        radius = max(math.ceil(4 * sigma), 1)
        positions = torch.arange(-radius, radius + 1, dtype=inputs.dtype, device=inputs.device)
        kernel = torch.exp(-(positions**2) / (2 * sigma**2))
        inputs = _along(inputs, kernel / kernel.sum(), axis, (radius, radius), "replicate")
    return inputs.view(shape)


def kan2020_blur(inputs: torch.Tensor) -> torch.Tensor:
    """Mean of the 5x5x5 voxels around each voxel, with zeros outside the volume: the published blur.

    Parameters
    ----------
    inputs : Tensor of shape (N, C, X, Y, Z)

    Notes
    -----
    The published code asks for a Gaussian of 10 voxels, but its kernel has 5 voxels along each axis and equal
    weights: the effective standard deviation is 1.41 voxels. See `gaussian_blur` for a true Gaussian.
    """
    n, c, x, y, z = inputs.shape
    # one product with a banded matrix per axis is ten times as fast on CPUs as a convolution of one channel
    band_x, band_y, band_z = (_band(size, inputs) for size in (x, y, z))
    blurred = band_y @ (inputs @ band_z)
    return (band_x @ blurred.reshape(n, c, x, y * z)).view(n, c, x, y, z)


def _band(size: int, like: torch.Tensor) -> torch.Tensor:
    """Matrix (size, size) that averages 5 neighbours along an axis; outside there are zeros."""
    places = torch.arange(size, device=like.device)
    return ((places[:, None] - places).abs() <= 2).to(like) / 5


def _along(
    inputs: torch.Tensor, kernel: torch.Tensor, axis: int, margin: tuple[int, int], mode: str
) -> torch.Tensor:
    padding = [0] * 6
    first = 2 * (4 - axis)  # pairs (before, after), from the last axis backwards
    padding[first : first + 2] = margin
    shape = [1] * 5
    shape[axis] = len(kernel)
    return nn.functional.conv3d(nn.functional.pad(inputs, padding, mode=mode), kernel.view(shape))

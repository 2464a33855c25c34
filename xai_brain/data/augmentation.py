"""Random augmentation of batches of training volumes, on their device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

BIAS_FIELD_SPACING_MM = 60.0


class Augmentation:
    """Small changes of position, shape and intensity; the background stays 0.

    Position and shape are changed by one trilinear resampling, with zeros outside the volume. Voxels of value
    0 are the background. Intensities are changed inside the brain only, in units that do not depend on their
    scaling. Changes of strength 0 are skipped; if all are 0, a batch is returned unchanged.

    Parameters
    ----------
    max_shift_mm : float, default 0
        Shift per axis, uniform in ± this.
    max_rotation_degrees : float, default 0
        Rotation about each axis through the centre of the grid, uniform in ± this.
    max_scaling : float, default 0
        Relative change of size per axis, uniform in ± this.
    elastic_sd_mm : float, default 0
        Standard deviation of a smooth random displacement, per axis and voxel.
    elastic_spacing_mm : float, default 32
        Distance of the control points of that displacement (cubic B-splines).
    flip_probability : float, default 0
        Share of volumes in which left and right (the first axis) are exchanged. Maps then contain no
        information about laterality.
    intensity_sd : float, default 0
        Standard deviation of a gain (relative to 1) and of an offset (relative to the standard deviation
        in the brain).
    gamma_sd : float, default 0
        Standard deviation of the logarithm of an exponent. It acts on intensities from the lowest (0) to
        the highest (1) in the brain.
    bias_field_sd : float, default 0
        Standard deviation of the logarithm of a smooth factor, on intensities from the lowest in the brain.
    noise_sd : float, default 0
        Standard deviation of Gaussian noise, relative to that in the brain.
    voxel_size_mm : sequence of 3 float, default (1, 1, 1)
    seed : int, default 0
        The same seed and the same batches give the same volumes on the same device.
    """

    def __init__(
        self,
        max_shift_mm: float = 0.0,
        max_rotation_degrees: float = 0.0,
        max_scaling: float = 0.0,
        elastic_sd_mm: float = 0.0,
        elastic_spacing_mm: float = 32.0,
        flip_probability: float = 0.0,
        intensity_sd: float = 0.0,
        gamma_sd: float = 0.0,
        bias_field_sd: float = 0.0,
        noise_sd: float = 0.0,
        *,
        voxel_size_mm: Sequence[float] = (1.0, 1.0, 1.0),
        seed: int = 0,
    ):
        self.max_shift_mm, self.max_rotation_degrees = max_shift_mm, max_rotation_degrees
        self.max_scaling = max_scaling
        self.elastic_sd_mm, self.elastic_spacing_mm = elastic_sd_mm, elastic_spacing_mm
        self.flip_probability = flip_probability
        self.intensity_sd, self.gamma_sd = intensity_sd, gamma_sd
        self.bias_field_sd, self.noise_sd = bias_field_sd, noise_sd
        self.voxel_size_mm, self.seed = tuple(voxel_size_mm), seed
        self._generator: torch.Generator | None = None

    @torch.no_grad()
    def __call__(self, volumes: torch.Tensor) -> torch.Tensor:
        """Changed copies of a batch.

        Parameters
        ----------
        volumes : Tensor of shape (N, 1, X, Y, Z)

        Returns
        -------
        Tensor of shape (N, 1, X, Y, Z)
        """
        if self._generator is None or self._generator.device != volumes.device:
            self._generator = torch.Generator(volumes.device).manual_seed(self.seed)
        if self.flip_probability:
            chosen = self._uniform(volumes, len(volumes)) < 2 * self.flip_probability - 1
            volumes = torch.where(chosen[:, None, None, None, None], volumes.flip(2), volumes)
        if self.max_shift_mm or self.max_rotation_degrees or self.max_scaling or self.elastic_sd_mm:
            volumes = self._moved(volumes)
        if self.intensity_sd or self.gamma_sd or self.bias_field_sd or self.noise_sd:
            volumes = self._recoloured(volumes)
        return volumes

    # -- place and shape ---------------------------------------------------------------------------
    def _moved(self, volumes: torch.Tensor) -> torch.Tensor:
        n = len(volumes)
        shift = self.max_shift_mm * self._uniform(volumes, n, 3)
        angles = math.radians(self.max_rotation_degrees) * self._uniform(volumes, n, 3)
        scales = 1 + self.max_scaling * self._uniform(volumes, n, 3)
        displacement = None
        if self.elastic_sd_mm:
            displacement = self.elastic_sd_mm * self._smooth_field(volumes, 3, self.elastic_spacing_mm)
        return move(volumes, rotation(angles) * scales[:, None], shift, self.voxel_size_mm, displacement)

    def _smooth_field(self, volumes: torch.Tensor, n_components: int, spacing_mm: float) -> torch.Tensor:
        """Random field (N, n_components, X, Y, Z) of standard deviation 1 at every voxel."""
        bases = [
            spline_basis(n, n * size / spacing_mm).to(volumes)
            for n, size in zip(volumes.shape[2:], self.voxel_size_mm, strict=True)
        ]
        field = self._normal(volumes, len(volumes), n_components, *(basis.shape[1] for basis in bases))
        for (
            basis
        ) in bases:  # the axis that is upsampled goes to the end: (N, C, Y, Z, x), ..., (N, C, X, Y, Z)
            field = field.movedim(2, -1) @ basis.T
        return field

    # -- intensity ---------------------------------------------------------------------------------
    def _recoloured(self, volumes: torch.Tensor) -> torch.Tensor:
        n = len(volumes)
        brain = volumes != 0
        axes = (1, 2, 3, 4)
        count = brain.sum(axes, keepdim=True).clamp(min=1)
        mean = volumes.sum(axes, keepdim=True) / count
        sd = ((volumes - mean).square() * brain).sum(axes, keepdim=True).div(count).sqrt()
        if self.gamma_sd or self.bias_field_sd:
            low = volumes.masked_fill(~brain, torch.inf).amin(axes, keepdim=True)
            high = volumes.masked_fill(~brain, -torch.inf).amax(axes, keepdim=True)
            span = (high - low).clamp(min=torch.finfo(volumes.dtype).tiny)
            volumes = ((volumes - low) / span).clamp(0, 1)
            if self.gamma_sd:
                volumes = volumes ** (self.gamma_sd * self._normal(volumes, n, 1, 1, 1, 1)).exp()
            if self.bias_field_sd:
                field = self._smooth_field(volumes, 1, BIAS_FIELD_SPACING_MM)
                volumes = volumes * (self.bias_field_sd * field).exp()
            volumes = volumes * span + low
        if self.intensity_sd:
            gain, offset = self.intensity_sd * self._normal(volumes, 2, n, 1, 1, 1, 1)
            volumes = volumes * (1 + gain) + offset * sd
        if self.noise_sd:
            volumes = volumes + self.noise_sd * sd * self._normal(volumes, *volumes.shape)
        return torch.where(brain, volumes, 0)

    # -- chance ------------------------------------------------------------------------------------
    def _normal(self, like: torch.Tensor, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator, device=like.device, dtype=like.dtype)

    def _uniform(self, like: torch.Tensor, *shape: int) -> torch.Tensor:
        """Between -1 and 1."""
        return 2 * torch.rand(shape, generator=self._generator, device=like.device, dtype=like.dtype) - 1


def move(
    volumes: torch.Tensor,
    matrices: torch.Tensor,
    shift_mm: torch.Tensor,
    voxel_size_mm: Sequence[float],
    displacement_mm: torch.Tensor | None = None,
) -> torch.Tensor:
    """Transform volumes: a point p (mm from the centre of the grid) moves to ``matrix @ p + shift``.

    Parameters
    ----------
    volumes : Tensor of shape (N, 1, X, Y, Z)
    matrices : Tensor of shape (N, 3, 3)
    shift_mm : Tensor of shape (N, 3)
    voxel_size_mm : sequence of 3 float
    displacement_mm : Tensor of shape (N, 3, X, Y, Z), optional
        Added to the position from which the value of a voxel is taken.

    Returns
    -------
    Tensor of shape (N, 1, X, Y, Z)
        Trilinear interpolation, with 0 outside the volume.
    """
    shape = volumes.shape[2:]
    axes = [
        (torch.arange(n, device=volumes.device, dtype=volumes.dtype) - (n - 1) / 2) * size
        for n, size in zip(shape, voxel_size_mm, strict=True)
    ]
    inverse = torch.linalg.inv(matrices)
    half = torch.tensor([axis[-1] for axis in axes]).to(volumes)  # mm from the centre to the last voxel
    # source = inverse (p - shift), by axis, since a voxel's p is the sum of its three coordinates
    start = -(inverse @ shift_mm[..., None])[..., 0]  # (N, 3)
    source = []
    for i in range(3):
        x, y, z = (inverse[:, i, j, None] * axis for j, axis in enumerate(axes))  # (N, X), (N, Y), (N, Z)
        at = (x + start[:, i, None])[:, :, None, None] + (y[:, :, None] + z[:, None])[:, None]
        at = at if displacement_mm is None else at + displacement_mm[:, i]
        source.append(at / half[i])
    grid = torch.stack(source[::-1], -1)  # (N, X, Y, Z, 3): grid_sample wants the last axis first
    return torch.nn.functional.grid_sample(volumes, grid, align_corners=True)


def rotation(angles: torch.Tensor) -> torch.Tensor:
    """Rotations about the first, then the second, then the third axis.

    Parameters
    ----------
    angles : Tensor of shape (N, 3)
        Radians, right-handed.

    Returns
    -------
    Tensor of shape (N, 3, 3)
    """
    cos, sin = angles.cos(), angles.sin()
    result = torch.eye(3).to(angles).expand(len(angles), 3, 3)
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        about = torch.eye(3).to(angles).repeat(len(angles), 1, 1)
        about[:, i, i] = about[:, j, j] = cos[:, axis]
        about[:, i, j], about[:, j, i] = -sin[:, axis], sin[:, axis]
        result = about @ result
    return result


def spline_basis(n_voxels: int, n_intervals: float) -> torch.Tensor:
    """Cubic B-splines along one axis, scaled so that the squares at every voxel sum to 1.

    Independent standard normal coefficients then give a smooth curve of standard deviation 1 everywhere.

    Parameters
    ----------
    n_voxels : int
    n_intervals : float
        Length of the axis in distances of control points.

    Returns
    -------
    Tensor of shape (n_voxels, n_control)
    """
    position = (torch.arange(n_voxels) + 0.5) / n_voxels * n_intervals + 1
    distance = (position[:, None] - torch.arange(math.ceil(n_intervals) + 3)).abs()
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance).clamp(min=0) ** 3 / 6
    weights = torch.where(distance < 1, near, far)
    return weights / weights.norm(dim=1, keepdim=True)

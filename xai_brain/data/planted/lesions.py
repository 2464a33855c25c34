"""Lesions: noise blobs of given volume, number and compactness in a region."""

from __future__ import annotations

from itertools import product

import nibabel as nib
import numpy as np
from scipy import ndimage

from xai_brain.config.planted_effect import PlantedError
from xai_brain.data.planted.placement import Place
from xai_brain.io.nifti import Grid

LEAST_SHARE = 0.1  # voxels are unchanged if lesions fill a smaller share
TRIES = 8  # attempts to place each lesion, and to place all lesions
MOST_ROUGH = 3.0
BISECTIONS = 7
ALL_AROUND = np.ones((3, 3, 3), bool)


def lesion_shares(
    place: Place,
    grid: Grid,
    allowed: np.ndarray,
    volume_ml: float,
    count: int,
    compactness: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Share of each voxel that is filled by lesions.

    The radius of a lesion varies smoothly and randomly with the direction; the amount of variation follows
    from the compactness. Lesions do not touch each other.

    Parameters
    ----------
    place : Place
    grid : Grid
    allowed : bool ndarray of shape grid.shape
        Voxels that lesions may fill, e.g. the brain in the region.
    volume_ml : float
        Total volume of all lesions.
    count : int
    compactness : float
        36 pi V^2 / S^3, 1 for a sphere. Lesions at the border of the region can be less compact.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape grid.shape, float32
        In [0, 1].

    Raises
    ------
    PlantedError
        There is not enough space in the region.
    """
    parts = rng.uniform(0.7, 1.3, count)
    volumes = 1000 * volume_ml * np.sort(parts / parts.sum())[::-1]  # mm^3; the largest are placed first
    for _ in range(TRIES):
        shares = np.zeros(grid.shape, np.float32)
        free = allowed.copy()
        for volume in volumes:
            tries = (_one_lesion(place, grid, free, float(volume), compactness, rng) for _ in range(TRIES))
            found = next((lesion for lesion in tries if lesion is not None), None)
            if found is None:
                break
            box, share = found
            shares[box] += share
            wider = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
            free[wider] &= ~ndimage.binary_dilation(shares[wider] > 0, ALL_AROUND)
        else:
            return shares
    raise PlantedError(
        f"planted.lesion_volume_ml={volume_ml:.2f} in {count} lesions: the region is too small for them; "
        "use a larger region, or fewer or smaller lesions"
    )


def _one_lesion(
    place: Place,
    grid: Grid,
    free: np.ndarray,
    volume: float,
    compactness: float,
    rng: np.random.Generator,
) -> tuple[tuple[slice, ...], np.ndarray] | None:
    """Box on the grid and the shares in it; None if there is not enough space."""
    radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
    candidates = np.argwhere(free)
    if not len(candidates):
        return None
    depth = place.depth_mm(nib.affines.apply_affine(grid.affine, candidates))
    candidates = candidates[depth >= min(radius, float(np.quantile(depth, 0.9)))]
    middle = candidates[rng.integers(len(candidates))] + rng.uniform(-0.5, 0.5, 3)
    center = nib.affines.apply_affine(grid.affine, middle)

    # voxels of a box around it are divided into small parts, depending on the size of the lesion
    half = np.ceil(2.5 * radius / grid.spacing_mm).astype(int)
    low = np.maximum(np.rint(middle).astype(int) - half, 0)
    high = np.minimum(np.rint(middle).astype(int) + half + 1, grid.shape)
    divide = np.ceil(grid.spacing_mm / (radius / 5)).astype(int)
    axes = [low[k] - 0.5 + (np.arange((high[k] - low[k]) * divide[k]) + 0.5) / divide[k] for k in range(3)]
    places = nib.affines.apply_affine(grid.affine, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    inside = free[box]
    for axis in range(3):
        inside = inside.repeat(divide[axis], axis)
    inside = inside & (place.depth_mm(places) > 0)
    step_mm = grid.spacing_mm / divide
    n_parts = round(volume / float(np.prod(step_mm)))
    if inside.sum() < n_parts:
        return None
    offset = places - center
    distance = np.linalg.norm(offset, axis=-1)
    bumps = _bumps(offset / np.maximum(distance, 1e-9)[..., None], rng)

    smooth, rough = 0.0, MOST_ROUGH
    blob = _blob(distance, bumps, smooth, inside, n_parts)
    if measured_compactness(blob, step_mm) > compactness:
        for _ in range(BISECTIONS):
            middle_rough = (smooth + rough) / 2
            blob = _blob(distance, bumps, middle_rough, inside, n_parts)
            if measured_compactness(blob, step_mm) > compactness:
                smooth = middle_rough
            else:
                rough = middle_rough
    if not blob[tuple(np.unravel_index(distance.argmin(), distance.shape))]:
        return None
    shape = [n for k in range(3) for n in (high[k] - low[k], divide[k])]
    share = blob.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32)
    share[share < LEAST_SHARE] = 0
    # a lesion is connected, even at the border of the region
    return (box, share) if ndimage.label(share, ALL_AROUND)[1] == 1 else None


def _blob(
    distance: np.ndarray, bumps: np.ndarray, roughness: float, inside: np.ndarray, n_parts: int
) -> np.ndarray:
    """The parts that are nearest to the centre, by a direction-dependent distance."""
    nearness = np.where(inside, distance * np.exp(-roughness * bumps), np.inf)
    threshold = np.partition(nearness.ravel(), n_parts - 1)[n_parts - 1]
    return nearness <= threshold


def _bumps(directions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise on the sphere with unit variance: a polynomial of degree 3 with random coefficients."""
    powers = [p for p in product(range(4), repeat=3) if 2 <= sum(p) <= 3]
    coefficients = rng.standard_normal(len(powers))
    x, y, z = np.moveaxis(directions, -1, 0)
    # a sample of directions that does not depend on the box sets the scale
    sample = np.random.default_rng(0).standard_normal((500, 3))
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    at_sample = np.prod(sample[:, None, :] ** np.array(powers), axis=2) @ coefficients
    x_to, y_to, z_to = ([np.ones_like(v), v, v * v, v * v * v] for v in (x, y, z))
    noise = np.zeros_like(x)
    for c, (i, j, k) in zip(coefficients, powers, strict=True):
        noise += c * x_to[i] * y_to[j] * z_to[k]
    return (noise - at_sample.mean()) / at_sample.std()


def measured_compactness(blob: np.ndarray, step_mm: np.ndarray) -> float:
    """36 pi V^2 / S^3 of a shape in voxels, 1 for a sphere.

    The surface is the integral of the gradient norm of the smoothed shape (the mean area of its level sets),
    which is not biased by the faces of voxels.
    """
    around = ndimage.find_objects(blob.astype(np.uint8))[0]
    padded = np.pad(blob[around], 4).astype(np.float32)
    smooth = ndimage.gaussian_filter(padded, 1.0)
    gradient = np.gradient(smooth, *step_mm)
    surface = np.sqrt(sum(part**2 for part in gradient)).sum() * np.prod(step_mm)
    volume = blob.sum() * np.prod(step_mm)
    return float(36 * np.pi * volume**2 / surface**3)

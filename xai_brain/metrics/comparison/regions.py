"""Maps by atlas region."""

from __future__ import annotations

import numpy as np

from xai_brain.metrics.localization import ranked


def region_means(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a map in each region.

    Parameters
    ----------
    values : ndarray of shape (n_brain,)
    labels : int ndarray of shape (n_brain,)
        Region of each voxel of the brain; 0 is no region.

    Returns
    -------
    regions : int ndarray of shape (n_regions,)
        Indices that occur, in ascending order.
    means : ndarray of shape (n_regions,)
    """
    inside = labels != 0
    regions, of = np.unique(labels[inside], return_inverse=True)
    return regions, np.bincount(of, values[inside], len(regions)) / np.bincount(of, minlength=len(regions))


def region_place(values: np.ndarray, labels: np.ndarray, region: int, random_state: int = 0) -> int:
    """Rank of a region among all regions, 1 for the highest mean; equal means in random order.

    Parameters
    ----------
    values : ndarray of shape (n_brain,)
    labels : int ndarray of shape (n_brain,)
    region : int
        One of `labels`.
    random_state : int, default 0
    """
    regions, means = region_means(values, labels)
    return int(np.flatnonzero(regions[ranked(means, random_state)] == region)[0]) + 1


def chance_of_place(
    labels: np.ndarray, region: int, place: int, n_draws: int = 20_000, random_state: int = 0
) -> float:
    """Probability that a random map gives a region a rank of at most `place`.

    Means of independent values are nearly normal with a variance of 1 / n_voxels, so that small regions have
    the highest mean more often than large ones. For a large region among small ones the probability is
    close to 0, and a method that selects regions with equal probability exceeds it.

    Parameters
    ----------
    labels : int ndarray of shape (n_brain,)
    region : int
    place : int
        Rank, from 1.
    n_draws : int, default 20,000
        Number of random maps.
    random_state : int, default 0
    """
    regions, sizes = np.unique(labels[labels != 0], return_counts=True)
    means = np.random.default_rng(random_state).standard_normal((n_draws, len(regions))) / np.sqrt(sizes)
    its_own = means[:, regions == region]  # (n_draws, 1)
    return float(((means > its_own).sum(1) < place).mean())


def most_covered_region(true: np.ndarray, labels: np.ndarray) -> int:
    """The region of which the effect covers the largest part: the first region of a perfect map.

    Parameters
    ----------
    true : bool ndarray of shape (n_brain,)
    labels : int ndarray of shape (n_brain,)

    Raises
    ------
    ValueError
        No true voxel lies in a region.
    """
    if not labels[true].any():
        raise ValueError("labels: no true voxel lies in a region; give another atlas, or no labels")
    regions, covered = region_means(true.astype(float), labels)
    sizes = np.unique(labels[labels != 0], return_counts=True)[1]
    return int(regions[np.lexsort((sizes, covered))[-1]])  # of several, the largest

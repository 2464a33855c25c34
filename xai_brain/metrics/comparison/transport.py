"""Earth mover's distance of a map from the true location."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

MAX_BLOCKS = 8  # along each axis
ROUNDING = 1e-6  # above the tolerance of the solver


def brain_blocks(
    brain_mask: np.ndarray, voxel_size_mm: Sequence[float], max_blocks: int = MAX_BLOCKS
) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of nearly equal size that divide the box around the brain.

    Parameters
    ----------
    brain_mask : bool ndarray of shape (X, Y, Z)
    voxel_size_mm : sequence of 3 float
    max_blocks : int, default 8
        Maximum along each axis.

    Returns
    -------
    block_of : int ndarray of shape (n_brain,)
        Index of the block of each voxel of the brain.
    centers_mm : ndarray of shape (n_blocks, 3)
        Centre of mass of the brain voxels of each block; blocks without brain are excluded.
    """
    places = np.argwhere(brain_mask)
    low = places.min(0)
    extent = places.max(0) + 1 - low
    along = (places - low) * np.minimum(extent, max_blocks) // extent  # (n_brain, 3)
    _, block_of = np.unique(along, axis=0, return_inverse=True)
    block_of = block_of.reshape(-1)  # numpy 2.0 gave it a second axis
    sizes = np.bincount(block_of)
    centers = np.stack([np.bincount(block_of, axis) / sizes for axis in places.T], 1)
    return block_of, centers * np.asarray(voxel_size_mm, float)


def earth_movers_distance(a: np.ndarray, b: np.ndarray, centers_mm: np.ndarray) -> float:
    """Exact earth mover's distance in mm between two distributions.

    Parameters
    ----------
    a, b : ndarray of shape (n_blocks,)
        Non-negative, with sum 1.
    centers_mm : ndarray of shape (n_blocks, 3)
    """
    # mass that both have in a block stays there, by the triangle inequality
    excess = a - b
    sources, sinks = np.flatnonzero(excess > 1e-15), np.flatnonzero(excess < -1e-15)
    if not len(sources) or not len(sinks):
        return 0.0
    carried = excess[sources].sum()
    supply, demand = excess[sources] / carried, -excess[sinks]
    demand *= (1 + ROUNDING) / demand.sum()  # slightly more demand than supply: always feasible
    leaves = sparse.kron(sparse.eye(len(sources)), np.ones((1, len(sinks))))
    arrives = sparse.kron(np.ones((1, len(sources))), sparse.eye(len(sinks)))
    found = linprog(
        cdist(centers_mm[sources], centers_mm[sinks]).ravel(),
        A_eq=leaves.tocsc(),
        b_eq=supply,
        A_ub=arrives.tocsc(),
        b_ub=demand,
        method="highs-ds",
    )
    if found.status != 0:
        raise RuntimeError(f"the earth mover's distance was not found: {found.message}")
    return float(found.fun * carried)


def worst_distance(b: np.ndarray, centers_mm: np.ndarray) -> float:
    """Largest earth mover's distance in mm that any distribution on the blocks has from `b`, (n_blocks,).

    The distance is convex in the other distribution, so that its maximum is at a corner of the simplex, where
    all weight is in one block.
    """
    return float((cdist(centers_mm, centers_mm) @ b).max())

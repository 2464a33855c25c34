"""Permutation test of differences between classes in regions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CHUNK = 500  # permutations at a time, so that memory is small compared with the maps


def permutation_p(
    values: np.ndarray,
    first: np.ndarray,
    n_perm: int = 10_000,
    random_state: int = 0,
    *,
    blocks: np.ndarray | None = None,
) -> np.ndarray:
    """Two-sided p-value of the difference of two means within blocks, by permuted labels.

    Parameters
    ----------
    values : ndarray of shape (n_subjects, n_regions)
    first : ndarray of shape (n_subjects,), bool
        Whether each participant belongs to the first class.
    n_perm : int, default 10000
    random_state : int, default 0
    blocks : ndarray of shape (n_subjects,), optional
        Labels are permuted only within blocks; by default among all participants.

    Returns
    -------
    ndarray of shape (n_regions,)
        At least 1 / (n_perm + 1), because the observed labels are one of the permutations (Phipson & Smyth
        2010, Stat Appl Genet Mol Biol 9:39).
    """
    blocks = np.zeros(len(first), int) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    sizes = np.bincount(blocks)
    means = np.stack([values[blocks == block].mean(0) for block in range(len(sizes))])
    centred = values - means[blocks]  # its sum over the first class is a multiple of the difference
    observed = np.abs(first @ centred)
    tolerance = 1e-10 * np.abs(centred).sum(0)  # ties that differ by rounding
    hits = np.ones(values.shape[1])
    for labels in _permuted(first, blocks, n_perm, np.random.default_rng(random_state)):
        hits += (np.abs(labels @ centred) >= observed - tolerance).sum(0)
    return hits / (n_perm + 1)


def _permuted(
    first: np.ndarray, blocks: np.ndarray, n_perm: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Labels shuffled within blocks, in chunks of (n, n_subjects)."""
    home = np.argsort(blocks, kind="stable")
    for start in range(0, n_perm, CHUNK):
        n = min(CHUNK, n_perm - start)
        # random numbers below 1 order the subjects of a block; the block's number keeps them in it
        order = np.argsort(rng.random((n, len(first))) + blocks, axis=1)
        shuffled = np.empty((n, len(first)))
        shuffled[:, home] = first[order]
        yield shuffled

"""Regression of the values of regions on classes and confounds: permutation test and bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xai_brain.statistics.bootstrap import multinomial_counts
from xai_brain.statistics.group_design import Design

CHUNK = 500  # permutations at a time, so that memory is small compared with the maps


@dataclass(frozen=True)
class RegionTest:
    """Difference between two classes in every region, second minus first, adjusted for confounds.

    Parameters
    ----------
    difference : ndarray of shape (n_regions,)
        Coefficient of the class in ordinary least squares.
    t : ndarray of shape (n_regions,)
        Its t statistic; NaN for regions that are constant or follow from the confounds.
    p : ndarray of shape (n_regions,)
        Two-sided, uncorrected; at least 1 / (n_perm + 1).
    """

    difference: np.ndarray
    t: np.ndarray
    p: np.ndarray


def permutation_test(
    values: np.ndarray,
    design: Design,
    n_perm: int = 10_000,
    random_state: int = 0,
    *,
    blocks: np.ndarray | None = None,
) -> RegionTest:
    """Permutation test of the class coefficient in every region.

    The residuals of the regression on the confounds are permuted (Freedman-Lane), in the same way in all
    regions, and |t| is compared.

    Parameters
    ----------
    values : ndarray of shape (n_subjects, n_regions)
        In the order of the design.
    design : Design
    n_perm : int, default 10000
    random_state : int, default 0
    blocks : ndarray of shape (n_subjects,), optional
        Residuals are permuted only within blocks; by default among all participants.

    Returns
    -------
    RegionTest
        The observed order is one of the permutations (Phipson & Smyth 2010, Stat Appl Genet Mol Biol 9:39).

    References
    ----------
    Freedman & Lane 1983, J Bus Econ Stat 1:292. Winkler et al. 2014, NeuroImage 92:381.
    """
    n = len(design.tested)
    blocks = np.zeros(n, int) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    basis = np.linalg.qr(np.column_stack([np.ones(n), design.confounds]))[0]  # (n_subjects, n_columns)
    tested = design.tested - basis @ (basis.T @ design.tested)
    residuals = values - basis @ (basis.T @ values)
    size = (residuals**2).sum(0)
    varies = np.sqrt(size) > 1e-8 * np.linalg.norm(values, axis=0)
    size = np.where(varies, size, np.nan)
    norm = tested @ tested
    # squared partial correlation, an increasing function of |t|
    observed = (tested @ residuals) ** 2 / (norm * size)
    difference = tested @ residuals / norm
    t = np.sign(difference) * np.sqrt(observed * design.dof / np.maximum(1 - observed, 1e-300))

    rng = np.random.default_rng(random_state)
    home = np.argsort(blocks, kind="stable")
    hits = np.ones(values.shape[1])
    for start in range(0, n_perm, CHUNK):
        some = min(CHUNK, n_perm - start)
        # random numbers below 1 order the participants of a block; the number of the block keeps them in it
        order = np.empty((some, n), int)
        order[:, home] = np.argsort(rng.random((some, n)) + blocks, axis=1)
        explained = (tested[order] @ residuals) ** 2 / norm
        # permuted residuals are no longer orthogonal to the confounds
        rest = size - sum((column[order] @ residuals) ** 2 for column in basis.T)
        ratio = np.divide(explained, rest, out=np.full_like(explained, np.inf), where=rest > 1e-12 * size)
        hits += (ratio >= observed * (1 - 1e-9) - 1e-15).sum(0)
    return RegionTest(np.where(varies, difference, 0), t, np.where(varies, hits / (n_perm + 1), 1.0))


def bootstrap_differences(
    values: np.ndarray, design: Design, cells: np.ndarray, n_bootstrap: int, rng: np.random.Generator
) -> np.ndarray:
    """Class coefficients of participants that are drawn with replacement within cells.

    Parameters
    ----------
    values : ndarray of shape (n_subjects, n_regions)
    design : Design
    cells : ndarray of shape (n_subjects,)
        Combination of class and fold of each participant.
    n_bootstrap : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (n_bootstrap, n_regions)
        Weighted least squares with the counts of the draws as weights. Deviations from the estimate are
        multiplied by sqrt(n / (n - m)), with m the larger number of cells and of columns, because bootstrap
        samples underestimate the variance.
    """
    n = len(design.tested)
    columns = np.column_stack([design.tested, np.ones(n), design.confounds])
    counts = np.empty((n_bootstrap, n))
    names, cells = np.unique(cells, return_inverse=True)
    for cell in range(len(names)):
        own = np.flatnonzero(cells == cell)
        counts[:, own] = multinomial_counts(len(own), n_bootstrap, rng)
    moments = np.einsum("bn,ni,nj->bij", counts, columns, columns, optimize=True)
    # a level of a confound can be absent from a draw: the pseudoinverse then leaves it out
    first_row = np.linalg.pinv(moments, rcond=1e-10, hermitian=True)[:, 0]
    draws = (counts * (first_row @ columns.T)) @ values
    estimate = (np.linalg.pinv(columns)[0] @ values)[None]
    m = max(len(names), columns.shape[1])
    return estimate + (draws - estimate) * np.sqrt(n / max(n - m, 1))


def bootstrap_means(
    values: np.ndarray, blocks: np.ndarray, n_bootstrap: int, rng: np.random.Generator
) -> np.ndarray:
    """Means over participants that are drawn with replacement within blocks.

    Parameters
    ----------
    values : ndarray of shape (n_subjects, n_regions)
    blocks : ndarray of shape (n_subjects,)
    n_bootstrap : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (n_bootstrap, n_regions)
    """
    counts = np.empty((n_bootstrap, len(values)))
    for block in np.unique(blocks):
        own = np.flatnonzero(blocks == block)
        n = len(own)
        drawn = multinomial_counts(n, n_bootstrap, rng)
        # bootstrap samples underestimate the variance by (n - 1) / n
        counts[:, own] = 1 + (drawn - 1) * np.sqrt(n / max(n - 1, 1))
    return counts @ values / len(values)

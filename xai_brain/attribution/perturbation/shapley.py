"""Shapley values by weighted least squares over sets of players (KernelSHAP)."""

from __future__ import annotations

import math
from itertools import product

import torch


def draw_coalitions(n_players: int, n_samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sets of players, neither empty nor complete, and their weights in the least squares.

    All sets, if there are not more than `n_samples`; otherwise random sets, each with its complement, whose
    sizes are drawn so that they have equal weights. At least eight for each player are drawn, because the
    values are not determined by much fewer.

    Parameters
    ----------
    n_players, n_samples, seed : int

    Returns
    -------
    sets : bool Tensor of shape (n, n_players)
    weights : float64 Tensor of shape (n,)
        Of the Shapley kernel (n_players - 1) / (binomial(n_players, k) k (n_players - k)) for sets of size k.
    """
    sizes = torch.arange(1, n_players)
    n_samples = max(n_samples, 8 * n_players)
    if 2**n_players - 2 <= n_samples:
        every = list(product([False, True], repeat=n_players))[1:-1]
        sets = torch.tensor(every, dtype=torch.bool).view(-1, n_players)
        kernel = [(n_players - 1) / (math.comb(n_players, k) * k * (n_players - k)) for k in sizes.tolist()]
        return sets, torch.tensor(kernel, dtype=torch.float64)[sets.sum(1) - 1]
    generator = torch.Generator().manual_seed(seed)
    n_pairs = math.ceil(n_samples / 2)
    drawn = torch.multinomial(1 / (sizes * (n_players - sizes)), n_pairs, True, generator=generator) + 1
    order = torch.rand(n_pairs, n_players, generator=generator).argsort(1)
    sets = torch.zeros(n_pairs, n_players, dtype=torch.bool)
    sets.scatter_(1, order, torch.arange(n_players) < drawn[:, None])
    return torch.cat([sets, ~sets]), torch.ones(2 * n_pairs, dtype=torch.float64)


def shapley_values(
    sets: torch.Tensor, weights: torch.Tensor, values: torch.Tensor, total: torch.Tensor
) -> torch.Tensor:
    """Weights of the players in the linear function nearest to the values of the sets, (n_players,).

    The function is 0 for the empty set and has the correct value for the complete set.

    Parameters
    ----------
    sets : bool Tensor of shape (n, n_players)
    weights, values : float64 Tensor of shape (n,)
    total : float64 Tensor of shape (1,)
        Value of the complete set.
    """
    z, one = sets.double(), torch.ones(sets.shape[1], 1, dtype=torch.float64)
    weights = weights / weights.sum().clamp_min(1e-300)
    # normal equations with a Lagrange multiplier for the sum
    matrix = torch.cat([torch.cat([(z.T * weights) @ z, one], 1), torch.cat([one.T, torch.zeros(1, 1)], 1)])
    right = torch.cat([(z.T * weights) @ values, total])
    return torch.linalg.lstsq(matrix, right[:, None], driver="gelsd").solution[:-1, 0]

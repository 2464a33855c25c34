"""Adam for many coarse masks at once, on tensors only: nothing is transferred to the host."""

from __future__ import annotations

import copy
import math

import torch

BETAS, EPSILON = (0.9, 0.99), 1e-8
STATE = ("values", "mean", "square", "largest", "iterations")


def cosine_rates(lr: float, n_iter: int) -> torch.Tensor:
    """Learning rates of all iterations, (n_iter,), that fall from `lr` to 0 as a cosine."""
    return lr * (1 + torch.cos(torch.arange(n_iter, dtype=torch.float64) * math.pi / n_iter)) / 2


class MaskDescent:
    """Coarse masks that are optimised by Adam; each of them counts its own iterations.

    Parameters
    ----------
    start : Tensor of shape (K, 1, X', Y', Z')
    rates : Tensor of shape (n_iter,)
        Learning rate of every iteration.
    amsgrad : bool, default False
    bounded : bool, default True
        Values are kept in [0, 1].

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    def __init__(self, start: torch.Tensor, rates: torch.Tensor, amsgrad: bool = False, bounded: bool = True):
        self.values, self.amsgrad, self.bounded = start.clone(), amsgrad, bounded
        self.mean, self.square, self.largest = (torch.zeros_like(start) for _ in range(3))
        self.iterations = torch.zeros(len(start), dtype=torch.long, device=start.device)
        t = torch.arange(1, len(rates) + 1, dtype=torch.float64)
        self.step_sizes = (rates.double() / (1 - BETAS[0] ** t)).to(start)
        self.corrections = (1 - BETAS[1] ** t).sqrt().to(start)

    @property
    def position(self) -> torch.Tensor:
        """Number of the current iteration of every mask, from 0, (K,)."""
        return self.iterations.clamp_max(len(self.step_sizes) - 1)

    @torch.no_grad()
    def step(self, gradient: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """Do one iteration of the active masks.

        Parameters
        ----------
        gradient : Tensor of shape (K, 1, X', Y', Z')
        active : bool Tensor of shape (K,)

        Returns
        -------
        Tensor of shape (K,)
            Largest change of a value of every mask.
        """
        size, correction = (
            each[self.position].view(-1, 1, 1, 1, 1) for each in (self.step_sizes, self.corrections)
        )
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        square = self.square
        if self.amsgrad:
            square = torch.maximum(self.largest, self.square, out=self.largest)
        values = self.values - size * self.mean / (square.sqrt() / correction + EPSILON)
        values = values.clamp_(0, 1) if self.bounded else values
        values = torch.where(active.view(-1, 1, 1, 1, 1), values, self.values)
        change = (values - self.values).abs().amax((1, 2, 3, 4))
        self.values.copy_(values)
        self.iterations += active
        return change

    def select(self, rows: torch.Tensor) -> MaskDescent:
        """Some of the masks, in tensors of their own."""
        part = copy.copy(self)
        for name in STATE:
            setattr(part, name, getattr(self, name)[rows])
        return part

    def replace(self, rows: torch.Tensor, other: MaskDescent) -> None:
        """Copy other masks, in their present state, into some of the rows."""
        for name in STATE:
            getattr(self, name)[rows] = getattr(other, name)

"""Optimisation of many masks in a fixed number of slots.

A participant whose mask has come to rest leaves its slot to the next one. Nothing is transferred to the host
but, every few iterations, which masks are done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch

from xai_brain.attribution.perturbation.mask_descent import MaskDescent
from xai_brain.attribution.perturbation.repeated_step import RepeatedStep

PATIENCE = 3  # iterations without change before a mask is done
# iterations between two looks at which masks are done: on CPUs looking costs nothing
LOOK_INTERVAL = {"cpu": 1}
DEFAULT_LOOK_INTERVAL = 5
# largest share of slots in use at which the others are given up: on other devices this costs a new graph
SHRINK_AT = {"cpu": 1.0}
DEFAULT_SHRINK_AT = 0.5
FREE = -1  # owner of a slot without a participant


@dataclass(frozen=True)
class MaskBatch:
    """What the objective of K masks depends on. All tensors have K rows, a shared brain has one.

    Parameters
    ----------
    images : Tensor of shape (K, C, X, Y, Z)
    fills : Tensor of shape (K, n_fills, C, X, Y, Z)
    targets : Tensor of shape (K,)
    scale : Tensor of shape (K, 2)
        Centre and width of the scores of the target, see `ScoreScale`.
    brain : Tensor of shape (1 or K, 1, X, Y, Z)
        Where the mask acts.
    """

    images: torch.Tensor
    fills: torch.Tensor
    targets: torch.Tensor
    scale: torch.Tensor
    brain: torch.Tensor
    shared_brain: bool

    def select(self, rows: torch.Tensor) -> MaskBatch:
        """The rows in tensors of their own."""
        brain = self.brain if self.shared_brain else self.brain[rows]
        images, fills, targets, scale = (
            each[rows] for each in (self.images, self.fills, self.targets, self.scale)
        )
        return MaskBatch(images, fills, targets, scale, brain, self.shared_brain)

    def replace(self, rows: torch.Tensor, other: MaskBatch) -> None:
        """Copy another batch into some of the rows."""
        self.images[rows], self.fills[rows] = other.images, other.fills
        self.targets[rows], self.scale[rows] = other.targets, other.scale
        if not self.shared_brain:
            self.brain[rows] = other.brain


# gives objective (K,) and gradient (K, 1, X', Y', Z') of coarse masks (K, 1, X', Y', Z') at their iterations
Objective = Callable[[torch.Tensor, MaskBatch, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class MaskState:
    """Masks during their optimisation.

    Parameters
    ----------
    batch : MaskBatch
        Of K masks; or, with `subjects`, of all participants who share one mask.
    descent : MaskDescent
    objective : function of (coarse masks, batch, iterations)
    tolerance : float
        A mask none of whose coarse values changes by more, `PATIENCE` times in a row, is done.
    subjects : int Tensor of shape (n_iter, R), optional
        Participants of every iteration of a shared mask.
    """

    def __init__(
        self,
        batch: MaskBatch,
        descent: MaskDescent,
        objective: Objective,
        tolerance: float,
        subjects: torch.Tensor | None = None,
    ):
        self.batch, self.descent, self.objective, self.tolerance = batch, descent, objective, tolerance
        self.subjects = subjects
        n_masks, device = len(descent.values), descent.values.device
        self.quiet = torch.zeros(n_masks, dtype=torch.long, device=device)
        self.objectives = torch.zeros(n_masks, len(descent.step_sizes), device=device)

    @property
    def converged(self) -> torch.Tensor:
        return self.quiet >= PATIENCE

    @property
    def done(self) -> torch.Tensor:
        return self.converged | (self.descent.iterations >= len(self.descent.step_sizes))

    def iterate(self) -> None:
        """Do one iteration of all masks that are not done."""
        active, position = ~self.done, self.descent.position
        batch = self.batch if self.subjects is None else self.batch.select(self.subjects[position][0])
        objective, gradient = self.objective(self.descent.values, batch, position)
        old = self.objectives.gather(1, position[:, None])[:, 0]
        self.objectives.scatter_(1, position[:, None], torch.where(active, objective, old)[:, None])
        change = self.descent.step(gradient, active)
        quiet = torch.where(change < self.tolerance, self.quiet + 1, 0)
        self.quiet.copy_(torch.where(active, quiet, self.quiet))

    def select(self, rows: torch.Tensor) -> MaskState:
        """Some of the masks, in tensors of their own."""
        part = MaskState(self.batch.select(rows), self.descent.select(rows), self.objective, self.tolerance)
        part.quiet, part.objectives = self.quiet[rows], self.objectives[rows]
        return part

    def restart(self, rows: torch.Tensor, batch: MaskBatch, descent: MaskDescent) -> None:
        """Replace some of the masks by those of other participants."""
        self.batch.replace(rows, batch)
        self.descent.replace(rows, descent)
        self.quiet[rows] = 0
        self.objectives[rows] = 0


class OptimizedMasks:
    """Masks of n participants at the end of their optimisation.

    Parameters
    ----------
    n : int
    like : MaskState
        Of masks of the same shape and number of iterations.

    Attributes
    ----------
    coarse : Tensor of shape (n, 1, X', Y', Z')
    objectives : Tensor of shape (n, n_iter)
        Of all iterations; those after the last one are 0.
    iterations, converged : Tensor of shape (n,)
    """

    def __init__(self, n: int, like: MaskState):
        self.coarse, self.objectives, self.iterations, self.converged = (
            each.new_zeros(n, *each.shape[1:]) for each in self._of(like)
        )

    @staticmethod
    def _of(state: MaskState) -> tuple[torch.Tensor, ...]:
        return state.descent.values, state.objectives, state.descent.iterations, state.converged

    def put(self, participants: torch.Tensor, state: MaskState, rows: torch.Tensor) -> None:
        """Copy rows of a state to these participants."""
        mine = (self.coarse, self.objectives, self.iterations, self.converged)
        for all_values, values in zip(mine, self._of(state), strict=True):
            all_values[participants] = values[rows]

    def histories(self) -> list[tuple[list[float], str]]:
        """For each participant the objective of every iteration, and why it was the last."""
        columns = (self.objectives.tolist(), self.iterations.tolist(), self.converged.tolist())
        return [
            (values[:used], "converged" if converged else "n_iter")
            for values, used, converged in zip(*columns, strict=True)
        ]


def optimize_masks(
    n: int,
    n_slots: int,
    load: Callable[[torch.Tensor], MaskBatch],
    descent: Callable[[int], MaskDescent],
    objective: Objective,
    tolerance: float,
    report: Callable[[int], object] = lambda n_done: None,
) -> OptimizedMasks:
    """Optimise one mask for each of n participants; the result does not depend on the number of slots.

    Parameters
    ----------
    n, n_slots : int
        Number of participants, and of those that are optimised together.
    load : function of an int Tensor of participants that returns their MaskBatch
    descent : function of a number of masks that returns their MaskDescent before the first iteration
    objective, tolerance
        See `MaskState`.
    report : function, optional
        Is given the number of participants that have just been done.
    """
    owners = list(range(min(n, n_slots)))  # participant of every slot
    waiting = deque(range(len(owners), n))
    state = MaskState(load(torch.tensor(owners)), descent(len(owners)), objective, tolerance)
    found, device = OptimizedMasks(n, state), state.quiet.device
    step = RepeatedStep(state.iterate, device)
    while any(owner != FREE for owner in owners):
        for _ in range(LOOK_INTERVAL.get(device.type, DEFAULT_LOOK_INTERVAL)):
            step()
        done = state.done.tolist()  # the only transfer to the host
        finished = [k for k, owner in enumerate(owners) if done[k] and owner != FREE]
        if not finished:
            continue
        rows = torch.tensor(finished, device=device)
        found.put(torch.tensor([owners[k] for k in finished], device=device), state, rows)
        report(len(finished))
        following = [waiting.popleft() for _ in range(min(len(finished), len(waiting)))]
        if following:
            state.restart(rows[: len(following)], load(torch.tensor(following)), descent(len(following)))
        for k in finished:
            owners[k] = following.pop(0) if following else FREE
        kept = [k for k, owner in enumerate(owners) if owner != FREE]
        if kept and len(kept) < len(owners) and len(kept) <= _shrink_at(device) * len(owners):
            state, owners = state.select(torch.tensor(kept, device=device)), [owners[k] for k in kept]
            step = RepeatedStep(state.iterate, device)
    return found


def optimize_shared_mask(state: MaskState) -> OptimizedMasks:
    """Optimise the only mask of a state with `subjects`."""
    device = state.quiet.device
    step = RepeatedStep(state.iterate, device)
    while not bool(state.done):
        for _ in range(LOOK_INTERVAL.get(device.type, DEFAULT_LOOK_INTERVAL)):
            step()
    found, first = OptimizedMasks(1, state), torch.zeros(1, dtype=torch.long, device=device)
    found.put(first, state, first)
    return found


def _shrink_at(device: torch.device) -> float:
    return SHRINK_AT.get(device.type, DEFAULT_SHRINK_AT)

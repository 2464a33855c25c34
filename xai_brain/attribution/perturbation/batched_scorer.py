"""Scores of many perturbed volumes and their gradients with respect to the masks, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from xai_brain.attribution.memory import Chunks, volumes_that_fit
from xai_brain.attribution.model_state import AttributionError, preserved
from xai_brain.attribution.outputs import select_outputs
from xai_brain.attribution.perturbation.eval_copy import eval_copy
from xai_brain.attribution.perturbation.replacement import kan2020_blur
from xai_brain.attribution.reduced_precision import reliable_precision


class BatchedScorer:
    """Runs a model on volumes in which masks replace tissue.

    Parameters
    ----------
    model : torch.nn.Module
        Returns (N, n_classes).
    chunk_size : int, optional
        Volumes in one forward and backward pass; default: what fits into half of the free memory. It is
        halved when the memory is out nevertheless.
    precision : {"float32", "bfloat16"}, default "float32"
        Precision of the network's arithmetic, if it is correct there (see `reliable_precision`); masks are
        always float32.
    """

    def __init__(self, model: nn.Module, chunk_size: int | None = None, precision: str = "float32"):
        if precision not in ("float32", "bfloat16"):
            raise AttributionError(f"precision={precision!r}: one of float32, bfloat16")
        self.model, self.chunk_size, self.precision = model, chunk_size, precision
        self.network, self.chunks, self._autocast = model, Chunks(chunk_size or 1), False

    @contextmanager
    def prepared(self, inputs: torch.Tensor) -> Iterator[None]:
        """Score inside: on the fast copy of the model and with a chunk that fits; the model stays as it is.

        Parameters
        ----------
        inputs : Tensor of shape (N, 1, X, Y, Z)
            Volumes like those to be scored.
        """
        with preserved(self.model):
            self.network = eval_copy(self.model, inputs)
            self.chunks = Chunks(self.chunk_size or volumes_that_fit(self.network, inputs[:1]))
            size = self.chunks.size
            with reliable_precision(self.model, self.network, inputs[:1], size, self.precision) as autocast:
                self._autocast = autocast
                try:
                    yield
                finally:
                    self.network, self._autocast = self.model, False

    def scores(self, volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Output for the targets, (N,), without gradients."""
        scores = torch.empty(len(volumes), device=volumes.device)

        def run(rows: slice) -> None:
            with torch.no_grad():
                scores[rows] = self._score(volumes[rows], targets[rows])

        self.chunks.run(len(volumes), run)
        return scores

    def gradient(self, volumes: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Gradient of the output for one class with respect to volumes, (N, 1, X, Y, Z), in one pass."""
        volumes = volumes.detach().requires_grad_()
        scores = self._score(volumes, target.expand(len(volumes)))
        return torch.autograd.grad(scores.sum(), volumes)[0]

    def gradients(
        self,
        images: torch.Tensor,
        fills: torch.Tensor,
        replaced: torch.Tensor,
        targets: torch.Tensor,
        shifts: torch.Tensor | None = None,
        floor: float | None = None,
        moving: str = "volume",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of ``images + replaced (fills - images)``.

        Parameters
        ----------
        images, fills, replaced : Tensor of shape (N, 1, X, Y, Z)
        targets : Tensor of shape (N,)
        shifts : int Tensor of shape (S, 3), optional
            Moves by so many voxels along each axis; the score is the mean over them. Default: none.
        floor : float, optional
            Only what of the score lies above it counts.
        moving : {"volume", "image"}, default "volume"
            ``volume``: the perturbed volume moves with its mask, edges are replicated. ``image``: as
            published, the image moves and the mask does not, zeros come in, and the fill is the blur of the
            moved image (`kan2020_blur`), so that `fills` is not used.

        Returns
        -------
        scores : Tensor of shape (N,)
        gradients : Tensor of shape (N, 1, X, Y, Z)
            Of the scores with respect to `replaced`.
        """
        n_shifts = 1 if shifts is None else len(shifts)
        subjects = torch.arange(len(images), device=images.device).repeat_interleave(n_shifts)
        scores, gradients = torch.zeros(len(images), device=images.device), torch.zeros_like(images)

        def run(rows: slice) -> None:
            of = subjects[rows]
            mask = replaced[of].detach().requires_grad_()
            by = None if shifts is None else shifts[torch.arange(rows.start, rows.stop) % n_shifts]
            if by is not None and moving == "image":
                image = moved(images[of], by, "constant")
                fill = kan2020_blur(image)
            else:
                image, fill = images[of], fills[of]
            volumes = torch.lerp(image, fill, mask)
            if by is not None and moving == "volume":
                volumes = moved(volumes, by)
            score = self._score(volumes, targets[of])
            score = score if floor is None else (score - floor).clamp_min(0)
            (gradient,) = torch.autograd.grad(score.sum(), mask)
            scores.index_add_(0, of, score.detach() / n_shifts)
            gradients.index_add_(0, of, gradient / n_shifts)

        self.chunks.run(len(subjects), run)
        return scores, gradients

    def _score(self, volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(volumes.device.type, torch.bfloat16, enabled=self._autocast):
            outputs = self.network(volumes)
        return select_outputs(outputs, targets).float()


def moved(volumes: torch.Tensor, shifts: torch.Tensor, mode: str = "replicate") -> torch.Tensor:
    """Volumes moved by whole voxels.

    Parameters
    ----------
    volumes : Tensor of shape (N, 1, X, Y, Z)
    shifts : int Tensor of shape (N, 3)
        Positive moves the content to higher indices.
    mode : {"replicate", "constant"}, default "replicate"
        What comes in from outside: the edge repeated, or 0.
    """
    most = int(shifts.abs().max())
    if most == 0:
        return volumes
    padded = nn.functional.pad(volumes, [most] * 6, mode=mode)
    for axis in range(3):
        padded = torch.cat(
            [
                volume.narrow(axis + 1, most - int(shift), volumes.shape[axis + 2])[None]
                for volume, shift in zip(padded, shifts[:, axis], strict=True)
            ]
        )
    return padded

"""Scores of many perturbed volumes and their gradients with respect to the masks, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from xai_brain.attribution.memory import Chunks, volumes_that_fit
from xai_brain.attribution.model_state import AttributionError, preserved
from xai_brain.attribution.outputs import check_outputs, check_targets, select_outputs
from xai_brain.attribution.perturbation.eval_copy import eval_copy
from xai_brain.attribution.perturbation.memory_layout import use_faster_layout
from xai_brain.attribution.perturbation.replacement import kan2020_blur
from xai_brain.attribution.reduced_precision import reliable_precision

MAX_TIMED = 32  # volumes with which the layout is chosen


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
    def prepared(self, inputs: torch.Tensor, targets: torch.Tensor | None = None) -> Iterator[None]:
        """Score inside: on the fast copy of the model and with a chunk that fits; the model stays as it is.

        Parameters
        ----------
        inputs : Tensor of shape (N, C, X, Y, Z)
            Volumes like those to be scored.
        targets : Tensor of shape (N,), optional
            Targets of gradients, which are checked here, because checking them in every pass would make the
            device wait for the host.
        """
        with preserved(self.model):
            self.network = eval_copy(self.model, inputs)
            self.chunks = Chunks(self.chunk_size or volumes_that_fit(self.network, inputs[:1]))
            size = self.chunks.size
            use_faster_layout(self.model, self.network, inputs[: min(size, MAX_TIMED)])
            with reliable_precision(self.model, self.network, inputs[:1], size, self.precision) as autocast:
                self._autocast = autocast
                if targets is not None:
                    with torch.no_grad():
                        check_targets(targets, check_outputs(self._outputs(inputs[:1])).shape[1])
                try:
                    yield
                finally:
                    self.network, self._autocast = self.model, False

    def scores(self, volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Output for the targets, (N,), without gradients."""
        scores = torch.empty(len(volumes), device=volumes.device)

        def run(rows: slice) -> None:
            with torch.no_grad():
                scores[rows] = select_outputs(self._outputs(volumes[rows]), targets[rows]).float()

        self.chunks.run(len(volumes), run)
        return scores

    def gradient(self, volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradient of the outputs for targets that `prepared` has checked, (N, C, X, Y, Z), in one pass.

        Parameters
        ----------
        volumes : Tensor of shape (N, C, X, Y, Z)
        targets : Tensor of shape (N,)
        """
        volumes = volumes.detach().requires_grad_()
        return torch.autograd.grad(self._score(volumes, targets).sum(), volumes)[0]

    def sum_over_points(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        n_points: int,
        point: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        weigh: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Weighted sums of gradients at several points for each volume, (N, C, X, Y, Z).

        The points of all volumes fill the passes together.

        Parameters
        ----------
        inputs : Tensor of shape (N, C, X, Y, Z)
        targets : Tensor of shape (N,)
            See `gradient`.
        n_points : int
        point : function of (volumes, points)
            Both are index tensors of shape (M,); returns the points, (M, C, X, Y, Z).
        weigh : function of (gradients, volumes, points)
        """
        total = torch.zeros_like(inputs)

        def add(rows: slice) -> None:
            number = torch.arange(rows.start, rows.stop, device=inputs.device)
            of, k = number // n_points, number % n_points
            gradients = self.gradient(point(of, k), targets[of])
            total.index_add_(0, of, weigh(gradients, of, k))

        self.chunks.run(len(inputs) * n_points, add)
        return total

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
        """Scores of ``images + replaced (fills - images)``, for targets that `prepared` has checked.

        Parameters
        ----------
        images, fills : Tensor of shape (N, C, X, Y, Z)
        replaced : Tensor of shape (N, 1, X, Y, Z)
        targets : Tensor of shape (N,)
        shifts : int Tensor of shape (N, S, 3), optional
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
        n_shifts = 1 if shifts is None else shifts.shape[1]
        scores, gradients = torch.zeros(len(images), device=images.device), torch.zeros_like(replaced)

        def run(rows: slice) -> None:
            of: slice | torch.Tensor = rows
            if n_shifts > 1:
                of = torch.arange(rows.start, rows.stop, device=images.device) // n_shifts
            mask = replaced[of].detach().requires_grad_()
            by = None if shifts is None else shifts.reshape(-1, 3)[rows]
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
            if isinstance(of, slice):
                scores[of], gradients[of] = score.detach(), gradient
            else:
                scores.index_add_(0, of, score.detach() / n_shifts)
                gradients.index_add_(0, of, gradient / n_shifts)

        self.chunks.run(len(images) * n_shifts, run)
        return scores, gradients

    def _score(self, volumes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._outputs(volumes).gather(1, targets[:, None])[:, 0].float()

    def _outputs(self, volumes: torch.Tensor) -> torch.Tensor:
        # without the cache of converted weights, which cannot be kept in a CUDA graph
        with torch.autocast(volumes.device.type, torch.bfloat16, enabled=self._autocast, cache_enabled=False):
            outputs: torch.Tensor = self.network(volumes)
        return outputs


def moved(volumes: torch.Tensor, shifts: torch.Tensor, mode: str = "replicate") -> torch.Tensor:
    """Volumes moved by whole voxels.

    Parameters
    ----------
    volumes : Tensor of shape (N, C, X, Y, Z)
    shifts : int Tensor of shape (N, 3)
        Positive moves the content to higher indices.
    mode : {"replicate", "constant"}, default "replicate"
        What comes in from outside: the edge repeated, or 0.

    Notes
    -----
    A product with a matrix of zeros and ones for each axis, which is exact: its number of operations does not
    depend on the number of volumes, and the backward pass adds in a fixed order.
    """
    n, c, x, y, z = volumes.shape
    to_x, to_y, to_z = (
        _selection(size, by, mode, volumes) for size, by in zip((x, y, z), shifts.unbind(1), strict=True)
    )
    volumes = volumes.reshape(n, c * x * y, z) @ to_z.mT
    volumes = to_y[:, None] @ volumes.view(n, c * x, y, z)
    return (to_x[:, None] @ volumes.reshape(n, c, x, y * z)).view(n, c, x, y, z)


def _selection(size: int, shifts: torch.Tensor, mode: str, like: torch.Tensor) -> torch.Tensor:
    """Matrices (N, size, size) with a 1 where a new voxel (row) takes its value from an old one (column)."""
    places = torch.arange(size, device=like.device)
    sources = places - shifts.to(like.device)[:, None]  # (N, size)
    if mode == "replicate":
        sources = sources.clamp(0, size - 1)
    return (sources[:, :, None] == places).to(like)

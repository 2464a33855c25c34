"""Scores without limits, on a scale on which a mask can reach its aim."""

from __future__ import annotations

import math

import torch

from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.reference import Reference

TYPICAL = 0.95  # value of the mean score of the target's own class; that of the other classes is 1 - TYPICAL
LOGIT_OF_TYPICAL = math.log(TYPICAL / (1 - TYPICAL))


class ScoreScale:
    """Logistic scale of logits, on which they resemble probabilities.

    A logit can always become smaller, so that a mask that minimises it grows over the brain. On this scale
    the score of typical participants of other classes is 0.05, and less gains little: replacing more tissue
    than necessary for it does not pay. The mean score of the target's own class is 0.95. Both means are those
    of the volumes of the reference. Without a reference, the score of the image is 0.95, and that of the
    image with all tissue replaced is 0.05.

    Parameters
    ----------
    engine : BatchedScorer
    reference : Reference, optional
        Needed by `of`.
    """

    def __init__(self, engine: BatchedScorer, reference: Reference | None):
        self.engine, self.reference = engine, reference
        self.known: dict[int, tuple[float, float]] = {}

    def of(self, targets: torch.Tensor) -> torch.Tensor:
        """Centre and width for every target, (N, 2); the engine is prepared."""
        for k in set(targets.tolist()) - set(self.known):
            self.known[k] = self._of_class(k, targets.device)
        return torch.tensor([self.known[k] for k in targets.tolist()], device=targets.device)

    def of_images(self, images: torch.Tensor, replaced: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Centre and width from the images themselves and from images without tissue, (N, 2)."""
        before, after = self.engine.scores(images, targets), self.engine.scores(replaced, targets)
        # a replacement that does not lower the score gives no scale; the size of the change is the unit then
        spread = (before - after).abs().clamp_min(1e-6)
        return torch.stack([before - spread / 2, spread / (2 * LOGIT_OF_TYPICAL)], 1)

    @torch.no_grad()
    def _of_class(self, k: int, device: torch.device) -> tuple[float, float]:
        assert self.reference is not None
        volumes, own = self.reference.volumes.to(device), self.reference.targets.to(device) == k
        scores = self.engine.scores(volumes, torch.full((len(volumes),), k, device=device))
        spread = max(float(scores.std()), 1e-6)
        if own.all() or not own.any():
            return float(scores.mean()), 2 * spread / (2 * LOGIT_OF_TYPICAL)
        mean, mean_of_others = float(scores[own].mean()), float(scores[~own].mean())
        # a network that does not separate the classes has no typical scores; its spread is the unit then
        difference = max(mean - mean_of_others, spread)
        return (mean + mean_of_others) / 2, difference / (2 * LOGIT_OF_TYPICAL)


def on_scale(
    score: torch.Tensor, gradient: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (N,) and their gradients (N, 1, X, Y, Z) on logistic scales (N, 2)."""
    value = ((score - scale[:, 0]) / scale[:, 1]).sigmoid()
    slope = value * (1 - value) / scale[:, 1]
    return value, gradient * slope.view(-1, 1, 1, 1, 1)

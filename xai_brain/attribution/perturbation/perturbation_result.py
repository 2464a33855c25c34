"""What a perturbation mask turned out to be, and whether it holds under another perturbation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from xai_brain.attribution.perturbation.batched_scorer import BatchedScorer
from xai_brain.attribution.perturbation.masks import mean_and_sd_in, mean_in

NOISE = 0.1  # of the check, in standard deviations of the brain
MEASURED = ("score_before", "score_after", "score_preserved", "score_after_other_fill", "area", "saturation")


@dataclass(frozen=True)
class PerturbationResult:
    """What the optimisation found for one subject, or for one group.

    Parameters
    ----------
    mask : Tensor of shape (1, X, Y, Z)
        The applied perturbation mask: 1 keeps a voxel, 0 replaces it.
    score_before, score_after : float
        Output for the class explained: of the image, and of the image with the tissue of the mask replaced.
    score_preserved : float
        The same when everything but that tissue is replaced.
    score_after_other_fill : float
        As `score_after`, with the mean of the brain as the fill, and with fresh noise. A mask that fools the
        network fails here.
    area : float
        Mean of 1 - mask in the brain.
    saturation : float
        Share of the brain where the mask is above 0.95 or below 0.05.
    objective : list of float
        Of every iteration.
    stop_reason : {"converged", "n_iter"}
        The mask came to rest, or the iterations were used up.
    scale : (float, float), optional
        Centre and width of the logistic scale of scores that are not probabilities, see `ScoreScale`.
    """

    mask: torch.Tensor
    score_before: float
    score_after: float
    score_preserved: float
    score_after_other_fill: float
    area: float
    saturation: float
    objective: list[float]
    stop_reason: str
    scale: tuple[float, float] | None = None

    @property
    def evidence(self) -> torch.Tensor:
        """1 - mask, (1, X, Y, Z)."""
        return 1 - self.mask

    @property
    def n_iter(self) -> int:
        """Iterations used."""
        return len(self.objective)

    def details(self) -> dict[str, Any]:
        """For the sidecar of a map."""
        return {
            "ScoreBefore": self.score_before,
            "ScoreAfter": self.score_after,
            "ScorePreserved": self.score_preserved,
            "ScoreAfterOtherFill": self.score_after_other_fill,
            "Area": self.area,
            "Saturation": self.saturation,
            "Iterations": self.n_iter,
            "StopReason": self.stop_reason,
            **({"ScoreCentre": self.scale[0], "ScoreWidth": self.scale[1]} if self.scale else {}),
        }


def check_masks(
    engine: BatchedScorer,
    images: torch.Tensor,
    fills: torch.Tensor,
    evidence: torch.Tensor,
    targets: torch.Tensor,
    brain: torch.Tensor,
    generator: torch.Generator,
) -> list[dict[str, float]]:
    """Scores and area of every mask: the fields of `PerturbationResult` that are measured at the end.

    Parameters
    ----------
    engine : BatchedScorer
        Prepared.
    images, fills, evidence : Tensor of shape (N, 1, X, Y, Z)
        `evidence` is 1 - mask.
    targets : Tensor of shape (N,)
    brain : Tensor of shape (1 or N, 1, X, Y, Z)
    generator : torch.Generator
        On the CPU; for the noise.
    """
    inside = brain.expand_as(images)
    mean, sd = mean_and_sd_in(images, brain)
    noise = NOISE * sd * inside * torch.randn(images.shape[1:], generator=generator).to(images)
    other = torch.where(inside > 0, mean, images)
    extreme = ((evidence < 0.05) | (evidence > 0.95)).to(images)
    measured = {
        "score_before": engine.scores(images, targets),
        "score_after": engine.scores(torch.lerp(images, fills, evidence), targets),
        "score_preserved": engine.scores(torch.lerp(fills, images, evidence), targets),
        "score_after_other_fill": engine.scores(torch.lerp(images, other, evidence) + noise, targets),
        "area": mean_in(evidence, brain),
        "saturation": mean_in(extreme, brain),
    }
    columns = {name: values.tolist() for name, values in measured.items()}
    return [{name: columns[name][i] for name in MEASURED} for i in range(len(images))]

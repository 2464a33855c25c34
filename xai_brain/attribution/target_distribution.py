"""A continuous target over the training participants: images at both ends, correlation with every voxel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from xai_brain.attribution.model_state import AttributionError

WIDTH_SD = 0.5  # width of the logistic scale of scores, in standard deviations of the target


@dataclass(frozen=True)
class TargetDistribution:
    """What is known of a continuous target from the training participants of a fold.

    Parameters
    ----------
    low_mean, high_mean : Tensor of shape (1, X, Y, Z)
        Mean volume of the quarter of the training images with the lowest, and with the highest targets.
    correlation : Tensor of shape (1, X, Y, Z)
        Pearson's r of intensity and target over the training images; 0 where nothing varies.
    low, high : float
        Mean targets of both quarters.
    median, sd : float
        Of the targets of the training images.
    predict : callable(inputs) -> Tensor of shape (N, 1), optional
        The network that is explained, which returns the number in its unit. Its prediction decides which end
        is the opposite one.
    """

    low_mean: torch.Tensor
    high_mean: torch.Tensor
    correlation: torch.Tensor
    low: float
    high: float
    median: float
    sd: float
    predict: Callable[[torch.Tensor], torch.Tensor] | None = None

    def of_network(self, predict: Callable[[torch.Tensor], torch.Tensor]) -> TargetDistribution:
        """The same distribution for the predictions of a network."""
        return replace(self, predict=predict)

    def predictions(self, inputs: torch.Tensor) -> torch.Tensor:
        """Predicted numbers of inputs (N, C, X, Y, Z), (N,)."""
        if self.predict is None:
            raise AttributionError(
                "the opposite end of the target depends on the prediction, and the reference has no network; "
                "use reference.of_network(network), or fill=blur, zero or training_mean"
            )
        with torch.no_grad():
            return self.predict(inputs)[:, 0]

    def opposite_mean(self, inputs: torch.Tensor) -> torch.Tensor:
        """Mean volume at the opposite end of the target, for inputs (N, C, X, Y, Z) of the same shape.

        Of predictions above the median it is the mean of the lowest quarter, of all others that of the
        highest.
        """
        high = (self.predictions(inputs) > self.median).view(-1, 1, 1, 1, 1)
        return torch.where(high, self.low_mean.to(inputs), self.high_mean.to(inputs))

    def score_scale(self, inputs: torch.Tensor) -> torch.Tensor:
        """Centre and width of the logistic scale of the scores of inputs, (N, 2).

        The centre is half-way from the prediction to the mean target at the opposite end; the width is half a
        standard deviation of the target, and negative where the score has to rise. Evidence is thus measured
        in standard deviations of the target: a network whose predictions do not depend on the image loses
        nothing.
        """
        values = self.predictions(inputs)
        high = values > self.median
        opposite = torch.where(high, self.low, self.high).to(values)
        width = torch.where(high, 1.0, -1.0).to(values) * WIDTH_SD * self.sd
        return torch.stack([(values + opposite) / 2, width], 1)

"""Linear calibration and correction of the bias towards the mean, fitted within folds on validation parts.

Predictions of a number are drawn towards the mean of the training participants, so that the residual
decreases with the target. Both corrections are lines that are fitted to the validation part of a network; the
targets of test participants are not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

LEAST = 3  # validation images of a line
KEYS = ["seed", "fold"]


class CorrectionError(ValueError):
    """A validation part is missing, or contains participants that are tested in the same fold."""


@dataclass(frozen=True)
class Line:
    """``intercept + slope * x``."""

    intercept: float
    slope: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self.intercept + self.slope * values


def fit_line(x: np.ndarray, y: np.ndarray) -> Line | None:
    """Least squares of y on x; None with fewer than three values, or if x is constant."""
    if len(x) < LEAST or np.ptp(x) == 0:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / np.square(x - x.mean()).sum())
    return Line(float(y.mean() - slope * x.mean()), slope)


def calibration(targets: np.ndarray, predictions: np.ndarray) -> Line | None:
    """Line that turns predictions into the targets that are expected for them; None if it is not defined."""
    return fit_line(predictions, targets)


def bias_correction(targets: np.ndarray, predictions: np.ndarray) -> Line | None:
    """Inverse of the line of predictions on targets; None if predictions do not increase with the targets.

    Predictions p of the targets y are modelled as p = a + b y + error; (p - a) / b has residuals that are not
    correlated with y. The targets of the participants that are corrected are not needed. The error becomes
    larger by 1 / b.

    References
    ----------
    Cole et al., "Brain age predicts mortality", Molecular Psychiatry 23:1385-1392, 2018.
    """
    line = fit_line(targets, predictions)
    if line is None or line.slope <= 0:
        return None
    return Line(-line.intercept / line.slope, 1 / line.slope)


CORRECTIONS = {"network_calibrated": calibration, "network_bias_corrected": bias_correction}


def corrected_predictions(
    predictions: pd.DataFrame, validation: pd.DataFrame, column: str, name: str
) -> pd.DataFrame | None:
    """Test predictions of every network after the correction that its validation part gives.

    Parameters
    ----------
    predictions, validation : pandas.DataFrame
        participant_id, seed, fold, target and `column` of the test and of the validation parts.
    column : str
        Column of the predicted numbers.
    name : str
        A name of `CORRECTIONS`.

    Returns
    -------
    pandas.DataFrame or None
        As `predictions`; None if the correction of a network is not defined.

    Raises
    ------
    CorrectionError
        A network has no validation part, or a participant is in the validation and the test part of a fold.
    """
    parts = {key: part for key, part in validation.groupby(KEYS)}
    found = []
    for key, test in predictions.groupby(KEYS, sort=False):
        seed, fold = key
        if key not in parts:
            raise CorrectionError(
                f"seed {seed}, fold {fold + 1}: there are no predictions of the validation part"
            )
        part = parts[key]
        if shared := sorted(set(part["participant_id"]) & set(test["participant_id"])):
            raise CorrectionError(
                f"seed {seed}, fold {fold + 1}: {shared[0]} is in the validation part and in the test part"
            )
        line = CORRECTIONS[name](part["target"].to_numpy(float), part[column].to_numpy(float))
        if line is None:
            return None
        found.append(test.assign(**{column: line(test[column].to_numpy(float))}))
    return pd.concat(found)

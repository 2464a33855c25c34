"""Numbers that are far from all others."""

from __future__ import annotations

import numpy as np

OUTLIER_SD = 5.0  # robust standard deviations from the median


def outliers(values: np.ndarray) -> np.ndarray:
    """Which numbers are far from the median, in robust standard deviations, (n,) bool.

    The robust standard deviation is 1.4826 times the median absolute deviation.
    """
    values = np.asarray(values, float)
    distance = np.abs(values - np.median(values))
    spread = 1.4826 * np.median(distance)
    return distance > OUTLIER_SD * spread if spread > 0 else np.zeros(len(values), bool)

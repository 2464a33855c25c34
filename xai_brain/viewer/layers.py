"""A map: its values, the limit of its colour scale, and its codes for drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import nibabel as nib
import numpy as np

from xai_brain.statistics.colour_scale import colour_limit, is_signed
from xai_brain.viewer.canvas import KINDS

PERCENTILES = np.linspace(0, 100, 1001)
N_CODES = 127  # of each sign; 128 is zero


@dataclass(frozen=True)
class Layer:
    """A map, as in its file and on the displayed grid.

    Parameters
    ----------
    name : str
    img : nibabel.Nifti1Image
        Image with its own grid and axes, from which values are read.
    shown : ndarray of shape (X, Y, Z), float32
        On the displayed grid, 0 at voxels that are not finite.
    ranked : ndarray, sorted
        |value| of all voxels of the brain, on the displayed grid.
    in_rms : float, optional
        Corrected threshold, in units of the root mean square in the brain.
    """

    name: str
    img: nib.Nifti1Image
    shown: np.ndarray
    ranked: np.ndarray
    in_rms: float | None = None

    @cached_property
    def maximum(self) -> float:
        return float(np.abs(self.shown).max(initial=0))

    @cached_property
    def limit(self) -> float:
        """Limit of the colour scale."""
        return colour_limit(self.ranked) or self.maximum  # of a map that is 0 in the brain

    @property
    def corrected(self) -> float | None:
        """Corrected threshold of |value|; None if there is none for this map."""
        if self.in_rms is None or not self.maximum:
            return None
        shares = self.ranked.astype(np.float64) / self.maximum  # squares of very small values would be 0
        return float(self.in_rms * self.maximum * np.sqrt((shares**2).mean()))

    @property
    def signed(self) -> bool:
        return is_signed(self.shown, self.limit)

    def percentile(self, value: float) -> float:
        """Percentage of the brain voxels whose |value| is not greater."""
        below = np.searchsorted(self.ranked, abs(np.float32(value)), side="right")
        return 100 * float(below) / max(self.ranked.size, 1)

    def quantiles(self) -> list[float]:
        """|value| at `PERCENTILES` of the brain."""
        at = PERCENTILES / 100 * max(self.ranked.size - 1, 0)
        return np.interp(at, np.arange(self.ranked.size), self.ranked).tolist() if self.ranked.size else [0.0]

    def threshold(self, settings: Mapping[str, Any], limit: float) -> float:
        """Threshold of |value|, as `thresholdOf` of common.js computes it.

        Parameters
        ----------
        settings : mapping
            Values of the traits of `xai_brain.viewer.canvas.SliceCanvas`.
        limit : float
            Limit of the colour scale.
        """
        kind, t, quantiles = KINDS[settings["threshold_kind"]], settings["threshold"], self.quantiles()
        if kind == "% of scale":
            return limit * t / 100
        if kind == "value":
            return float(settings["threshold_value"])
        if kind == "corrected":
            return math.inf if self.corrected is None else self.corrected
        at = (100 - t if kind == "top %" else t) / 100 * (len(quantiles) - 1)
        i = math.floor(at)
        return quantiles[i] + (at - i) * (quantiles[min(i + 1, len(quantiles) - 1)] - quantiles[i])

    def codes(self) -> np.ndarray:
        """uint8 for drawing: 128 is zero, steps grow with the square root of |value|.

        Maps have few high values; a linear code would leave only one or two steps for all other values.
        """
        relative = self.shown / (self.maximum or 1.0)
        code = 128 + np.sign(relative) * np.rint(N_CODES * np.sqrt(np.abs(relative)))
        return code.astype(np.uint8)


def brain_of(background: np.ndarray) -> np.ndarray:
    brain = np.nan_to_num(background) > 0
    return brain if brain.any() else np.ones(brain.shape, bool)

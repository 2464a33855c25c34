"""The colour scale of maps: one rule for the report, the viewer and notebooks; numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PERCENTILE = 99.5  # of |value| in the brain: limit of the scale, so that single voxels do not determine it
NEGLIGIBLE = 0.01  # share of the limit: smaller negative values do not make a map signed
OPAQUE_FROM = 0.5  # share of the limit: opacity grows from 0 at the value 0 up to here
OPACITY = 0.92  # of strong values, so that the anatomy remains visible
# from weak to strong; the weak colours are neither white nor those of the other sign
POSITIVE = ("#fed976", "#fd8d3c", "#e31a1c", "#800026")
NEGATIVE = ("#9ecae1", "#4a98c9", "#2166ac", "#08306b")


def colour_limit(magnitudes: np.ndarray) -> float:
    """The `PERCENTILE`-th percentile of |value|, or the maximum if fewer voxels are not 0."""
    magnitudes = magnitudes[np.isfinite(magnitudes)]
    if not magnitudes.size:
        return 0.0
    return float(np.percentile(magnitudes, PERCENTILE)) or float(magnitudes.max())


def is_signed(values: np.ndarray, limit: float) -> bool:
    """Whether values below 0 occur that are more than negligible compared with the limit of the scale."""
    return bool(values[np.isfinite(values)].min(initial=0) < -NEGLIGIBLE * limit)


@dataclass(frozen=True)
class ColourScale:
    """Colours of a map: diverging and symmetric about 0 for signed maps, otherwise sequential from 0.

    The colours of positive values are the same in both cases (yellow to dark red; negative values: light to
    dark blue). The value 0 is transparent.

    Parameters
    ----------
    limit : float
        Absolute value of the strongest colour; 0 for an empty map.
    signed : bool

    Examples
    --------
    >>> ColourScale.of(np.array([0.0, 0.5, 1.0])).signed
    False
    """

    limit: float
    signed: bool

    @classmethod
    def of(cls, values: np.ndarray) -> ColourScale:
        """Scale of the values in the brain.

        Parameters
        ----------
        values : ndarray
            Values that are not finite are ignored.
        """
        limit = colour_limit(np.abs(values))
        return cls(limit, is_signed(values, limit))

    @property
    def lowest(self) -> float:
        """Lower end of the scale."""
        return -self.limit if self.signed else 0.0

    def rgba(self, values: np.ndarray) -> np.ndarray:
        """Colours and opacity, shape (..., 4) in [0, 1]; transparent at 0 and where a value is not finite.

        Parameters
        ----------
        values : ndarray
        """
        share = np.nan_to_num(values, posinf=0, neginf=0) / (self.limit or np.inf)
        share = np.clip(share, -1 if self.signed else 0, 1)
        size = np.abs(share)
        colours = np.where((share < 0)[..., None], _blend(NEGATIVE, size), _blend(POSITIVE, size))
        return np.concatenate([colours, OPACITY * np.clip(size / OPAQUE_FROM, 0, 1)[..., None]], axis=-1)

    def matplotlib(self) -> dict[str, Any]:
        """The scale as arguments ``cmap``, ``vmin`` and ``vmax`` of matplotlib and nilearn.

        Examples
        --------
        >>> sorted(ColourScale(2.0, True).matplotlib())
        ['cmap', 'vmax', 'vmin']
        """
        from matplotlib.colors import ListedColormap

        # an odd number of colours has one for the value 0
        colours = ListedColormap(self.rgba(np.linspace(self.lowest, self.limit, 511)), "xai_brain")
        return {"cmap": colours, "vmin": self.lowest, "vmax": self.limit}


def _blend(anchors: tuple[str, ...], share: np.ndarray) -> np.ndarray:
    """Colours between anchors, (..., 3); 0 is the first anchor and 1 the last."""
    table = np.array([list(bytes.fromhex(anchor[1:])) for anchor in anchors]) / 255
    at = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(share, at, channel) for channel in table.T], axis=-1)

"""Localisation metrics for effects with a known location, with their chance levels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from xai_brain.metrics.comparison.regions import chance_of_place, most_covered_region, region_place
from xai_brain.metrics.comparison.transport import (
    MAX_BLOCKS,
    brain_blocks,
    earth_movers_distance,
    worst_distance,
)
from xai_brain.metrics.localization import (
    average_precision,
    average_precision_of_chance,
    localization,
    ranked,
)

FALSE_POSITIVE_QUANTILE = 0.99


class TrueEffect:
    """One true location on one grid, for any number of maps.

    Parameters
    ----------
    truth : bool ndarray of shape (X, Y, Z)
        Voxels of the effect; voxels outside the brain are ignored.
    brain_mask : bool ndarray of shape (X, Y, Z)
    voxel_size_mm : sequence of 3 float
    tolerance_mm : float, default 6.0
        Largest distance between the highest voxel and the effect for ``pointing_near``. The default is two
        voxels of the usual grid, because coarse maps such as those of Grad-CAM have peaks between voxels.
    labels : int ndarray of shape (X, Y, Z), optional
        Atlas regions on the grid, 0 is none; required for ``region_hit``.
    region : int, optional
        Region of the planted effect; default: the region of which the effect covers the largest part.
    max_blocks : int, default 8
        Blocks along each axis for the earth mover's distance.

    Raises
    ------
    ValueError
        Shapes differ, no true voxel lies in the brain, or the region is not in the brain.

    References
    ----------
    Arras et al., "CLEVR-XAI", Information Fusion 2022. Zhang et al., "Top-down neural attention by excitation
    backprop", IJCV 2018. Clark et al., "XAI-TRIS", Machine Learning 2024 (earth mover's distance). Siegel
    et al., arXiv 2508.02560, 2025 (regions, false positives).
    """

    def __init__(
        self,
        truth: np.ndarray,
        brain_mask: np.ndarray,
        voxel_size_mm: Sequence[float],
        tolerance_mm: float = 6.0,
        labels: np.ndarray | None = None,
        region: int | None = None,
        max_blocks: int = MAX_BLOCKS,
    ):
        for name, array in {"truth": truth, "labels": labels}.items():
            if array is not None and array.shape != brain_mask.shape:
                raise ValueError(f"{name}: shape {array.shape}, but that of the brain is {brain_mask.shape}")
        self.brain_mask, self.truth = brain_mask, truth & brain_mask
        if not self.truth.any():
            raise ValueError("truth: no true voxel lies in the brain; are both on the same grid?")
        distance_mm = distance_transform_edt(~self.truth, sampling=tuple(voxel_size_mm))
        self.near = (distance_mm <= tolerance_mm)[brain_mask]  # (n_brain,)
        self.true = self.truth[brain_mask]
        self.block_of, self.centers_mm = brain_blocks(brain_mask, voxel_size_mm, max_blocks)
        self.true_weights = self._weights(self.true.astype(float))
        self.worst_mm = worst_distance(self.true_weights, self.centers_mm)
        self.labels = labels[brain_mask] if labels is not None else None
        self.region = region
        if self.labels is not None:
            self.region = most_covered_region(self.true, self.labels) if region is None else region
            if self.region not in self.labels:
                raise ValueError(f"region={self.region}: has no voxel in the brain")

    def scores(self, attribution: np.ndarray, random_state: int = 0) -> dict[str, float]:
        """Scores of one map.

        Parameters
        ----------
        attribution : ndarray of shape (X, Y, Z)
            Raw, signed values; the absolute values inside the brain are used.
        random_state : int, default 0
            Order of equal values.

        Returns
        -------
        dict
            ``rma``, ``rra``, ``pointing`` (whether the highest voxel is inside the effect), ``pointing_near``
            (within the tolerance), ``auprc``, ``emd`` (1 minus the earth mover's distance divided by its
            largest possible value) and, with labels, ``region_hit`` and ``region_hit_top3``: 1 for a perfect
            map. ``false_positive``: 0 for a perfect map, 1 if a voxel beyond the tolerance exceeds the 99th
            percentile (next higher value) of the voxels within. All scores of an empty map are 0.
        """
        values = np.abs(attribution[self.brain_mask]).astype(np.float64)
        order = ranked(values, random_state)
        scores = localization(attribution, self.truth, self.brain_mask, order=order)
        del scores["chance"]
        if not values.any():
            return scores | {name: 0.0 for name in self.names if name not in scores}
        distance = earth_movers_distance(self._weights(values), self.true_weights, self.centers_mm)
        within = np.quantile(values[self.near], FALSE_POSITIVE_QUANTILE, method="higher")
        scores |= {
            "pointing_near": float(self.near[order[0]]),
            "auprc": average_precision(self.true[order]),
            "emd": 1 - distance / self.worst_mm if self.worst_mm else 1.0,
        }
        if self.labels is not None and self.region is not None:
            place = region_place(values, self.labels, self.region, random_state)
            scores |= {"region_hit": float(place == 1), "region_hit_top3": float(place <= 3)}
        return scores | {"false_positive": float((values[~self.near] > within).any())}

    def chance(self, n_maps: int = 20, random_state: int = 0) -> dict[str, float]:
        """Expectation of each score for a map of independent random values.

        Exact except for ``emd`` (mean over random maps) and the region hits (see `chance_of_place`). The null
        level of a method, from networks trained with permuted labels, can be higher.

        Parameters
        ----------
        n_maps : int, default 20
            Number of uniform random maps for ``emd``, whose values differ little.
        random_state : int, default 0
        """
        rng = np.random.default_rng(random_state)
        share, n = self.true.mean(), len(self.true)
        distances = [
            earth_movers_distance(self._weights(rng.random(n)), self.true_weights, self.centers_mm)
            for _ in range(n_maps)
        ]
        chance = {name: float(share) for name in ("rma", "rra", "pointing")}
        chance["pointing_near"] = float(self.near.mean())
        chance["auprc"] = average_precision_of_chance(int(self.true.sum()), n)
        chance["emd"] = float(1 - np.mean(distances) / self.worst_mm) if self.worst_mm else 1.0
        if self.labels is not None and self.region is not None:
            for name, place in {"region_hit": 1, "region_hit_top3": 3}.items():
                chance[name] = chance_of_place(self.labels, self.region, place, random_state=random_state)
        # no false positive only if the highest voxels down to the percentile are all within
        n_near = int(self.near.sum())
        n_above = n_near - int(np.ceil(FALSE_POSITIVE_QUANTILE * (n_near - 1)))
        ranks = np.arange(n_above)
        chance["false_positive"] = float(1 - np.prod((n_near - ranks) / (n - ranks)))
        return chance

    @property
    def names(self) -> list[str]:
        """Names of all scores."""
        regions = [] if self.labels is None else ["region_hit", "region_hit_top3"]
        return ["rma", "rra", "pointing", "pointing_near", "auprc", "emd", *regions, "false_positive"]

    def _weights(self, values: np.ndarray) -> np.ndarray:
        """Share of each block in the sum of a map."""
        return np.bincount(self.block_of, values, len(self.centers_mm)) / values.sum()

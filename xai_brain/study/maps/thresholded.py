"""Maps with corrected thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.reporting.wording import fixed
from xai_brain.runs.directory import read_tsv
from xai_brain.study.run_images import brain_of
from xai_brain.study.thresholds.statistic import above_threshold
from xai_brain.viewer.meaning import CLAIM

if TYPE_CHECKING:
    from xai_brain.study.maps.images import MapImages


class ThresholdedMaps:
    """The voxels of maps that exceed a corrected threshold; from `Maps.threshold`.

    Attributes
    ----------
    thresholds : pandas.DataFrame
        method, statistic, alpha, threshold (in the unit that is named), n_perm, share of participants with a
        voxel above it, with interval; where the true location is known, hit (share of participants with such
        a voxel inside) and precision (share of such voxels inside).
    table : pandas.DataFrame
        One row per map: value of the statistic, its corrected p, n_voxels and volume_mm3 above the threshold.
    """

    def __init__(self, maps: MapImages):
        self._maps, run = maps, maps._run
        self.thresholds = read_tsv(run.evaluation("thresholds")).dropna(subset="share").reset_index(drop=True)
        self.table = read_tsv(run.evaluation("threshold_maps"))

    def img(
        self, participant_id: str, method: str, *, session_id: str | None = None, seed: int | None = None
    ) -> nib.Nifti1Image:
        """Map of one participant, 0 where it does not exceed the threshold.

        Parameters
        ----------
        participant_id, method : str
        session_id : str, optional
            Needed for a participant with several sessions.
        seed : int, optional
            Default: the first; a threshold applies to the map of one network.

        Returns
        -------
        nibabel.Nifti1Image
            float32, raw and signed values; 0 everywhere if nothing exceeds the threshold.
        """
        seed = self._maps.seeds[0] if seed is None else seed
        img = self._maps.img(participant_id, method, session_id=session_id, seed=seed)
        row = self.thresholds.set_index("method").loc[method]
        own = self._maps.table.query("participant_id == @participant_id")
        session = session_id if session_id is not None else own["session_id"].iloc[0]
        brain = brain_of(self._maps._run, participant_id, session)
        values = img.get_fdata(dtype=np.float32)
        voxel = abs(float(np.linalg.det(img.affine[:3, :3])))
        above = above_threshold(
            values, brain, voxel, row["cluster_forming"], row["statistic"], row["threshold"]
        )
        return nib.Nifti1Image(np.where(above, values, 0).astype(np.float32), img.affine, img.header)

    @property
    def empty(self) -> pd.Series:
        """Number of maps without a voxel above the threshold, by method."""
        return (self.table["n_voxels"] == 0).groupby(self.table["method"]).sum()

    def __repr__(self) -> str:
        parts = [
            f"{row.method} {row.threshold:.3g} ({100 * row.share:.0f} % of participants above)"
            for row in self.thresholds.itertuples()
        ]
        return f"ThresholdedMaps(alpha {self.thresholds['alpha'].iloc[0]:g}: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        columns = [
            "method",
            "statistic",
            "threshold",
            "unit",
            "n_perm",
            "share",
            "share_ci_low",
            "share_ci_high",
        ]
        return f"<p>{CLAIM}</p>" + self.thresholds[columns].to_html(index=False, float_format=fixed)

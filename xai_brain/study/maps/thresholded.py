"""Maps with corrected thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.config.build import valid_choice
from xai_brain.reporting.wording import fixed
from xai_brain.runs.directory import read_tsv
from xai_brain.runs.threshold_statement import RANDOMIZED, reference_of, threshold_text
from xai_brain.study.run_images import brain_of
from xai_brain.study.thresholds.statistic import above_threshold, voxel_mm3

if TYPE_CHECKING:
    from xai_brain.study.maps.images import MapImages


class ThresholdedMaps:
    """The voxels of maps that exceed a corrected threshold; from `Maps.threshold`.

    Attributes
    ----------
    thresholds : pandas.DataFrame
        method, statistic, reference (networks of permuted labels, or with randomised parameters, which is the
        weaker statement), alpha, threshold (in the unit that is named), n_perm, share of participants with a
        voxel above it, with interval; where the true location is known, hit (share of participants with such
        a voxel inside) and precision (share of such voxels inside).
    table : pandas.DataFrame
        One row per map: value of the statistic, its corrected p, n_voxels and volume_mm3 above the threshold.

    Examples
    --------
    >>> thresholded = open_maps("outputs/demo").threshold()  # doctest: +SKIP
    >>> thresholded.thresholds[["method", "threshold", "share"]]  # doctest: +SKIP
    >>> thresholded.img("sub-0001", "GradCAM")  # doctest: +SKIP
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
            float32, raw and signed values; 0 everywhere if nothing exceeds the threshold. The field
            ``descrip`` of the header names the reference of the threshold.

        Raises
        ------
        ConfigError
            The method has no threshold.
        """
        valid_choice("method with a threshold", method, list(self.thresholds["method"]))
        seed = self._maps.seeds[0] if seed is None else seed
        img = self._maps.img(participant_id, method, session_id=session_id, seed=seed)
        row = self.thresholds.set_index("method").loc[method]
        own = self._maps.table.query("participant_id == @participant_id")
        session = session_id if session_id is not None else own["session_id"].iloc[0]
        brain = brain_of(self._maps._run, participant_id, session)
        values = img.get_fdata(dtype=np.float32)
        above = above_threshold(
            values,
            brain,
            voxel_mm3(img.affine),
            row["cluster_forming"],
            row["statistic"],
            row["threshold"],
        )
        found = nib.Nifti1Image(np.where(above, values, 0).astype(np.float32), img.affine, img.header)
        found.header["descrip"] = f"above threshold, alpha {row['alpha']:g}; reference: {self.reference}"
        return found

    @property
    def reference(self) -> str:
        """Networks that the threshold is compared with: permuted labels, or randomised parameters."""
        return reference_of(self.thresholds)

    @property
    def statement(self) -> str:
        """What exceeding the threshold states, and what not."""
        return threshold_text(self.reference)

    @property
    def empty(self) -> pd.Series:
        """Number of maps without a voxel above the threshold, by method."""
        return (self.table["n_voxels"] == 0).groupby(self.table["method"]).sum()

    def __repr__(self) -> str:
        parts = [
            f"{row.method} {row.threshold:.3g} ({100 * row.share:.0f} % of participants above)"
            for row in self.thresholds.itertuples()
        ]
        weaker = f", reference {self.reference}" if self.reference == RANDOMIZED else ""
        return f"ThresholdedMaps(alpha {self.thresholds['alpha'].iloc[0]:g}{weaker}: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        columns = [
            "method",
            "statistic",
            *(["reference"] if "reference" in self.thresholds else []),
            "threshold",
            "unit",
            "n_perm",
            "share",
            "share_ci_low",
            "share_ci_high",
        ]
        table = self.thresholds[columns].to_html(index=False, float_format=fixed)
        return f"<p>{self.statement}</p>{table}"

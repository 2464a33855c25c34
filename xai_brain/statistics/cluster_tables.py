"""Tables of the clusters of a statistical map, with peaks in mm; independent of torch."""

from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.atlas.atlas import Atlas

COLUMNS = ("cluster", "x_mm", "y_mm", "z_mm", "peak_t", "size_mm3", "logp_fwe")


def cluster_table(
    t_img: nib.Nifti1Image,
    threshold: float,
    logp_img: nib.Nifti1Image | None = None,
    atlas: Atlas | None = None,
) -> pd.DataFrame:
    """Clusters of both signs above a threshold, sorted by peak within each sign.

    Parameters
    ----------
    t_img : nibabel.Nifti1Image
        3-D, 0 outside the brain.
    threshold : float
        Threshold of |t|; an infinite threshold gives an empty table.
    logp_img : nibabel.Nifti1Image, optional
        Corrected −log10 p on the same grid, read at each peak.
    atlas : Atlas, optional
        Atlas for the region of each peak; peaks outside all regions have none.

    Returns
    -------
    pandas.DataFrame
        ``cluster`` (1, 1a, 1b for further peaks at least 8 mm apart), ``x_mm``, ``y_mm``, ``z_mm``,
        ``peak_t``, ``size_mm3`` (of further peaks: missing), ``logp_fwe``
        and, with an atlas, ``region``.
    """
    from nilearn.reporting import get_clusters_table

    t = np.asanyarray(t_img.dataobj)
    if not (np.abs(t) > threshold).any():
        return pd.DataFrame(columns=list(COLUMNS))
    with warnings.catch_warnings():
        # for the sign without clusters, if all have the other sign
        warnings.filterwarnings("ignore", message="No clusters found")
        found = get_clusters_table(t_img, threshold, two_sided=True)
    # nilearn counts further peaks as clusters when it goes on to the negative ones
    names = found["Cluster ID"].astype(str).str.extract(r"(\d+)([a-z]*)")
    number = pd.factorize(names[0])[0] + 1
    table = pd.DataFrame(
        {
            "cluster": [f"{n}{letter}" for n, letter in zip(number, names[1], strict=True)],
            "x_mm": found["X"].astype(float),
            "y_mm": found["Y"].astype(float),
            "z_mm": found["Z"].astype(float),
            "peak_t": found["Peak Stat"].astype(float),
            "size_mm3": pd.to_numeric(found["Cluster Size (mm3)"], errors="coerce"),
            "logp_fwe": np.nan,
        }
    )
    world = table[["x_mm", "y_mm", "z_mm"]].to_numpy()
    peaks = tuple(np.rint(nib.affines.apply_affine(np.linalg.inv(t_img.affine), world)).astype(int).T)
    if logp_img is not None:
        table["logp_fwe"] = np.asanyarray(logp_img.dataobj)[peaks]
    if atlas is not None:
        names = dict(zip(atlas.lut["index"], atlas.lut["name"], strict=True))
        table["region"] = [names.get(index) for index in atlas.on_grid(t_img)[peaks]]
    return table

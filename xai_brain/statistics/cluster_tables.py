"""Tables of the clusters of a statistical map, with peaks in mm; independent of torch."""

from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from xai_brain.atlas.atlas import Atlas

COLUMNS = ("cluster", "x_mm", "y_mm", "z_mm", "peak_t", "size_mm3", "logp_fwe")


def cluster_labels(values: np.ndarray, threshold: float, min_voxels: int) -> tuple[np.ndarray, int]:
    """Clusters of positive values beyond a threshold, connected by faces.

    Parameters
    ----------
    values : ndarray of shape (X, Y, Z)
    threshold : float
        Values from here on belong to a cluster; 0 never does.
    min_voxels : int
        Smaller clusters are removed.

    Returns
    -------
    ndarray of int of shape (X, Y, Z), 0 outside clusters; number of clusters that were removed
    """
    labels, n = ndimage.label((values > 0) & (values >= threshold))
    kept = np.bincount(labels.ravel(), minlength=n + 1) >= min_voxels
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0)[labels], n - int(kept.sum())


def significant_clusters(t: np.ndarray, threshold: float, min_voxels: int) -> tuple[np.ndarray, int]:
    """Voxels of the clusters of both signs with |t| above a threshold, and the number of smaller clusters.

    Parameters
    ----------
    t : ndarray of shape (X, Y, Z)
    threshold : float
    min_voxels : int
        Voxels of a cluster, connected by faces, at least.

    Returns
    -------
    ndarray of bool of shape (X, Y, Z), int
    """
    above = np.nextafter(threshold, np.inf)
    positive, negative = (cluster_labels(sign * t, above, min_voxels) for sign in (1, -1))
    return (positive[0] > 0) | (negative[0] > 0), positive[1] + negative[1]


def cluster_table(
    t_img: nib.Nifti1Image,
    threshold: float,
    min_voxels: int,
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
    min_voxels : int
        Smaller clusters are not listed.
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
    listed, _ = significant_clusters(t, threshold, min_voxels)
    if not listed.any():
        return pd.DataFrame(columns=list(COLUMNS))
    t_img = nib.Nifti1Image(np.where(listed, t, 0), t_img.affine)
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

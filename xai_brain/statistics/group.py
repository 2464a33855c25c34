"""Maps of many subjects: smoothing, scaling, and voxel-wise tests of two classes or a number. No torch.

Maps lie in one temporary file, a row for each subject, and are worked on in blocks of voxels: memory
does not grow with the number of subjects.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
from joblib import Parallel, delayed

from xai_brain.parallel.progress import ShowProgress
from xai_brain.statistics.group_design import Design, GroupError
from xai_brain.statistics.map_rows import MapRows

SCALINGS = ("none", "l2", "rank")
BRAIN_SHARE = 0.95  # of the subjects, whose brains must hold a voxel for it to be compared
BLOCK = 2000  # voxels: 181 subjects in float64 are 3 MB, about what a core's cache holds
PARALLEL_FROM = 5e9  # permutations x subjects x voxels, about 10 s of one core: workers take seconds to start


def smooth(values: np.ndarray, affine: np.ndarray, fwhm_mm: float, brain_mask: np.ndarray) -> np.ndarray:
    """Gaussian smoothing inside the brain; what lies outside does not leak in, and the rim is not darkened.

    Parameters
    ----------
    values : ndarray of shape (X, Y, Z)
    affine : ndarray of shape (4, 4)
    fwhm_mm : float
        Full width at half maximum; 0 smooths nothing.
    brain_mask : ndarray of shape (X, Y, Z), bool

    Returns
    -------
    ndarray of shape (X, Y, Z), 0 outside the brain
    """
    from nilearn.image import smooth_img

    inside = np.where(brain_mask, values, 0).astype(np.float64)
    if fwhm_mm == 0:
        return inside
    weight = smooth_img(nib.Nifti1Image(brain_mask.astype(np.float64), affine), fwhm_mm).get_fdata()
    smoothed = smooth_img(nib.Nifti1Image(inside, affine), fwhm_mm).get_fdata()
    return np.divide(smoothed, weight, out=np.zeros_like(inside), where=brain_mask)


def scale(values: np.ndarray, scaling: str) -> np.ndarray:
    """Bring the maps of subjects to one scale.

    Parameters
    ----------
    values : ndarray of shape (n_brain,)
        One subject, inside the brain.
    scaling : {"none", "l2", "rank"}
        ``l2``: the root of the mean square becomes 1, signs and zero stay. ``rank``: ranks of the signed
        values from above -0.5 to below 0.5, ties share their mean: only the order inside a subject is left.
    """
    if scaling == "none":
        return values
    if scaling == "l2":
        size = np.sqrt(np.mean(values**2))
        return values / size if size > 0 else values
    if scaling == "rank":
        from scipy.stats import rankdata

        return (rankdata(values) - 0.5) / len(values) - 0.5
    raise GroupError(f"scaling={scaling}: one of {', '.join(SCALINGS)} is needed")


@dataclass(frozen=True)
class GroupTest:
    """Difference of two classes (second minus first), or association with a number, at every voxel.

    Parameters
    ----------
    effect : ndarray of shape (n_voxels,), float64
        Of classes: the difference of the means, confounds not taken out. Of a number: the slope given the
        confounds, in units of the map for each unit of the number. 0 where nothing varies.
    t : ndarray of shape (n_voxels,), float64
        With the confounds in the model. 0 where nothing varies.
    logp_fwe : ndarray of shape (n_voxels,), float64
        −log10 p, two-sided, corrected over voxels by the largest |t|. Zeros without permutations.
    null_max_t : ndarray of shape (n_perm,)
        Largest |t| of each permutation.
    n_constant : int
        Voxels that are the same in all subjects, or follow from the confounds: not tested.
    more : dict of ndarray of shape (n_voxels,)
        When asked for: ``tfce``, ``logptfce`` and ``logpclustersize``, ``logpclustermass``.
    """

    effect: np.ndarray
    t: np.ndarray
    logp_fwe: np.ndarray
    null_max_t: np.ndarray
    n_constant: int
    more: dict[str, np.ndarray] = field(default_factory=dict)

    def threshold(self, alpha: float) -> float:
        """|t| above which the corrected p is at most `alpha`; infinite with too few permutations."""
        allowed = int(np.floor(alpha * (len(self.null_max_t) + 1) + 1e-9))
        return float(np.sort(self.null_max_t)[-allowed]) if 0 < allowed <= len(self.null_max_t) else np.inf


def voxelwise_test(
    maps: MapRows,
    rows: np.ndarray,
    design: Design,
    *,
    n_perm: int = 1000,
    random_state: int = 0,
    n_jobs: int = 1,
    brain_img: nib.Nifti1Image | None = None,
    tfce: bool = False,
    cluster_p: float | None = None,
    progress: ShowProgress = iter,
) -> GroupTest:
    """Two-sided permutation test of two classes or of a number, given confounds, corrected over voxels.

    Parameters
    ----------
    maps : MapRows
        Values inside the brain.
    rows : ndarray of shape (n_subjects,), int
        Rows of `maps` in the order of the design.
    design : Design
    n_perm : int, default 1000
        0: t only.
    random_state : int, default 0
    n_jobs : int, default 1
        Processes; the result does not depend on it, unless `tfce` or `cluster_p` is set.
    brain_img : nibabel.Nifti1Image, optional
        The voxels of `maps` as a mask; needed for `tfce` and `cluster_p`.
    tfce : bool, default False
        Also threshold-free cluster enhancement; takes many times as long.
    cluster_p : float, optional
        Uncorrected p that forms clusters, e.g. 0.001; sizes and masses are tested then too.
    progress : function that wraps the list of blocks of voxels, without clusters

    Returns
    -------
    GroupTest

    Notes
    -----
    The engine is `nilearn.mass_univariate.permuted_ols`, which permutes residuals (Freedman and Lane).
    Without clusters it is asked for blocks of voxels with one seed, so that every block sees the same
    permutations; the largest of the blocks' maxima is the maximum over the brain. Blocks that stay in the
    cache of a core take half of the time of the whole.

    References
    ----------
    Freedman D, Lane D. A nonstochastic interpretation of reported significance levels. J Bus Econ Stat
    1983;1:292–298. Winkler AM, Ridgway GR, Webster MA, Smith SM, Nichols TE. Permutation inference for the
    general linear model. NeuroImage 2014;92:381–397. Smith SM, Nichols TE. Threshold-free cluster
    enhancement. NeuroImage 2009;44:83–98.
    """
    n_voxels = maps.values.shape[1]
    effect, tested = np.zeros(n_voxels), np.zeros(n_voxels, bool)
    basis = np.linalg.qr(np.column_stack([np.ones(len(rows)), design.confounds]))[0]
    number = design.tested - basis @ (basis.T @ design.tested)
    for part, values in maps.blocks(rows):
        rest = values - basis @ (basis.T @ values)
        tested[part] = np.linalg.norm(rest, axis=0) > 1e-6 * np.linalg.norm(values, axis=0)
        if design.is_number:
            effect[part] = np.where(tested[part], number @ rest / (number @ number), 0)
        else:
            effect[part] = values[design.tested == 1].mean(0) - values[design.tested == 0].mean(0)
    where = np.flatnonzero(tested)
    if not where.size:
        raise GroupError("maps are the same in all subjects, or follow from the confounds")
    columns = maps.values
    if tfce or cluster_p is not None:
        if brain_img is None:
            raise GroupError("clusters need brain_img, the place of the voxels")
        found = _whole(columns[rows][:, where], design, n_perm, random_state, n_jobs,
                       _masker(brain_img, where), tfce, cluster_p)  # fmt: skip
        t, null = found["t"][0], found.get("h0_max_t", np.empty((1, 0)))[0]
    else:
        found = {}
        blocks = [where[i : i + BLOCK] for i in range(0, len(where), BLOCK)]
        if n_perm * len(rows) * len(where) < PARALLEL_FROM:
            n_jobs = 1
        ordered = (columns[np.ix_(rows, block)] for block in blocks)
        work = Parallel(n_jobs=n_jobs, return_as="generator")
        found_in = work(delayed(_block)(b, design, n_perm, random_state) for b in ordered)
        parts = [part for _, part in zip(progress(blocks), found_in, strict=True)]
        t = np.concatenate([part[0] for part in parts])
        null = np.max([part[1] for part in parts], axis=0)
    reached = len(null) - np.searchsorted(np.sort(null), np.abs(t), side="left")
    logp = np.log10((1 + len(null)) / (1 + reached))
    names = {"tfce": "tfce", "logp_max_tfce": "logptfce", "logp_max_size": "logpclustersize",
             "logp_max_mass": "logpclustermass"}  # fmt: skip

    def everywhere(values: np.ndarray) -> np.ndarray:
        full = np.zeros(n_voxels)
        full[where] = values
        return full

    more = {name: everywhere(found[key][0]) for key, name in names.items() if key in found}
    return GroupTest(effect, everywhere(t), everywhere(logp), null, n_voxels - len(where), more)


def _block(
    values: np.ndarray, design: Design, n_perm: int, random_state: int
) -> tuple[np.ndarray, np.ndarray]:
    """T (n_block,) and the largest |t| of each permutation, in the order of the permutations."""
    found = _whole(values, design, n_perm, random_state)
    null = found["h0_max_t"][0] if n_perm else np.empty(0)
    if len(null) > 100 and (np.diff(null) >= 0).all():
        # maxima of blocks are taken permutation by permutation
        raise RuntimeError("this version of nilearn sorts the null distribution; use nilearn 0.11 to 0.14")
    return found["t"][0], null


def _whole(
    values: np.ndarray,
    design: Design,
    n_perm: int,
    random_state: int,
    n_jobs: int = 1,
    masker: object | None = None,
    tfce: bool = False,
    cluster_p: float | None = None,
) -> dict[str, np.ndarray]:
    from nilearn.mass_univariate import permuted_ols

    values = values.astype(np.float64)
    # t does not depend on the scale; attributions may be so small that their squares are not numbers
    values = (values - values.mean(0)) / np.abs(values).max(0)
    tested = design.tested
    if design.is_number:
        tested = (tested - tested.mean()) / tested.std()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*C_CONTIGUOUS")  # it then makes a copy
        warnings.filterwarnings("ignore", message="Data array used to create a new image contains 64-bit")
        return permuted_ols(
            tested[:, None],
            values,
            design.confounds if design.confounds.shape[1] else None,
            n_perm=n_perm,
            two_sided_test=True,
            random_state=random_state,
            n_jobs=min(n_jobs, max(n_perm - 1, 1)),
            masker=masker,
            tfce=tfce,
            threshold=cluster_p if n_perm else None,
            output_type="dict",
        )


def _masker(brain_img: nib.Nifti1Image, where: np.ndarray) -> object:
    from nilearn.maskers import NiftiMasker

    mask = np.asanyarray(brain_img.dataobj) > 0
    tested = np.zeros(int(mask.sum()), np.uint8)
    tested[where] = 1
    data = np.zeros(mask.shape, np.uint8)
    data[mask] = tested
    return NiftiMasker(nib.Nifti1Image(data, brain_img.affine)).fit()

"""Shares of participants and networks in the variance of maps; independent of torch.

Maps of participants by networks of several seeds form, at every voxel, a crossed design without replication.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xai_brain.statistics.bootstrap import multinomial_counts, percentile_interval
from xai_brain.statistics.map_rows import MapRows

COMPONENTS = ("subject", "model", "residual")


@dataclass(frozen=True)
class VarianceShares:
    """Variance components of the maps of one method.

    Parameters
    ----------
    variance : ndarray of shape (3,)
        Participant, model and residual, averaged over voxels; negative estimates are kept.
    share : ndarray of shape (3,)
        Shares of their sum, with negative estimates set to 0. NaN if the maps do not vary.
    interval : ndarray of shape (2, 3)
        95 % interval of `share` by bootstrap over participants.
    model_share : ndarray of shape (n_voxels,)
        Share of the model at each voxel, 0 if the maps do not vary.
    negative : ndarray of shape (3,)
        Share of voxels with a negative estimate, which is set to 0 in `model_share`.
    """

    variance: np.ndarray
    share: np.ndarray
    interval: np.ndarray
    model_share: np.ndarray
    negative: np.ndarray


def variance_components(values: np.ndarray) -> np.ndarray:
    """Variance components of participants, models and the residual, by two-way analysis of variance.

    Parameters
    ----------
    values : ndarray of shape (n_subjects, n_models, n_voxels)
        At least two participants and two models.

    Returns
    -------
    ndarray of shape (3, n_voxels)
        Participant, model, residual: the solution of ``E[MS_subject] = residual + n_models subject``,
        ``E[MS_model] = residual + n_subjects model``, ``E[MS_rest] = residual``. The first two can be
        negative. Without replication the residual contains interaction and noise.

    References
    ----------
    Searle SR, Casella G, McCulloch CE. Variance components. Wiley 1992, chapter 4.
    """
    n, m = values.shape[:2]
    of_subject, of_model, grand = values.mean(1), values.mean(0), values.mean((0, 1))
    rest = values - of_subject[:, None] - of_model + grand
    ms_subject = m * ((of_subject - grand) ** 2).sum(0) / (n - 1)
    ms_model = n * ((of_model - grand) ** 2).sum(0) / (m - 1)
    ms_rest = (rest**2).sum((0, 1)) / ((n - 1) * (m - 1))
    return np.stack([(ms_subject - ms_rest) / m, (ms_model - ms_rest) / n, ms_rest])


def variance_shares(
    maps: MapRows, folds: Sequence[np.ndarray], n_bootstrap: int = 1000, random_state: int = 0
) -> VarianceShares:
    """Divide the variance of the maps of one method into participants, models and the residual.

    Parameters
    ----------
    maps : MapRows
    folds : sequence of ndarray of shape (n_subjects, n_models), int
        Rows of `maps` for each fold: participants by networks, one network per seed. All folds have the same
        number of models, at least two, and at least two participants.
    n_bootstrap : int, default 1000
    random_state : int, default 0

    Returns
    -------
    VarianceShares

    Notes
    -----
    With k folds a seed has k networks, and each participant is explained in one fold. Components
    are therefore estimated within folds and averaged with the weights n - 1 (n participants of the fold).
    Differences between folds, in which training sets, networks and participants differ, are not part of any
    component: "model" is the change with the seed that is common to all participants of a fold.

    Components are averaged over the brain before shares are computed, so that voxels without variance have no
    weight. A bootstrap sample contains some participants twice; pairs of a participant with itself are
    excluded, because they would attribute a part of the residual to the model. The interval describes the
    variation over participants for these networks, not the variation over seeds.
    """
    if any(fold.shape[0] < 2 or fold.shape[1] < 2 for fold in folds):
        raise ValueError("folds: at least two subjects and two models are needed in each")
    n_voxels = maps.values.shape[1]
    weights = np.array([len(fold) - 1 for fold in folds], float)
    voxels = np.zeros((3, n_voxels))
    for fold, weight in zip(folds, weights / weights.sum(), strict=True):
        for part, values in maps.blocks(fold.ravel()):
            voxels[:, part] += weight * variance_components(values.reshape(*fold.shape, -1))
    voxels[np.abs(voxels) < 1e-9 * np.abs(voxels).sum(0)] = 0  # rounding errors of either sign
    rng = np.random.default_rng(random_state)
    drawn = np.array([_draws(*_pairs(maps, fold), n_bootstrap, rng) for fold in folds])  # (k, n, 3)
    known = np.isfinite(drawn).all(2) * weights[:, None]
    total = known.sum(0)
    means = np.einsum("kn,knc->nc", known, np.nan_to_num(drawn)) / np.where(total > 0, total, np.nan)[:, None]
    shares = _shares(means.T)
    some = np.isfinite(shares).all(0)
    interval = percentile_interval(shares[:, some].T) if some.any() else np.full((2, 3), np.nan)
    mean = voxels.mean(1)
    return VarianceShares(
        variance=mean,
        share=_shares(mean),
        interval=interval,
        model_share=np.nan_to_num(_shares(voxels)[COMPONENTS.index("model")]),
        negative=(voxels < 0).mean(1),
    )


def _shares(components: np.ndarray) -> np.ndarray:
    """Shares of (3, ...) components, with negative ones set to 0."""
    kept = np.maximum(components, 0)
    total = kept.sum(0)
    return np.divide(kept, total, out=np.full(kept.shape, np.nan), where=total > 0)


def _pairs(maps: MapRows, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Estimates from each pair of participants, averaged over voxels, (n, n) each.

    Over models: covariance of the maps of two participants, whose expectation is the variance of the model
    (plus the residual for a participant with itself). Over pairs of models: estimate of the variance of
    participants.
    """
    n, m = fold.shape
    products = np.zeros((n * m, n * m))
    for _, values in maps.blocks(fold.ravel()):
        products += values @ values.T
    products = products.reshape(n, m, n, m) / maps.values.shape[1]
    same = np.einsum("ijkj->ik", products)  # two participants and one model, summed over models
    every = products.sum((1, 3))  # two participants and any two models

    def mean_distance(products: np.ndarray) -> np.ndarray:
        own = np.diag(products)
        return own[:, None] + own - 2 * products

    over_models = (same - every / m) / (m - 1)
    over_pairs = (mean_distance(every) - mean_distance(same)) / (2 * m * (m - 1))
    return over_models, over_pairs


def _draws(
    over_models: np.ndarray, over_pairs: np.ndarray, n_bootstrap: int, rng: np.random.Generator
) -> np.ndarray:
    """Components for bootstrap samples of participants, (n_bootstrap, 3); NaN for only one participant."""
    n = len(over_models)
    times = multinomial_counts(n, n_bootstrap, rng).astype(float)
    own = np.diag(over_models)
    n_pairs = n**2 - (times**2).sum(1)
    n_pairs[n_pairs == 0] = np.nan
    subject = ((times @ over_pairs) * times).sum(1) / n_pairs  # the diagonal is 0
    model = (((times @ over_models) * times).sum(1) - times**2 @ own) / n_pairs
    return np.stack([subject, model, times @ own / n - model], axis=1)

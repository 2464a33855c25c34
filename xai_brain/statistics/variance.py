"""How much of the variance of maps comes from the subject and how much from the network. No torch.

Maps of subjects by networks of several seeds make a crossed table without replication at every voxel.
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
    """Variance of the maps of one method, divided.

    Parameters
    ----------
    variance : ndarray of shape (3,)
        Subject, model and residual, as a mean over voxels; negative estimates are not set to 0 here.
    share : ndarray of shape (3,)
        Of their sum, negative estimates counted as 0. NaN where nothing varies.
    interval : ndarray of shape (2, 3)
        95 % interval of `share`, by bootstrap over subjects.
    model_share : ndarray of shape (n_voxels,)
        Share of the model at each voxel, 0 where nothing varies.
    negative : ndarray of shape (3,)
        Share of voxels whose estimate is below 0, and was set to 0 in `model_share`.
    """

    variance: np.ndarray
    share: np.ndarray
    interval: np.ndarray
    model_share: np.ndarray
    negative: np.ndarray


def variance_components(values: np.ndarray) -> np.ndarray:
    """Variance of subjects, of models and of the rest in a crossed table, by analysis of variance.

    Parameters
    ----------
    values : ndarray of shape (n_subjects, n_models, n_voxels)
        At least two subjects and two models.

    Returns
    -------
    ndarray of shape (3, n_voxels)
        Subject, model, residual: what solves ``E[MS_subject] = residual + n_models subject``,
        ``E[MS_model] = residual + n_subjects model``, ``E[MS_rest] = residual``. The first two can be below
        0. Without replication the residual holds both interaction and noise.

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
    """Divide the variance of the maps of one method between subjects, models and the rest.

    Parameters
    ----------
    maps : MapRows
    folds : sequence of ndarray of shape (n_subjects, n_models), int
        Rows of `maps`: the subjects of a fold by the networks of that fold, one network per seed. All
        folds have the same number of models, at least two, and at least two subjects.
    n_bootstrap : int, default 1000
    random_state : int, default 0

    Returns
    -------
    VarianceShares

    Notes
    -----
    With k folds a seed has k networks, and no subject is explained by two folds. Components are therefore
    estimated inside each fold and averaged with the degrees of freedom of its subjects, n - 1, as
    weights. Differences between folds, in which training sets, networks and subjects are mixed, count
    for no component: "model" is what another seed changes for all subjects of a fold alike.

    Over the brain the components are averaged first and divided then; a mean of the voxels' shares would
    give voxels without variance the weight of all others. A draw of the bootstrap holds some subjects
    twice. A subject's maps are alike in all that is its own, so that pairs of a subject with itself are
    left out: otherwise every draw would call a part of the residual "model". The interval is over
    subjects and holds for these networks; how well few seeds stand for all seeds is not in it.
    """
    if any(fold.shape[0] < 2 or fold.shape[1] < 2 for fold in folds):
        raise ValueError("folds: at least two subjects and two models are needed in each")
    n_voxels = maps.values.shape[1]
    weights = np.array([len(fold) - 1 for fold in folds], float)
    voxels = np.zeros((3, n_voxels))
    for fold, weight in zip(folds, weights / weights.sum(), strict=True):
        for part, values in maps.blocks(fold.ravel()):
            voxels[:, part] += weight * variance_components(values.reshape(*fold.shape, -1))
    voxels[np.abs(voxels) < 1e-9 * np.abs(voxels).sum(0)] = 0  # what rounding leaves, of either sign
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
    """Shares of (3, ...) components; negative ones count as 0."""
    kept = np.maximum(components, 0)
    total = kept.sum(0)
    return np.divide(kept, total, out=np.full(kept.shape, np.nan), where=total > 0)


def _pairs(maps: MapRows, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each pair of subjects says of the components, as means over voxels, (n, n) each.

    Over models: the covariance of two subjects' maps; between two subjects it is the model's variance, of a
    subject with itself the model's and the residual's. Over pairs of models: half the product of two
    subjects' differences, the subjects' variance.
    """
    n, m = fold.shape
    products = np.zeros((n * m, n * m))
    for _, values in maps.blocks(fold.ravel()):
        products += values @ values.T
    products = products.reshape(n, m, n, m) / maps.values.shape[1]
    same = np.einsum("ijkj->ik", products)  # two subjects by one model, summed over models
    every = products.sum((1, 3))  # two subjects by any two models

    def mean_distance(products: np.ndarray) -> np.ndarray:
        own = np.diag(products)
        return own[:, None] + own - 2 * products

    over_models = (same - every / m) / (m - 1)
    over_pairs = (mean_distance(every) - mean_distance(same)) / (2 * m * (m - 1))
    return over_models, over_pairs


def _draws(
    over_models: np.ndarray, over_pairs: np.ndarray, n_bootstrap: int, rng: np.random.Generator
) -> np.ndarray:
    """Components of subjects drawn with replacement, (n_bootstrap, 3); NaN of a draw with one subject."""
    n = len(over_models)
    times = multinomial_counts(n, n_bootstrap, rng).astype(float)
    own = np.diag(over_models)
    n_pairs = n**2 - (times**2).sum(1)
    n_pairs[n_pairs == 0] = np.nan
    subject = ((times @ over_pairs) * times).sum(1) / n_pairs  # the diagonal is 0
    model = (((times @ over_models) * times).sum(1) - times**2 @ own) / n_pairs
    return np.stack([subject, model, times @ own / n - model], axis=1)

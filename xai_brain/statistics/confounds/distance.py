"""How far new participants are from those of training, relative to participants who were held out."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.covariance import LedoitWolf

UNUSUAL = 0.05  # p below which a participant counts as far away
FEWEST = 20  # participants of training


def distance_p(train: np.ndarray, held_out: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Conformal p-values of new participants: how many held-out ones are at least as far from training.

    The distance is that of Mahalanobis, with the shrunk covariance of Ledoit and Wolf of the training
    participants. Many features are replaced by their first principal components in the training participants,
    one for three participants, and the distance from the space of these components. If new and held-out
    participants come from one population, p is uniform.

    Parameters
    ----------
    train, held_out, new : ndarray of shape (n, n_features)

    Returns
    -------
    ndarray of shape (n_new,)
        ``(1 + n_at_least_as_far) / (1 + n_held_out)``.

    References
    ----------
    Ledoit and Wolf, Journal of Multivariate Analysis 88:365, 2004; Bates et al., "Testing for outliers with
    conformal p-values", Annals of Statistics 51:149, 2023.
    """
    centre, spread = train.mean(0), train.std(0)
    varies = spread > 1e-9 * np.abs(centre).clip(min=1e-12)
    if not varies.any():
        return np.ones(len(new))
    scaled = [(each[:, varies] - centre[varies]) / spread[varies] for each in (train, held_out, new)]
    if (n := len(train) // 3) < scaled[0].shape[1]:
        axes = np.linalg.svd(scaled[0], full_matrices=False)[2][:n].T
        scaled = [_components(each, axes) for each in scaled]
    fitted = LedoitWolf().fit(scaled[0])
    known, found = (fitted.mahalanobis(each) for each in scaled[1:])
    return (1 + (known[None] >= found[:, None]).sum(1)) / (1 + len(known))


def _components(values: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Principal components (n, k) and, as the last column, the distance from their space."""
    components = values @ axes
    rest = (values**2).sum(1) - (components**2).sum(1)
    return np.column_stack([components, np.sqrt(rest.clip(min=0))])


def share_is_high(p: np.ndarray) -> bool:
    """Whether more values lie below `UNUSUAL` than chance explains (binomial, one-sided, p < .01)."""
    n_far = int((p < UNUSUAL).sum())
    return bool(stats.binomtest(n_far, len(p), UNUSUAL, alternative="greater").pvalue < 0.01)

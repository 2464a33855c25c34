"""Measures from which all other measures have been regressed out."""

from __future__ import annotations

import numpy as np
import pandas as pd


def residuals_of_others(measures: pd.DataFrame, is_training: np.ndarray) -> pd.DataFrame:
    """Residuals of each measure after a linear regression on all other measures.

    Coefficients and intercept are those of the training participants; they are applied to all.

    Parameters
    ----------
    measures : pandas.DataFrame of shape (n_participants, n_measures)
        Numbers without missing values.
    is_training : bool ndarray of shape (n_participants,)

    Returns
    -------
    pandas.DataFrame of the shape of `measures`

    Raises
    ------
    ValueError
        There are too few training participants, or a measure is constant or a linear combination of others.
    """
    values = measures.to_numpy(float)
    train, k = values[is_training], values.shape[1]
    if len(train) < k + 2:
        raise ValueError(f"{len(train)} training participants: the residuals of {k} measures need {k + 2}")
    centre, spread = train.mean(0), train.std(0)
    if (constant := spread <= 1e-12 * np.abs(centre)).any():
        raise ValueError(f"{measures.columns[constant.argmax()]}: is the same for all training participants")
    scaled, train = (values - centre) / spread, (train - centre) / spread
    result = np.empty_like(values)
    for j in range(k):
        others = np.delete(np.arange(k), j)
        weights = np.linalg.lstsq(train[:, others], train[:, j], rcond=None)[0]
        left = train[:, j] - train[:, others] @ weights
        if left.std() < 1e-6:
            raise ValueError(f"{measures.columns[j]}: is a linear combination of the other measures")
        result[:, j] = (scaled[:, j] - scaled[:, others] @ weights) * spread[j]
    return pd.DataFrame(result, measures.index, measures.columns)

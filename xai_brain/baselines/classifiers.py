"""Baseline classifiers without a network, fitted to the training participants of a fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_selection import VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from xai_brain.baselines.voxel_features import BrainVoxels

N_INNER_FOLDS = 5
# Settings that cannot exceed the number of training participants.
BOUNDED = ("n_components", "n_neighbors")


class BaselineError(ValueError):
    """A baseline cannot be fitted; the message names it, the reason and a remedy."""


def pipeline_of(features: str, steps: Sequence[BaseEstimator]) -> Pipeline:
    """Pipeline of feature preprocessing and a classifier, to be fitted to the training participants.

    Parameters
    ----------
    features : {"voxels", "morphometry"}
        voxels: features inside the brain. morphometry: columns that vary, with missing values replaced by the
        median. Both are standardised and divided by the square root of their number, so that the squared
        distance between two participants is about 2 and the same range of C and gamma can be used.
    steps : sequence of scikit-learn estimators
        The last one is the classifier.
    """
    first = (
        [BrainVoxels()] if features == "voxels" else [SimpleImputer(strategy="median"), VarianceThreshold()]
    )
    return make_pipeline(*first, StandardScaler(), FunctionTransformer(_per_root_of_width), *steps)


def _per_root_of_width(values: np.ndarray) -> np.ndarray:
    return values / np.sqrt(values.shape[1])


def fit_baseline(
    pipeline: Pipeline,
    choices: Mapping[str, Sequence[Any]],
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    random_state: int = 0,
) -> tuple[CalibratedClassifierCV, dict[str, Any]]:
    """Select the settings of a classifier, calibrate it and fit it, using training participants only.

    Settings are selected by AUROC in inner folds. The selected classifier predicts the same inner folds; a
    sigmoid that is fitted to these predictions gives probabilities. Then it is fitted to all participants.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
    choices : mapping of parameter name to values
        As in `sklearn.model_selection.GridSearchCV`; empty: no selection.
    features : ndarray of shape (n_images, n_features)
    targets : int ndarray of shape (n_images,)
    groups : ndarray of shape (n_images,)
        Images with the same value (one participant, one family) stay together in the inner folds.
    random_state : int, default 0
        Seed of the inner folds.

    Returns
    -------
    model : sklearn.calibration.CalibratedClassifierCV
    chosen : dict

    Raises
    ------
    BaselineError
        A class has fewer than two groups.

    References
    ----------
    Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers, 1999.
    Varma & Simon, "Bias in error estimation when using cross-validation for model selection", BMC
    Bioinformatics 7:91, 2006.
    """
    smallest = int(pd.Series(groups).groupby(targets).nunique().min())
    if smallest < 2 or len(np.unique(targets)) < 2:
        raise BaselineError("a class has fewer than two training subjects to choose and calibrate with")
    splitter = StratifiedGroupKFold(min(N_INNER_FOLDS, smallest), shuffle=True, random_state=random_state)
    inner = list(splitter.split(features, targets, groups))
    n_fitted = min(len(train) for train, _ in inner)
    grid = bounded_choices(choices, n_fitted)
    chosen: dict[str, Any] = {}
    if any(len(values) > 1 for values in grid.values()):
        scoring = "roc_auc" if len(np.unique(targets)) == 2 else "roc_auc_ovr"
        if scoring == "roc_auc_ovr" and not hasattr(pipeline[-1], "predict_proba"):
            scoring = "balanced_accuracy"  # pairwise decision values are not probabilities
        search = GridSearchCV(pipeline, grid, scoring=scoring, cv=inner, refit=False, error_score="raise")
        chosen = dict(search.fit(features, targets).best_params_)
    elif grid:
        chosen = {name: values[0] for name, values in grid.items()}
    model = CalibratedClassifierCV(pipeline.set_params(**chosen), method="sigmoid", cv=inner, ensemble=False)
    return model.fit(features, targets), chosen


def bounded_choices(choices: Mapping[str, Sequence[Any]], n_fitted: int) -> dict[str, list[Any]]:
    """Values of parameters that are possible with this number of training participants."""
    return {name: _bounded(name, values, n_fitted) for name, values in choices.items()}


def _bounded(name: str, values: Sequence[Any], n_fitted: int) -> list[Any]:
    """Values that are possible with this number of participants."""
    if not name.endswith(BOUNDED):
        return list(values)
    most = n_fitted - 1
    return list(dict.fromkeys(min(v, most) if isinstance(v, int) else v for v in values))


def class_probabilities(model: Any, features: np.ndarray, n_classes: int) -> np.ndarray:
    """Probabilities of all classes, (n_images, n_classes); 0 for a class without training participants."""
    probabilities = np.zeros((len(features), n_classes))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities

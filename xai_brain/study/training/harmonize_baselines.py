"""Baselines on harmonised features: ComBat or linear residualisation, fitted to training participants."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.baselines.voxel_features import BrainVoxels
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.config.training import BaselineConfig, HarmonizationConfig
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.statistics.confounds.encoding import EncodingError, numeric_columns
from xai_brain.statistics.confounds.harmonization import ComBat, HarmonizationError, Residualization
from xai_brain.task.labels import is_label

HARMONIZED = ("voxels", "morphometry")  # kinds of features


def add_harmonized_baselines(config: Config, run: RunDirectory) -> None:
    """Replace the chosen baselines by those on harmonised features, named ``<baseline>_<method>``.

    Their settings contain those of the harmonisation, so that the run keeps and compares them like other
    settings of a baseline; baselines that are fitted already are kept.

    Raises
    ------
    ConfigError
        A column does not exist or is the target, or a baseline has no features that can be harmonised.
    """
    settings = config.harmonization
    if not settings.method:
        return
    check_columns(config, settings, read_tsv(run.participants))
    kept, added = {}, {}
    for name, baseline in config.baselines.items():
        if baseline.get("harmonization") or run.baseline(name).exists():
            kept[name] = baseline
        if baseline.get("harmonization"):
            continue
        if baseline["features"] in HARMONIZED:
            own = {key: value for key, value in asdict(settings).items() if value not in (None, [])}
            added[f"{name}_{settings.method}"] = {**baseline, "harmonization": own}
        elif name not in kept:
            raise ConfigError(
                f"baselines.{name}: harmonization={settings.method} changes the features of estimators, not "
                "the volumes of networks; leave it out"
            )
    if not added:
        raise ConfigError(
            f"harmonization={settings.method}: no baseline is chosen; add baselines=[linear_svm]"
        )
    config.baselines = {**kept, **added}
    config.harmonization = HarmonizationConfig()


def check_columns(config: Config, settings: HarmonizationConfig, participants: pd.DataFrame) -> None:
    """Raise an error if a column does not exist, or is the target."""
    named = {"covariates": settings.covariates, "confounds": settings.confounds}
    named |= {"site_column": [str(settings.site_column)] if settings.method == "combat" else []}
    for key, columns in named.items():
        for name in columns:
            where = f"harmonization.{key}={name}"
            if name in ("label", "target", "t1w_path") or _is_target(config, participants, name):
                why = "would be kept in test participants" if key == "covariates" else "would be removed"
                raise ConfigError(f"{where}: is the target, which {why}; leave it out")
            if name not in participants:
                known = ", ".join(str(each) for each in participants if not str(each).endswith("_path"))
                raise ConfigError(f"{where}: not in participants.tsv (its columns: {known})")


def _is_target(config: Config, participants: pd.DataFrame, name: str) -> bool:
    """Whether a column is that of the target, or says the same as the target."""
    if not config.planted.kind and is_label(name, config.data.label):
        return True
    if name not in participants:
        return False
    known = participants[[name, "target"]].dropna()
    values = [known.groupby(a)[b].nunique().max() for a, b in ((name, "target"), ("target", name))]
    return known["target"].nunique() > 1 and values == [1, 1]


def harmonized_features(
    features: np.ndarray, train: pd.DataFrame, test: pd.DataFrame, baseline: BaselineConfig
) -> np.ndarray:
    """Features of the training and test images of a fold, harmonised with values from the training images.

    Parameters
    ----------
    features : ndarray of shape (n_images, n_features)
        Of the whole cohort; 0 outside the brain (voxels), NaN where missing (morphometry).
    train, test : pandas.DataFrame
        Rows of the cohort, whose index gives the rows of `features`.
    baseline : BaselineConfig

    Returns
    -------
    ndarray of shape (n_images, n_features)
        Rows of other images, and voxels outside the brain of most training images, are 0.

    Raises
    ------
    ConfigError
        A site or a covariate has no value, or the harmonisation cannot be fitted or applied.
    """
    settings = HarmonizationConfig(**baseline.harmonization)
    rows = train.index.to_numpy(), test.index.to_numpy()
    used = (
        BrainVoxels().fit(features[rows[0]]).support_
        if baseline.features == "voxels"
        else ~np.isnan(features[rows[0]]).all(0)
    )
    found = np.zeros_like(features) if baseline.features == "voxels" else np.full_like(features, np.nan)
    parts = [features[each][:, used].astype(float) for each in rows]
    missing = [np.isnan(part) for part in parts]
    medians = np.nanmedian(parts[0], axis=0)
    filled = [np.where(gone, medians, part) for part, gone in zip(parts, missing, strict=True)]
    try:
        results = _fit_and_transform(filled, train, test, settings)
    except (HarmonizationError, EncodingError) as error:
        raise ConfigError(f"harmonization={settings.method}: {error}") from error
    for each, result, gone in zip(rows, results, missing, strict=True):
        found[np.ix_(each, np.flatnonzero(used))] = np.where(gone, np.nan, result)
    return found


def _fit_and_transform(
    parts: list[np.ndarray], train: pd.DataFrame, test: pd.DataFrame, settings: HarmonizationConfig
) -> list[np.ndarray]:
    columns = settings.covariates if settings.method == "combat" else settings.confounds
    encoded = numeric_columns(train, test, columns)
    if settings.method == "residualize":
        model = Residualization().fit(parts[0], encoded[0])
        return [model.transform(part, own) for part, own in zip(parts, encoded, strict=True)]
    sites = [_sites(table, str(settings.site_column)) for table in (train, test)]
    combat = ComBat(settings.unseen_site).fit(parts[0], sites[0], encoded[0])
    return [combat.transform(*each) for each in zip(parts, sites, encoded, strict=True)]


def _sites(table: pd.DataFrame, column: str) -> Any:
    if n_missing := int(table[column].isna().sum()):
        raise HarmonizationError(f"{column} has no value for {n_missing} images, which belong to no site")
    return table[column].astype(str).to_numpy()

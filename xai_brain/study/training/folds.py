"""The folds of a run: created or read, audited and logged."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from xai_brain.config.compose import ConfigError
from xai_brain.data.audit import audit_split, content_hashes
from xai_brain.data.folds.splits import make_folds, split_fold
from xai_brain.data.folds.summary import confound_differences, describe_confounds, summarise_folds
from xai_brain.data.folds.tables import NEVER_TESTED, fold_numbers, read_folds
from xai_brain.io.problems import named
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory, update_metrics, write_tsv
from xai_brain.task.labels import is_label

OF_PARTS = ("allow_shared", "validation_fraction", "validation_by_seed")  # not of who is tested when


def folds_of(cfg: DictConfig, cohort: pd.DataFrame) -> pd.DataFrame:
    """The folds that the settings ask for, or the table that they name."""
    settings = OmegaConf.to_container(cfg.folds)
    assert isinstance(settings, dict)
    path, only = settings.pop("path"), settings.pop("only")
    if path:
        folds, strangers = read_folds(path, cohort)
        if strangers:
            log(f"{path}: {named(strangers)} not in the cohort, left out")
    else:
        made = {str(k): v for k, v in settings.items() if k not in OF_PARTS}
        folds = make_folds(cohort, **made)
    return folds if only is None else one_fold(folds, only)


def one_fold(folds: pd.DataFrame, fold: int) -> pd.DataFrame:
    """One fold under its number; who is tested in another of the same repeat only trains.

    Raises
    ------
    ConfigError
        There is no such fold.
    """
    if fold not in (known := fold_numbers(folds)):
        raise ConfigError(f"folds.only={fold}: folds are {known[0]} to {known[-1]}")
    if "repeat" in folds:
        repeat = folds.loc[folds["fold"] == fold, "repeat"].iloc[0]
        folds = folds[folds["repeat"] == repeat].drop(columns="repeat").reset_index(drop=True)
    return folds.assign(fold=folds["fold"].where(folds["fold"] == fold, NEVER_TESTED))


def split_prepared_fold(
    cfg: DictConfig, cohort: pd.DataFrame, folds: pd.DataFrame, fold: int, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Training, validation and test rows of a fold of a run; who validates may depend on the seed."""
    settings = cfg.folds
    random_state = settings.random_state + (1000 * seed if settings.validation_by_seed else 0)
    return split_fold(cohort, folds, fold, settings.validation_fraction, random_state, settings.group_column)


def audit(cfg: DictConfig, cohort: pd.DataFrame, folds: pd.DataFrame) -> None:
    """Refuse folds that share a participant, a family or an image between their sides."""
    # of what effects were planted into: two copies of an image are one image, whatever they carry
    volume_paths = cohort["source_volume_path" if "source_volume_path" in cohort else "volume_path"].tolist()
    hashed = cohort.assign(
        content=content_hashes(volume_paths), sha256=cohort["sha256"].str.partition("+")[0]
    )
    shared = {"group_column": cfg.folds.group_column, "allow_shared": list(cfg.folds.allow_shared)}
    seeds = cfg.seeds if cfg.folds.validation_by_seed else [0]
    for fold, seed in product(fold_numbers(folds), seeds):
        audit_split(split_prepared_fold(cfg, hashed, folds, fold, seed), where=f"fold {fold}", **shared)


def log_folds(cfg: DictConfig, run: RunDirectory, cohort: pd.DataFrame, folds: pd.DataFrame) -> None:
    """Write the folds; log which variables other than the label differ between the classes."""
    label = cfg.data.label if cfg.planted.kind is None else f"planted {cfg.planted.kind}"
    confounds = [
        c for c in ("age", "sex", "site", cfg.data.brain_size_column) if c and not is_label(c, label)
    ]
    write_tsv(summarise_folds(cohort, folds, confounds), run.fold_summary)
    figures = {
        f"confound/{name}": value
        for name, value in confound_differences(cohort, confounds).items()
        if np.isfinite(value)
    }
    update_metrics(run, figures, replace=("confound/",))
    for line in describe_confounds(cohort, confounds, label):
        log(line)
    if cfg.augmentation.flip_probability:
        log("augmentation.flip_probability: left and right are mixed; maps say nothing of laterality")

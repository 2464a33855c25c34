"""The folds of a run: created or read, audited and logged."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.audit import audit_split, content_hashes
from xai_brain.data.folds.splits import make_folds, split_fold
from xai_brain.data.folds.summary import confound_differences, describe_confounds, summarise_folds
from xai_brain.data.folds.tables import NEVER_TESTED, fold_numbers, read_folds
from xai_brain.io.problems import named
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory, update_metrics, write_tsv
from xai_brain.runs.seeds import split_random_state
from xai_brain.task.build import build_task
from xai_brain.task.labels import is_label

OF_PARTS = (
    "allow_shared",
    "validation_fraction",
    "validation_by_seed",
)  # do not affect who is tested in which fold


def folds_of(config: Config, cohort: pd.DataFrame) -> pd.DataFrame:
    """Folds according to the settings, or from the table that they name."""
    settings = asdict(config.folds)
    path, only, task = settings.pop("path"), settings.pop("only"), build_task(config.task)
    if path:
        folds, unknown_ids = read_folds(path, cohort, task)
        if unknown_ids:
            log(f"{path}: {named(unknown_ids)} not in the cohort, left out")
    else:
        made = {key: value for key, value in settings.items() if key not in OF_PARTS}
        folds = make_folds(cohort, **made, task=task)
    return folds if only is None else one_fold(folds, only)


def one_fold(folds: pd.DataFrame, fold: int) -> pd.DataFrame:
    """One fold, with its number; participants tested in other folds of the repeat are used for training only.

    Raises
    ------
    ConfigError
        There is no such fold.
    """
    if fold not in (known := fold_numbers(folds)):
        raise ConfigError(f"folds.only={fold}: folds are {known[0]} to {known[-1]}, as in folds.tsv")
    if "repeat" in folds:
        repeat = folds.loc[folds["fold"] == fold, "repeat"].iloc[0]
        folds = folds[folds["repeat"] == repeat].drop(columns="repeat").reset_index(drop=True)
    return folds.assign(fold=folds["fold"].where(folds["fold"] == fold, NEVER_TESTED))


def split_prepared_fold(
    config: Config, cohort: pd.DataFrame, folds: pd.DataFrame, fold: int, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Training, validation and test rows of a fold of a run; the validation part may depend on the seed."""
    settings = config.folds
    return split_fold(
        cohort,
        folds,
        fold,
        settings.validation_fraction,
        split_random_state(settings.random_state, seed, settings.validation_by_seed),
        settings.group_column,
        build_task(config.task),
    )


def audit(config: Config, cohort: pd.DataFrame, folds: pd.DataFrame) -> None:
    """Raise an error if the parts of a fold share a participant, a family or an image."""
    # source images of planted effects: copies of an image with different effects are one image
    volume_paths = cohort["source_volume_path" if "source_volume_path" in cohort else "volume_path"].tolist()
    hashed = cohort.assign(
        content=content_hashes(volume_paths), sha256=cohort["sha256"].str.partition("+")[0]
    )
    group_column, allow_shared = config.folds.group_column, config.folds.allow_shared
    seeds = config.seeds if config.folds.validation_by_seed else [0]
    for fold, seed in product(fold_numbers(folds), seeds):
        audit_split(
            split_prepared_fold(config, hashed, folds, fold, seed),
            where=f"fold {fold + 1}",
            group_column=group_column,
            allow_shared=allow_shared,
        )


def log_folds(config: Config, run: RunDirectory, cohort: pd.DataFrame, folds: pd.DataFrame) -> None:
    """Write the folds; log which variables other than the label differ between the classes."""
    label = config.data.label if config.planted.kind is None else f"planted {config.planted.kind}"
    confounds = [
        c for c in ("age", "sex", "site", config.data.brain_size_column) if c and not is_label(c, label)
    ]
    if config.augmentation.flip_probability:
        log("augmentation.flip_probability: left and right are mixed; maps cannot show laterality")
    has_classes = build_task(config.task).has_classes
    write_tsv(summarise_folds(cohort, folds, confounds, has_classes), run.fold_summary)
    if not has_classes:
        return
    metrics = {
        f"confound/{name}": value
        for name, value in confound_differences(cohort, confounds).items()
        if np.isfinite(value)
    }
    update_metrics(run, metrics, replace=("confound/",))
    for line in describe_confounds(cohort, confounds, label or "class"):
        log(line)

"""Networks that are trained on permuted labels, whose maps cannot show a difference between the classes."""

from __future__ import annotations

import logging
import re

import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.data.permuted_labels import permute_labels
from xai_brain.io.atomic import file_hash
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.verbosity import LOGGER, temporary_verbosity
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.study.training.cross_validation import is_fitted, train_fold
from xai_brain.study.training.networks import Network


def permuted_run(config: Config, run: RunDirectory, number: int) -> RunDirectory:
    """Folder of the networks of one permutation, numbered from 1; other blocks have other folders."""
    blocks = "-".join(re.sub(r"[^A-Za-z0-9]", "", name) for name in config.evaluation.threshold.blocks)
    folder = run.path / "permuted" / (f"within-{blocks}" if blocks else "all")
    return RunDirectory(folder / f"permutation-{number:03d}")


def permuted_cohort(config: Config, cohort: pd.DataFrame, number: int) -> pd.DataFrame:
    """The cohort with permuted labels, within families and ``evaluation.threshold.blocks``."""
    family, blocks = config.folds.group_column, config.evaluation.threshold.blocks
    return permute_labels(cohort, number, blocks, family)


def permuted_network(
    config: Config, run: RunDirectory, cohort: pd.DataFrame, number: int, fold: int, seed: int
) -> Network:
    """Network of a fold that was trained like that of the run, on permuted labels; it is kept.

    Folds, budget of training and choice of the epoch are those of the run; labels are permuted in all parts
    of the fold.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    cohort : pandas.DataFrame
        Prepared cohort with its own labels.
    number : int
        Of the permutation, from 1.
    fold, seed : int
    """
    own = permuted_run(config, run, number)
    own.path.mkdir(parents=True, exist_ok=True)
    path = own.checkpoint(fold, seed)

    def done() -> bool:
        return is_fitted(own, fold, seed)

    def fit() -> None:
        permuted = permuted_cohort(config, cohort, number)
        with temporary_verbosity(None if LOGGER.isEnabledFor(logging.DEBUG) else "quiet"):
            train_fold(config, own, permuted, read_tsv(run.folds), fold, seed, f"train permutation {number}")

    if not done():
        run_exclusive(run.locks, f"permutation-{number:03d}_{path.stem}", fit, done)
    return Network(path, seed, fold, file_hash(path))

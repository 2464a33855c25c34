"""Ensembles of the networks of a run: mean over seeds, and the network chosen within each fold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from xai_brain.baselines.ensembles import chosen_within_folds, mean_over_seeds
from xai_brain.config.schema import Config
from xai_brain.data.folds.tables import fold_numbers
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory, read_tsv, write_tsv
from xai_brain.statistics.continuous.correction import CORRECTIONS, LEAST, corrected_predictions
from xai_brain.task.build import build_task, task_of_table

NETWORK = "network"
CHOSEN = "chosen_network"


def with_ensembles(
    config: Config, run: RunDirectory, predictions: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """The same classifiers, each followed by the mean of its seeds, and the chosen networks.

    A choice needs two kinds of networks that have predicted their validation parts. What was chosen in each
    fold is written to evaluation/chosen_network.tsv.

    Parameters
    ----------
    predictions : mapping of name to DataFrame
        As predictions.tsv; the networks of the run under the name ``network``.

    Returns
    -------
    dict of str to DataFrame
        ``<name>_ensemble`` where there are several seeds; ``chosen_network``; of a number
        ``network_calibrated`` and ``network_bias_corrected``.
    """
    together: dict[str, pd.DataFrame] = {}
    if build_task(config.task).reported_as == "number" and NETWORK in predictions:
        together = _with_corrections(config, run, predictions[NETWORK])
    for name, table in predictions.items():
        together[name] = table
        if table["seed"].nunique() > 1:
            task = task_of_table(config.task, table.columns)
            together[f"{name}_ensemble"] = mean_over_seeds(table, task)
    validation = {
        name: table for name in predictions if not (table := validation_of(config, run, name)).empty
    }
    run.evaluation(CHOSEN).unlink(missing_ok=True)
    if len(validation) > 1:
        task = task_of_table(config.task, next(iter(predictions.values())).columns)
        together[CHOSEN], choices = chosen_within_folds(predictions, validation, task)
        write_tsv(choices, run.evaluation(CHOSEN))
    return together


def _with_corrections(
    config: Config, run: RunDirectory, predictions: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Predicted numbers after calibration and after the correction of their bias, where these are defined."""
    validation = validation_of(config, run, NETWORK)
    (column,) = task_of_table(config.task, predictions.columns).columns
    found = {NETWORK: predictions}
    for name in CORRECTIONS if len(validation) else ():
        table = corrected_predictions(predictions, validation, column, name)
        if table is None:
            log(
                f"{name}: left out: it needs at least {LEAST} validation images in each fold, whose "
                "predictions increase with the target"
            )
        else:
            found[name] = table
    return found


def validation_of(config: Config, run: RunDirectory, name: str) -> pd.DataFrame:
    """Predictions of networks for their validation parts; empty if there are none or this is no network."""
    if name == NETWORK:
        seeds, folds = list(config.seeds), fold_numbers(read_tsv(run.folds))
        paths: list[Path] = [run.validation(fold, seed) for seed in seeds for fold in folds]
    else:
        paths = sorted(run.baseline(name).parent.glob("validation_*.tsv"))
    if not paths or not all(path.exists() for path in paths):
        return pd.DataFrame()
    return pd.concat([read_tsv(path) for path in paths], ignore_index=True)

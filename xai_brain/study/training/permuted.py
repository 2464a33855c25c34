"""Network trained on permuted labels, whose maps cannot show the effect."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.io.atomic import partial_prefix, write_atomic
from xai_brain.models.calibrated import CalibratedNetwork
from xai_brain.models.fitting import fit_fold, naming_network
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import EpochLines
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.runs.seeds import network_seed
from xai_brain.study.participants import task_of
from xai_brain.study.training.fold_training import classifier_settings, datamodule_of
from xai_brain.study.training.folds import split_prepared_fold
from xai_brain.study.training.networks import Network, load_classifier

SEED = 20_000  # seed of the permutation


def permute_labels(table: pd.DataFrame, seed: int = SEED) -> pd.DataFrame:
    """The same participants with permuted labels; all images of a participant have one label.

    Parameters
    ----------
    table : pandas.DataFrame
        participant_id, target and label.
    seed : int
    """
    unique = table.drop_duplicates("participant_id")
    order = np.random.default_rng(seed).permutation(len(unique))
    permuted = unique[["target", "label"]].iloc[order].set_axis(unique["participant_id"], axis=0)
    return table.assign(**{name: table["participant_id"].map(permuted[name]) for name in permuted})


def permuted_network(
    config: Config, run: RunDirectory, cohort: pd.DataFrame, network: Network
) -> CalibratedNetwork:
    """Network trained like `network` on the same participants with permuted labels; saved beside it."""
    path = network.checkpoint.with_name(f"{network.checkpoint.stem}_permuted.ckpt")

    def fit() -> None:
        parts = split_prepared_fold(config, cohort, read_tsv(run.folds), network.fold, network.seed)
        parts |= {name: permute_labels(parts[name]) for name in ("train", "validation")}
        fold_seed = network_seed(network.seed, network.fold)
        name = f"train with permuted labels, seed {network.seed} fold {network.fold + 1}"
        with (
            tempfile.TemporaryDirectory(dir=run.path, prefix=partial_prefix()) as work_dir,
            naming_network(name),
        ):
            _, network_file, _ = fit_fold(
                datamodule_of(config, parts, fold_seed),
                classifier_settings(config, task_of(config, cohort)),
                {**asdict(config.trainer), "tensorboard": False},
                seed=fold_seed,
                work_dir=Path(work_dir),
                report_epoch=EpochLines(name, config.trainer.max_epochs),
            )
            write_atomic(path, partial(shutil.copyfile, network_file))

    if not path.exists():
        run_exclusive(run.locks, path.stem, fit, path.exists)
    return load_classifier(path)

"""Train other networks on the folds of a run: on volumes, or on slabs of slices whose votes are averaged."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.training import BaselineConfig
from xai_brain.data.datamodule import BrainDataModule
from xai_brain.data.slabs import SlabDataModule
from xai_brain.io.nifti import get_grid
from xai_brain.models.fitting import fit_fold, naming_network, predict_outputs
from xai_brain.models.networks.slices2d import calibrated_votes
from xai_brain.parallel.progress import EpochLines
from xai_brain.study.training.fold_training import classifier_settings, datamodule_of
from xai_brain.task.protocol import Task


def fold_predictions(
    config: Config,
    settings: BaselineConfig,
    parts: dict[str, pd.DataFrame],
    task: Task,
    seed: int,
    what: str = "",
) -> dict[str, np.ndarray]:
    """Train a network on a fold, and predict its validation and test part.

    Probabilities of classes are calibrated on the validation part.

    Parameters
    ----------
    config : Config
        Settings of the run: trainer and, for volumes, augmentation.
    settings : Config
        Settings of the baseline: features (slabs or volumes), network, n_slices and changed trainer settings.
    parts : dict of pandas.DataFrame
        ``train``, ``validation``, ``test``.
    task : Task
        Task with the names of its outputs.
    seed : int
    what : str, optional
        Prefix of the log lines of epochs.

    Returns
    -------
    dict of ndarray
        ``validation`` (n_validation, n_columns) and ``test`` (n_test, n_columns): probabilities, or the
        predicted number in its unit.
    """
    trainer = replace(config.trainer, **settings.trainer)
    own = replace(config, model=settings.network, trainer=trainer)
    data: SlabDataModule | BrainDataModule
    if settings.features == "slabs":
        trainer.standardize = None  # applies to volumes only
        assert settings.n_slices is not None
        data = SlabDataModule(parts, settings.n_slices, trainer.batch_size, trainer.sampling, seed)
        x, _, z = get_grid(config.preprocessing.grid).shape
        classifier_kwargs = classifier_settings(own, task) | {"input_shape": [settings.n_slices, x, z]}
    else:
        data, classifier_kwargs = datamodule_of(own, parts, seed), classifier_settings(own, task)
    with tempfile.TemporaryDirectory() as work_dir, naming_network(what):
        classifier, _, _ = fit_fold(
            data,
            classifier_kwargs,
            asdict(trainer),
            seed=seed,
            work_dir=Path(work_dir),
            report_epoch=EpochLines(what, trainer.max_epochs),
        )
        validation, targets = predict_outputs(classifier, data.val_dataloader())
        test, _ = predict_outputs(classifier, data.test_dataloader())
    outputs = {"validation": validation, "test": test}
    if isinstance(data, SlabDataModule):
        n_slabs = data.n_slabs
        outputs = {part: calibrated_votes(validation, targets, of, n_slabs) for part, of in outputs.items()}
    return {part: task.predict(values).numpy() for part, values in outputs.items()}

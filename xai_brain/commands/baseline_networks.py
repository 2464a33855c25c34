"""Other networks on the folds of a run: whole volumes, or slabs of slices that vote."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from xai_brain.commands.fold_training import classifier_settings, datamodule_of
from xai_brain.data.slabs import SlabDataModule
from xai_brain.models.fitting import fit_fold, predict_logits
from xai_brain.models.slices2d import calibrated_votes
from xai_brain.volumes import get_grid


def fold_probabilities(
    cfg: DictConfig, settings: DictConfig, parts: dict[str, pd.DataFrame], names: list[str], seed: int
) -> np.ndarray:
    """Train a network on a fold, calibrate it on its validation part, predict its test part.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
        Of the run: trainer and, for volumes, augmentation.
    settings : omegaconf.DictConfig
        Of the baseline: features (slabs or volumes), network, n_slices and what differs in the trainer.
    parts : dict of pandas.DataFrame
        ``train``, ``validation``, ``test``.
    names : list of str
        Classes.
    seed : int

    Returns
    -------
    ndarray of shape (n_test, n_classes)
    """
    own = cfg.copy()
    own.model = settings.network
    own.trainer = OmegaConf.merge(cfg.trainer, settings.get("trainer") or {})
    slabs = settings.features == "slabs"
    if slabs:
        own.trainer.subtract_mean = False  # it is a mean of volumes
        data = SlabDataModule(parts, settings.n_slices, own.trainer.batch_size)
    classifier_kwargs = classifier_settings(own, names)
    if slabs:
        x, _, z = get_grid(cfg.preprocessing.grid).shape
        classifier_kwargs["input_shape"] = [settings.n_slices, x, z]
    with tempfile.TemporaryDirectory() as work_dir:
        classifier, _, _ = fit_fold(
            data if slabs else datamodule_of(own, parts, seed),
            classifier_kwargs,
            dict(own.trainer),
            seed=seed,
            work_dir=Path(work_dir),
        )
    if not slabs:
        logits, _ = predict_logits(classifier, datamodule_of(own, parts, seed).test_dataloader())
        return logits.softmax(1).numpy()
    validation, targets = predict_logits(classifier, data.val_dataloader())
    test, _ = predict_logits(classifier, data.test_dataloader())
    return calibrated_votes(validation, targets, test, data.n_slabs).softmax(1).numpy()

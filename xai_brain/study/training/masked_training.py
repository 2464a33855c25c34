"""Retrain networks on masked images, to measure the information in the voxels of a mask.

References
----------
Hooker et al., "A Benchmark for Interpretability Methods in Deep Neural Networks", NeurIPS 2019.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from xai_brain.metrics.deletion_insertion import removal_baselines
from xai_brain.models.fitting import fit_fold, naming_network, predict_outputs
from xai_brain.runs.directory import read_tsv, write_tsv
from xai_brain.runs.seeds import network_seed
from xai_brain.study.evaluation.context import EvaluationContext
from xai_brain.study.explanation.batches import load_volume
from xai_brain.study.training.fold_training import classifier_settings, datamodule_of
from xai_brain.study.training.folds import split_prepared_fold


def retrain_masked(context: EvaluationContext, left: np.ndarray, path: Path) -> None:
    """Train with the parts, settings and seed of the fold on masked images, predict its masked test images.

    Parameters
    ----------
    context : EvaluationContext
    left : bool ndarray of shape (X, Y, Z)
        Voxels that are not replaced.
    path : Path
        Table of participant_id, session_id, prob_<class>... to write.
    """
    config, network, task = context.config, context.network, context.classifier.task
    parts = split_prepared_fold(
        config, context.cohort, read_tsv(context.run.folds), network.fold, network.seed
    )
    seed = network_seed(network.seed, network.fold)
    name = f"retraining on masked images, seed {network.seed} fold {network.fold + 1}"
    with tempfile.TemporaryDirectory() as folder, naming_network(name):
        masked = {
            name: masked_volumes(context, part, left, Path(folder) / name) for name, part in parts.items()
        }
        data = datamodule_of(config, masked, seed)
        classifier, _, _ = fit_fold(
            data,
            classifier_settings(config, task),
            {**asdict(config.trainer), "tensorboard": False},
            seed=seed,
            work_dir=Path(folder) / "logs",
        )
        outputs, _ = predict_outputs(classifier, data.test_dataloader())
    predicted = pd.DataFrame(task.predict(outputs).numpy(), columns=task.columns)
    images = parts["test"][["participant_id", "session_id"]].reset_index(drop=True)
    write_tsv(pd.concat([images, predicted], axis=1), path)


def masked_volumes(
    context: EvaluationContext, part: pd.DataFrame, left: np.ndarray, folder: Path
) -> pd.DataFrame:
    """Write volumes in which only some voxels are kept to a folder; returns the rows with their paths.

    Augmentation is applied afterwards, as to original images.
    """
    folder.mkdir(parents=True)
    kept, paths = torch.from_numpy(left), []
    for number, path in enumerate(part["volume_path"]):
        volume = torch.from_numpy(load_volume(path))[None, None]
        fill = removal_baselines(context.config.evaluation.masks.removal, volume, context.reference)
        paths.append(str(folder / f"{number}.npy"))
        np.save(paths[-1], torch.where(kept, volume, fill)[0, 0].numpy())
    return part.assign(volume_path=paths)


def read_retrained_predictions(images: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Probabilities written by `retrain_masked`, in the order of the images."""
    order = pd.MultiIndex.from_frame(images[["participant_id", "session_id"]])
    return read_tsv(path).set_index(["participant_id", "session_id"]).loc[order].reset_index(drop=True)

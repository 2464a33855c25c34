"""Maps of one network that are used at once and not saved, such as those of a permuted network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from xai_brain.config.schema import Config
from xai_brain.io.nifti import get_grid
from xai_brain.parallel.threads import ReadAhead
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.explanation.batches import (
    Batch,
    Explainer,
    build_reference,
    load_inputs,
    mean_maps,
    refuse_non_finite,
    rows_of,
    seed_of,
)
from xai_brain.study.explanation.configured_methods import build_method, takes_reference
from xai_brain.study.training.networks import Network, training_subjects


@dataclass(frozen=True, eq=False)
class NetworkMap:
    """A map of one network.

    Parameters
    ----------
    label : str
        Method.
    row : dict
        Row of the predictions of the network.
    of_cohort : pandas.Series
        Row of the cohort.
    values : ndarray of shape (X, Y, Z)
    """

    label: str
    row: dict[str, Any]
    of_cohort: Any
    values: np.ndarray


def network_maps(
    config: Config,
    run: RunDirectory,
    cohort: pd.DataFrame,
    network: Network,
    predictions: pd.DataFrame,
    labels: Sequence[str],
) -> Iterator[NetworkMap]:
    """Maps of one network by several methods; they equal those that `explain_run` saves.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    cohort : pandas.DataFrame
        With the labels that the network was trained on; the reference of methods contains its training part.
    network : Network
    predictions : pandas.DataFrame
        Rows of the participants who are explained.
    labels : sequence of str
        Methods.
    """
    for label, explainer in _explainers(config, run, cohort, network, labels):
        yield from _maps(config, cohort, network, predictions, label, explainer)


def _explainers(
    config: Config, run: RunDirectory, cohort: pd.DataFrame, network: Network, labels: Sequence[str]
) -> Iterator[tuple[str, Explainer]]:
    classifier, reference = network.load(config), None
    if any(takes_reference(config, label) for label in labels):
        grid, n_volumes = get_grid(config.preprocessing.grid), config.explain.n_reference_volumes
        train = next(training_subjects(config, run, cohort, [network]))
        reference = build_reference(train, classifier.task, n_volumes, grid)
    for label in labels:
        yield label, Explainer(classifier, *build_method(config, label, classifier, reference))


def _maps(
    config: Config,
    cohort: pd.DataFrame,
    network: Network,
    rows: pd.DataFrame,
    label: str,
    explainer: Explainer,
) -> Iterator[NetworkMap]:
    size, task = config.explain.batch_size, explainer.classifier.task
    starts = range(0, len(rows), size)
    batches = [Batch(network.seed, network.fold, rows.iloc[i : i + size]) for i in starts]
    device = next(explainer.classifier.parameters()).device
    with ReadAhead(partial(load_inputs, cohort, device), batches) as volumes:
        for batch in batches:
            predicted, true = batch.rows[task.columns].to_numpy(float), batch.rows["target"].to_numpy()
            explained = task.explained_targets(config.explain.target, predicted, true)
            inputs = volumes.get(batch).to(device)
            targets = torch.from_numpy(explained).to(device)
            maps, _ = mean_maps([explainer], inputs, targets, label, seed_of(batch))
            refuse_non_finite(maps, batch, label, 1)
            for row, of_cohort, values in zip(
                batch.rows.to_dict("records"), rows_of(cohort, batch), maps, strict=True
            ):
                yield NetworkMap(label, row, of_cohort, values[0].numpy())

"""Maps of networks that are used at once and not saved, such as those of a permuted network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from xai_brain.attribution.reference import Reference
from xai_brain.config.schema import Config
from xai_brain.io.nifti import get_grid
from xai_brain.models.calibrated import CalibratedNetwork
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
from xai_brain.study.training.networks import ALL, Network, is_weights_file, training_subjects


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
    networks: Sequence[Network],
    predictions: pd.DataFrame,
    labels: Sequence[str],
) -> Iterator[NetworkMap]:
    """Maps of one network, or mean maps of several, by several methods; they equal those of `explain_run`.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    cohort : pandas.DataFrame
        With the labels that the networks were trained on; references contain its training part.
    networks : sequence of Network
    predictions : pandas.DataFrame
        Rows of the participants who are explained.
    labels : sequence of str
        Methods.
    """
    classifiers = [network.load(config) for network in networks]
    references = references_of(config, run, cohort, networks, classifiers, labels)
    seed, fold = (networks[0].seed, networks[0].fold) if len(networks) == 1 else ALL
    size = config.explain.batch_size
    starts = range(0, len(predictions), size)
    batches = [Batch(seed, fold, predictions.iloc[i : i + size]) for i in starts]
    for label in labels:
        explainers = [
            Explainer(classifier, *build_method(config, label, classifier, reference))
            for classifier, reference in zip(classifiers, references, strict=True)
        ]
        yield from _maps(config, cohort, batches, label, explainers)


def references_of(
    config: Config,
    run: RunDirectory,
    cohort: pd.DataFrame,
    networks: Sequence[Network],
    classifiers: Sequence[CalibratedNetwork],
    labels: Sequence[str],
) -> list[Reference | None]:
    """Reference of each network; None if no method takes one, or its training participants are not known."""
    if is_weights_file(config) or not any(takes_reference(config, label) for label in labels):
        return [None] * len(networks)
    grid, n_volumes = get_grid(config.preprocessing.grid), config.explain.n_reference_volumes
    return [
        build_reference(train, classifiers[0].task, n_volumes, grid)
        for train in training_subjects(config, run, cohort, list(networks))
    ]


def _maps(
    config: Config,
    cohort: pd.DataFrame,
    batches: Sequence[Batch],
    label: str,
    explainers: list[Explainer],
) -> Iterator[NetworkMap]:
    task = explainers[0].classifier.task
    device = next(explainers[0].classifier.parameters()).device
    with ReadAhead(partial(load_inputs, cohort, device), batches) as volumes:
        for batch in batches:
            predicted, true = batch.rows[task.columns].to_numpy(float), batch.rows["target"].to_numpy()
            explained = task.explained_targets(config.explain.target, predicted, true)
            inputs = volumes.get(batch).to(device)
            targets = torch.from_numpy(explained).to(device)
            maps, _ = mean_maps(explainers, inputs, targets, label, seed_of(batch))
            refuse_non_finite(maps, batch, label, len(explainers))
            for row, of_cohort, values in zip(
                batch.rows.to_dict("records"), rows_of(cohort, batch), maps, strict=True
            ):
                yield NetworkMap(label, row, of_cohort, values[0].numpy())

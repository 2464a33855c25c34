"""Check before training that the configured attribution methods apply to the network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate

from xai_brain.attribution.model_state import preserved
from xai_brain.attribution.protocol import method_info
from xai_brain.attribution.reference import Reference
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid
from xai_brain.metrics.maps import seeded
from xai_brain.metrics.table import select_metrics
from xai_brain.models.module import BrainClassifier
from xai_brain.parallel.progress import format_error, track
from xai_brain.study.explanation.batches import build_reference, load_volume
from xai_brain.study.explanation.configured_methods import build_method, multiplies_by_inputs, takes_reference
from xai_brain.study.participants import task_of
from xai_brain.study.training.fold_training import classifier_settings

N_OF_CLASS = 3  # participants of each class in the reference of the trial


def try_methods(config: Config, cohort: pd.DataFrame) -> None:
    """Explain one volume with the untrained network and each configured method.

    Iterative methods make a single iteration (`trial_settings` of their `MethodInfo`), because the question
    is only whether a method applies to the network and its output.

    Parameters
    ----------
    config : Config
    cohort : pandas.DataFrame
        Prepared cohort.

    Raises
    ------
    ConfigError
        Some methods fail; the message contains the reasons and the settings that remove the methods.
    """
    if not config.attribution:
        return
    with seeded(torch.device("cpu"), 0):
        task = task_of(config, cohort)
        classifier = BrainClassifier(**classifier_settings(config, task)).eval()
        reference = None
        if any(takes_reference(config, label) for label in config.attribution):
            ordered = cohort.sort_values("target")
            some = ordered.iloc[[0, len(ordered) // 2, -1]] if task.standardizes_targets else cohort
            few = some.groupby(task.reference_groups(some["target"])).head(N_OF_CLASS)
            grid = get_grid(config.preprocessing.grid)
            reference = build_reference(few, task, N_OF_CLASS * task.n_outputs, grid)
        volume = torch.from_numpy(np.array(load_volume(cohort.iloc[0]["volume_path"])))[None, None]
        failures = {}
        for label in track(list(config.attribution), "try methods", "methods", brief=True):
            try:
                _try_method(config, label, classifier, reference, volume)
            except Exception as error:  # classes of methods may raise any exception
                failures[label] = format_error(error)
    if failures:
        reasons = "; ".join(f"attribution.{label}: {reason}" for label, reason in failures.items())
        removal = " ".join(f"'~attribution.{label}'" for label in failures)
        raise ConfigError(
            f"the network {config.model['_target_']} cannot be explained by {', '.join(failures)} "
            f"({reasons}); add {removal} to the command to continue without"
        )


def _try_method(
    config: Config,
    label: str,
    classifier: BrainClassifier,
    reference: Reference | None,
    volume: torch.Tensor,
) -> None:
    factory = instantiate(config.attribution[label])
    quick = method_info(factory).trial_settings
    attribution = {**config.attribution, label: {**config.attribution[label], **quick}}
    trial = replace(config, attribution=attribution)
    with preserved(classifier):
        method, _ = build_method(trial, label, classifier, reference)
        maps = method.attribute(volume.clone().requires_grad_(), target=torch.tensor([0]))
    if maps.shape != volume.shape:
        raise ConfigError(f"its maps have the shape {tuple(maps.shape)}, inputs {tuple(volume.shape)}")
    if not bool(maps.isfinite().all()):
        raise ConfigError("its maps contain NaN or infinite values")
    if "infidelity" in select_metrics(config.evaluation.card.metrics):
        multiplies_by_inputs(method, label)

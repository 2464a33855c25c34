"""Whether the configured attribution methods can explain the chosen network, found out before training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from xai_brain.attribution.model_state import preserved
from xai_brain.attribution.protocol import method_info
from xai_brain.attribution.reference import Reference
from xai_brain.config.compose import ConfigError
from xai_brain.io.nifti import get_grid
from xai_brain.metrics.maps import seeded
from xai_brain.metrics.table import select_metrics
from xai_brain.models.module import BrainClassifier
from xai_brain.parallel.progress import format_error
from xai_brain.study.explanation.batches import build_reference, load_volume
from xai_brain.study.explanation.configured_methods import build_method, multiplies_by_inputs, takes_reference
from xai_brain.study.participants import class_names
from xai_brain.study.training.fold_training import classifier_settings

N_OF_CLASS = 3  # participants of each class in the reference of the trial


def try_methods(cfg: DictConfig, cohort: pd.DataFrame) -> None:
    """Explain one volume by the untrained network with each configured method.

    Iterative methods make a single iteration (`trial_settings` of their `MethodInfo`), because the question
    is only whether a method applies to the network and its output.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
    cohort : pandas.DataFrame
        Prepared.

    Raises
    ------
    ConfigError
        Some methods fail: the reasons, and the settings that remove them.
    """
    if not cfg.attribution:
        return
    with seeded(torch.device("cpu"), 0):
        names = class_names(cohort)
        classifier = BrainClassifier(**classifier_settings(cfg, names)).eval()
        reference = None
        if any(takes_reference(cfg, label) for label in cfg.attribution):
            few = cohort.groupby("target").head(N_OF_CLASS)
            grid = get_grid(cfg.preprocessing.grid)
            reference = build_reference(few, names, N_OF_CLASS * len(names), grid)
        volume = torch.from_numpy(np.array(load_volume(cohort.iloc[0]["volume_path"])))[None, None]
        failures = {}
        for label in cfg.attribution:
            try:
                _try_method(cfg, label, classifier, reference, volume)
            except Exception as error:  # whatever the class of a method does
                failures[label] = format_error(error)
    if failures:
        reasons = "; ".join(f"attribution.{label}: {reason}" for label, reason in failures.items())
        removal = " ".join(f"'~attribution.{label}'" for label in failures)
        raise ConfigError(
            f"the network {cfg.model['_target_']} cannot be explained by {', '.join(failures)} ({reasons}); "
            f"add {removal} to the command to continue without"
        )


def _try_method(
    cfg: DictConfig,
    label: str,
    classifier: BrainClassifier,
    reference: Reference | None,
    volume: torch.Tensor,
) -> None:
    factory = instantiate(cfg.attribution[label])
    quick = method_info(factory).trial_settings
    trial = OmegaConf.create(OmegaConf.to_container(cfg))
    assert isinstance(trial, DictConfig)
    trial.attribution[label] = {**trial.attribution[label], **quick}
    with preserved(classifier):
        method, _ = build_method(trial, label, classifier, reference)
        maps = method.attribute(volume.clone().requires_grad_(), target=torch.tensor([0]))
    if maps.shape != volume.shape:
        raise ConfigError(f"its maps have the shape {tuple(maps.shape)}, inputs {tuple(volume.shape)}")
    if not bool(maps.isfinite().all()):
        raise ConfigError("its maps hold NaN or infinite values")
    if "infidelity" in select_metrics(cfg.evaluation.card.metrics):
        multiplies_by_inputs(method, label)

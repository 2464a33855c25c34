"""Fit baseline classifiers on the folds of a run."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.training.fit_baselines import baselines_run


def baselines(cfg: DictConfig | Config) -> RunDirectory:
    """Fit the missing baselines, and compare all baselines with the networks.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.compose`, or the settings of an existing run.

    Returns
    -------
    RunDirectory
        With baselines/<name>/predictions.tsv and choices.tsv, evaluation/baselines.tsv and their metrics
        in metrics.json.
    """
    return baselines_run(read_config(cfg))

"""Corrected thresholds of the maps of a run."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.settings import stage
from xai_brain.study.thresholds.thresholds import threshold_run


def threshold(cfg: DictConfig | Config) -> RunDirectory:
    """Train the missing networks on permuted labels, and compute corrected thresholds of every method.

    Networks that were trained elsewhere are compared with copies of them that have randomised parameters.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.compose`, or the settings of an existing run.

    Returns
    -------
    RunDirectory
        With evaluation/thresholds.tsv, evaluation/threshold_maps.tsv and permuted/ (the networks) or
        randomized/ (statistics).

    Raises
    ------
    ConfigError
        A method or column does not exist; the network is not stored with its maps.
    """
    return stage(threshold_run)(read_config(cfg))

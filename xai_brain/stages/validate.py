"""Evaluate the networks of a run on images that contain only top-ranked voxels, or lack them."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.evaluation.mask_validation import validate_run
from xai_brain.study.settings import stage


def validate(cfg: DictConfig | Config) -> RunDirectory:
    """Make the missing masks of every network and method, and the metrics of all masks.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.compose`, or the settings of an existing run.

    Returns
    -------
    RunDirectory
        With evaluation/mask_validation.tsv, mask_predictions.tsv and masks/ (the ranks of voxels of each
        network), the maps of the shares of the networks in group/, and the metrics of the joint masks in
        metrics.json.

    Raises
    ------
    ConfigError
        The run has no trained networks; a method or class does not exist.
    """
    return stage(validate_run)(read_config(cfg))

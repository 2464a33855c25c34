"""Evaluate the networks of a run on images that contain only top-ranked voxels, or lack them."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.evaluation.mask_validation import validate_run
from xai_brain.study.settings import stage


def validate(cfg: DictConfig | Config) -> RunDirectory:
    """Make what is missing of the masks of every network and method, and the figures of all of them.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.compose`, or the settings of an existing run.

    Returns
    -------
    RunDirectory
        With evaluation/mask_validation.tsv, mask_predictions.tsv and masks/ (the order of voxels of each
        network), group/desc-<Method>_mask-<joint or class>-top<area>_stat-share_statmap.nii.gz, and the
        figures of the joint masks in metrics.json.

    Raises
    ------
    ConfigError
        The run has no trained networks of its own; a method or class does not exist.
    """
    return stage(validate_run)(read_config(cfg))

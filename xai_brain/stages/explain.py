"""Explain every participant with the network that was not trained on it."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.explanation.missing_maps import explain_run
from xai_brain.study.settings import stage


def explain(cfg: DictConfig | Config) -> RunDirectory:
    """Make the missing maps.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.compose`, or the settings of an existing run.

    Returns
    -------
    RunDirectory
        With attributions/ (NIfTI and JSON sidecar per participant and method) and images/.
    """
    return stage(explain_run)(read_config(cfg))

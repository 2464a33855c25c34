"""Compare the maps of a run with each other, between classes, and with the true location if known."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.evaluation.tables import evaluate_run
from xai_brain.study.settings import stage


def evaluate(cfg: DictConfig | Config) -> RunDirectory:
    """Evaluate all maps of a run; networks are needed for a report card only.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.compose`, or the settings of an existing run.

    Returns
    -------
    RunDirectory
        With the tables of `xai_brain.study.evaluation.tables.evaluate_run` and group/.
    """
    return stage(evaluate_run)(read_config(cfg))

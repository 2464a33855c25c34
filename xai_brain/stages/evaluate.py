"""Compare the maps of a run: with each other, between classes, and with the truth where it is known."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.runs.directory import RunDirectory
from xai_brain.study.evaluation.tables import evaluate_run
from xai_brain.study.settings import stage


@stage
def evaluate(cfg: DictConfig) -> RunDirectory:
    """Evaluate all maps of a run; networks are needed for a report card only.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
        From `xai_brain.compose`, or the settings of an existing run.

    Returns
    -------
    RunDirectory
        With the tables of `xai_brain.study.evaluation.tables.evaluate_run` and group/.
    """
    return evaluate_run(cfg)

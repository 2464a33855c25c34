"""Write report.html of a run."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.report_page import report_run
from xai_brain.study.settings import stage


def report(cfg: DictConfig | Config) -> RunDirectory:
    """Write the report, unless it is up to date.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.compose`, or the settings of an existing run.

    Returns
    -------
    RunDirectory
        With report.html and figures/.
    """
    return stage(report_run)(read_config(cfg))

"""Explain every participant with the network that was not trained on it."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.evaluation.found_maps import are_evaluated
from xai_brain.study.explanation.missing_maps import explain_run, n_maps_missing
from xai_brain.study.settings import stage
from xai_brain.task.build import build_task


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
    config = read_config(cfg)
    run = stage(explain_run)(config)
    reported = build_task(config.task).reported_as is not None
    if reported and not n_maps_missing(config, run) and not are_evaluated(config, run):
        log(
            f"explain: `xai-brain evaluate {run.path}` and then `xai-brain report {run.path}` include these "
            "maps"
        )
    return run

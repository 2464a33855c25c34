"""Train one network per fold and seed; every participant is predicted by a network not trained on it."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.runs.directory import RunDirectory
from xai_brain.stages.baselines import baselines, check_baselines
from xai_brain.study.settings import stage
from xai_brain.study.training.cross_validation import train_run


@stage
def train(cfg: DictConfig) -> RunDirectory:
    """Train all folds and seeds of a run; folds that are finished are kept.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
        From `xai_brain.compose`.

    Returns
    -------
    RunDirectory
        With checkpoints, predictions.tsv, participants.tsv, folds.tsv and test scores in metrics.json;
        and with the baselines that are chosen.
    """
    check_baselines(cfg)
    run = train_run(cfg)
    return baselines(cfg) if cfg.baselines else run

"""Train one network per fold and seed; every participant is predicted by a network not trained on it."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from xai_brain.models.fitting_in_processes import take_part
from xai_brain.models.process_group import global_rank
from xai_brain.models.trainer_setup import check_trainer_arguments
from xai_brain.runs.directory import RunDirectory
from xai_brain.stages.baselines import baselines, check_baselines
from xai_brain.study.settings import stage
from xai_brain.study.training.cross_validation import train_run


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

    Notes
    -----
    If torchrun or SLURM has started several processes for the training of one network, only rank zero
    works on the run; in the others this function takes part in its trainings and returns after the last.
    """
    check_trainer_arguments(cfg.trainer.extra)
    if global_rank(cfg.trainer):
        take_part(cfg.trainer)
        return RunDirectory(Path(cfg.run_dir))
    return _train(cfg)


@stage
def _train(cfg: DictConfig) -> RunDirectory:
    check_baselines(cfg)
    run = train_run(cfg)
    return baselines(cfg) if cfg.baselines else run

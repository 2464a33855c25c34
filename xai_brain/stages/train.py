"""Train one network per fold and seed; predict every participant with a network not trained on it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.models.fitting_in_processes import take_part
from xai_brain.models.process_group import global_rank
from xai_brain.models.trainer_setup import check_trainer_arguments
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.settings import stage
from xai_brain.study.training.cross_validation import train_run
from xai_brain.study.training.fit_baselines import baselines_run, check_baselines


def train(cfg: DictConfig | Config) -> RunDirectory:
    """Train all folds and seeds of a run; finished folds are kept.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.compose`.

    Returns
    -------
    RunDirectory
        With checkpoints, predictions.tsv, participants.tsv, folds.tsv and test scores in metrics.json;
        and with the selected baselines.

    Notes
    -----
    If torchrun or SLURM has started several processes for the training of one network, only rank zero
    works on the run; in the other processes this function takes part in all trainings and returns after the
    last.
    """
    config = read_config(cfg)
    check_trainer_arguments(config.trainer.extra)
    if global_rank(asdict(config.trainer)):
        take_part(asdict(config.trainer))
        return RunDirectory(Path(config.run_dir))
    return stage(_train)(config)


def _train(config: Config) -> RunDirectory:
    check_baselines(config)
    run = train_run(config)
    return baselines_run(config) if config.baselines else run

"""Predict new participants with the ensemble of all networks of a run, or with the weights of a file."""

from __future__ import annotations

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.runs.directory import RunDirectory
from xai_brain.study.settings import stage
from xai_brain.study.training.predict_participants import predict_run


def predict(cfg: DictConfig | Config) -> RunDirectory:
    """Predict new participants: the mean of the calibrated probabilities of all networks.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.study.training.predict_settings.predict_settings`.

    Returns
    -------
    RunDirectory
        With participants.tsv and predictions.tsv (``n_networks`` and ``networks_agree``, the share of
        networks that predict the same class); with test metrics if all classes are known and present.
    """
    return stage(predict_run)(read_config(cfg))

"""Settings of a command. Slow imports come late, so that a missing folder is reported first."""

from __future__ import annotations

from pathlib import Path

from xai_brain.config.checks import check_code, typed
from xai_brain.config.command_help import STAGES
from xai_brain.config.compose import compose
from xai_brain.config.inputs import check_paths
from xai_brain.config.overrides import all_values, text_setting
from xai_brain.config.saved import merged_settings, stage_settings
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError

OF_SWEEPS = ("hydra.", "hydra/", "sweep=", "launcher=")


def command_settings(command: str, overrides: list[str]) -> Config:
    """Settings of a command as it is typed, completely checked.

    Parameters
    ----------
    command : str
        A stage, ``run`` or ``predict``.
    overrides : list of str

    Raises
    ------
    ConfigError, DataError
        One line: a setting, file, column or class does not exist, or code that is not trusted would run.
    """
    config = check_inexpensively(command, overrides)
    if command == "predict":
        from xai_brain.study.training.predict_settings import predict_settings

        return predict_settings(overrides)
    check_code(config)
    return config


def check_inexpensively(command: str, overrides: list[str]) -> Config:
    """Settings of a command after the checks that need neither images nor torch.

    Raises
    ------
    ConfigError, DataError
    """
    if command in STAGES:
        config = merged_settings(command, overrides)
    else:
        composed = compose(command, overrides, checked=False)
        check_paths(composed)
        config = typed(composed)
    if command == "predict":  # the columns that it needs are those of training
        return config
    if config.regional.regions or config.detection.cells:
        what, runs = ("regional", "regions") if config.regional.regions else ("detection", "cells")
        if command != "run":
            raise ConfigError(
                f"{config.run_dir}: is a {what} benchmark, which only `xai-brain run` continues; "
                f"`xai-brain {command}` works on the runs in {Path(config.run_dir) / runs}"
            )
        return config
    from xai_brain.study.commands.names import check_names, check_names_of_run

    (check_names_of_run if command in STAGES else check_names)(config)
    return config


def check_jobs(command: str, overrides: list[str]) -> None:
    """`check_inexpensively` for the first job of a sweep, and for each value of settings that are texts.

    Parameters
    ----------
    command : str
    overrides : list of str
        With the values of all jobs, in the grammar of Hydra.
    """
    of_jobs = [text for text in overrides if command not in STAGES or not text.startswith(OF_SWEEPS)]
    values = [all_values(text) for text in of_jobs]
    first = [each[0] for each in values]
    check_inexpensively(command, first)
    for n, each in enumerate(values):
        key = of_jobs[n].partition("=")[0].lstrip("+")
        if key != "shard" and text_setting(key) is not None:
            for value in each[1:]:
                check_inexpensively(command, [*first[:n], value, *first[n + 1 :]])


def settings_of_job(command: str, overrides: list[str]) -> Config | None:
    """Settings of one job of a sweep that begin with those of a run; None if the command starts a run."""
    if command == "predict":
        from xai_brain.study.training.predict_settings import predict_settings

        return predict_settings(overrides)
    return stage_settings(command, overrides) if command in STAGES else None

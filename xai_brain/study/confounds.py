"""Participants and confounds of group analyses: what is refused before anything is computed."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.problems import named
from xai_brain.io.tables import with_numbers
from xai_brain.statistics.group_design import GroupError, make_design
from xai_brain.task.labels import is_label
from xai_brain.task.protocol import Task


def check_confounds(config: Config, task: Task, participants: pd.DataFrame) -> None:
    """Raise an error if the given confounds leave nothing to test.

    Parameters
    ----------
    config : Config
    task : Task
        With the names of its outputs.
    participants : pandas.DataFrame

    Raises
    ------
    ConfigError
        A confound is the column of the label, or the confounds determine the number that is predicted.
    """
    data = config.data
    if config.planted.kind or data.threshold is not None or data.bins:
        return  # the classes are not the values of the column
    given = config.evaluation.group.confounds or []
    for name in given:
        if is_label(name, data.label):
            raise ConfigError(
                f"evaluation.group.confounds={name}: is the label, so that nothing would be left to compare "
                "after its adjustment; leave it out"
            )
    names = [name for name in given if name in participants]  # the fold is not known before training
    for contrast in task.contrasts():
        if len(contrast) == 1 and names:
            try:
                # columns of the tables of a cohort are text
                make_design(with_numbers(group_participants(task, participants)), contrast, names)
            except GroupError as error:
                raise ConfigError(f"evaluation.group.confounds: {error}") from error


def chosen_confounds(config: Config, task: Task, participants: pd.DataFrame) -> list[str]:
    """Confounds of the maps: those of the settings, or the available ones and the fold.

    Parameters
    ----------
    config : Config
    task : Task
    participants : pandas.DataFrame

    Returns
    -------
    list of str
        By default the columns among age, sex, brain size and site that have values, except that of the
        label, and ``fold``, because maps of different folds come from different networks.

    Raises
    ------
    ConfigError
        There is no such column, or the confounds leave nothing to test.
    """
    check_confounds(config, task, participants)
    given = config.evaluation.group.confounds
    if given is None:
        names = ("age", "sex", config.data.brain_size_column, "site")
        there = [name for name in names if name and name in participants and participants[name].notna().any()]
        return [*(name for name in there if not is_label(name, config.data.label)), "fold"]
    if unknown := [name for name in given if name not in (*participants, "fold")]:
        raise ConfigError(
            f"evaluation.group.confounds: participants.tsv has no column {unknown[0]!r}; "
            f"there are {', '.join(participants)}"
        )
    return list(given)


def group_participants(
    task: Task, participants: pd.DataFrame, report: Callable[[str], object] = lambda line: None
) -> pd.DataFrame:
    """One row per participant of group analyses.

    Participants whose sessions are of different classes are excluded; a number is averaged over sessions.
    """
    if task.has_classes or "target" not in participants:
        return of_one_class(participants, report)
    means = participants.groupby("participant_id")["target"].mean()
    first = participants.drop_duplicates("participant_id")
    return first.assign(target=means[first["participant_id"]].to_numpy())


def of_one_class(
    participants: pd.DataFrame, report: Callable[[str], object] = lambda line: None
) -> pd.DataFrame:
    """One row per participant, without those whose sessions are of different classes."""
    classes = participants.groupby("participant_id", sort=False)["label"].nunique()
    if several := classes.index[classes > 1].tolist():
        report(f"evaluate: {named(several)}: sessions of several classes; not used in comparisons of classes")
    return participants[~participants["participant_id"].isin(several)].drop_duplicates("participant_id")

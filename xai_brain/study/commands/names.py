"""Settings of a command, with the checks that need neither images nor networks. No torch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from xai_brain.config.data import DataConfig
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.config.trust import KNOWN_PACKAGES
from xai_brain.data.participants import LINES, read_lines
from xai_brain.io.problems import DataError, Problems
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.study.participants import check_table_settings, find_participants
from xai_brain.task.build import build_task
from xai_brain.task.labels import LabelRule, find_column


def check_names(config: Config) -> None:
    """Raise an error if a setting names a column, class or target that the tables of the cohort do not have.

    Only the tables are read. If a name is not in them and there are tables of sessions, the images are looked
    for, too.

    Parameters
    ----------
    config : Config
        Of a new run; the code that the settings name need not be checked yet.

    Raises
    ------
    ConfigError, DataError
    """
    data, label = config.data, str(config.data.label)
    if data.layout not in LINES or config.networks or not _is_known_task(config):
        return
    lines, where = read_lines(data.layout, data.folder, data.tables, label)
    complete = _are_complete(data)
    if complete:
        find_column(lines, label, where)
    rule = LabelRule(label, data.class_names, data.threshold, data.bins)
    with suppress(DataError):  # participants without an image may have labels that cannot be used
        values = lines[find_column(lines, label, where)].map(str, na_action="ignore")  # ages are numbers
        targets = build_task(config.task).read_targets(values, rule, where)
        known = lines.assign(label=targets.labels, target=targets.values)[targets.reasons == ""]
        try:
            check_table_settings(config, known)
        except ConfigError:
            if complete:
                raise
        else:
            return
    check_table_settings(config, find_participants(config, Problems(data.on_error)))


def _are_complete(data: DataConfig) -> bool:
    """Whether the tables contain all columns, and neither file names nor tables of sessions add any."""
    if data.layout == "ixi":
        return str(data.label).lower() != "site"
    return data.layout != "bids" or not any(data.folder.glob("sub-*/sub-*_sessions.tsv"))


def check_names_of_run(config: Config) -> None:
    """Raise an error if a setting names a column, class or target that an existing run does not have.

    Raises
    ------
    ConfigError
    """
    run = RunDirectory(Path(config.run_dir))
    if run.participants.exists() and _is_known_task(config):
        check_table_settings(config, read_tsv(run.participants))


def _is_known_task(config: Config) -> bool:
    """Whether the task needs no code that has to be trusted first."""
    return str(config.task["_target_"]).partition(".")[0] in KNOWN_PACKAGES

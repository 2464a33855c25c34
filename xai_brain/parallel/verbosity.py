"""How much is reported: the logger ``xai_brain`` and its settings quiet, normal and verbose.

The logger is a standard one. Its handler writes messages to stdout and errors to stderr, unless the logger
has a handler or a level before this module is imported.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

LOGGER = logging.getLogger("xai_brain")
VARIABLE = "XAI_BRAIN_VERBOSITY"
LEVELS = {"quiet": logging.WARNING, "normal": logging.INFO, "verbose": logging.DEBUG}
STYLES = {logging.ERROR: "red", logging.WARNING: "yellow"}  # in terminals


class VerbosityError(ValueError):
    """A value of the setting that does not exist."""


class MessageHandler(logging.Handler):
    """Writes errors to stderr and all other messages to stdout, through rich if this is a terminal.

    The streams are looked up for each message because notebooks and tests replace them.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            _write(f"xai-brain: {text}", sys.stderr, record.levelno)
            return
        if LOGGER.isEnabledFor(logging.DEBUG):
            separator = "\n" if "\n" in text else " "  # tables begin on a line of their own
            text = f"{time.strftime('%H:%M:%S')}{separator}{text}"
        _write(text, sys.stdout, record.levelno)


def _write(text: str, stream: TextIO, level: int) -> None:
    if level in STYLES and stream.isatty():
        from rich.console import Console

        console = Console(file=stream)
        console.print(text, style=STYLES[level], markup=False, highlight=False, soft_wrap=True)
    else:
        print(text, file=stream, flush=True)


def set_verbosity(verbosity: str) -> None:
    """Choose how much is reported, also by processes that are started from now on.

    Parameters
    ----------
    verbosity : {"quiet", "normal", "verbose"}
        quiet: only warnings and errors, no progress. verbose: also the duration of each step, in seconds,
        and the time of each message.

    Raises
    ------
    VerbosityError

    Examples
    --------
    >>> set_verbosity("quiet")  # doctest: +SKIP
    """
    LOGGER.setLevel(LEVELS[_checked(verbosity, "verbosity")])
    os.environ[VARIABLE] = verbosity


@contextmanager
def temporary_verbosity(verbosity: str | None) -> Iterator[None]:
    """`set_verbosity` for the duration of a block; None takes the environment variable, if it is set."""
    value, level = os.environ.get(VARIABLE), LOGGER.level
    if verbosity is None and value:
        verbosity = _checked(value, VARIABLE)
    try:
        if verbosity is not None:
            set_verbosity(verbosity)
        yield
    finally:
        LOGGER.setLevel(level)
        os.environ.pop(VARIABLE, None)
        if value is not None:
            os.environ[VARIABLE] = value


def _checked(verbosity: str, name: str) -> str:
    if verbosity not in LEVELS:
        raise VerbosityError(f"{name}={verbosity}: must be one of {', '.join(LEVELS)}")
    return verbosity


def _configure() -> None:
    value = os.environ.get(VARIABLE) or "normal"
    if LOGGER.level == logging.NOTSET:
        LOGGER.setLevel(LEVELS.get(value, logging.INFO))
    if not LOGGER.handlers:
        LOGGER.addHandler(MessageHandler())
        LOGGER.propagate = False  # handlers of the root logger would write each message again
    if value not in LEVELS:
        LOGGER.warning("warning: %s=%s is ignored: must be one of %s", VARIABLE, value, ", ".join(LEVELS))


_configure()

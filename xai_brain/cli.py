"""The command line: ``xai-brain <command> [settings]``.

Help answers before anything heavy is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_brain.config.command_help import COMMANDS, PRINTING, STAGES, TOOLS, command_help, general_help

if TYPE_CHECKING:
    from omegaconf import DictConfig

# accepted by every command, before or after its name
VERBOSITY_FLAGS = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose"}
# of Hydra: several jobs, and showing settings
FLAGS = ("-m", "--multirun", "-c", "--cfg", "-p", "--package", "--resolve", "-i", "--info")

VALUE_FLAGS = ("-c", "--cfg", "-p", "--package", "-i", "--info")  # the next argument belongs to the flag


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen = [VERBOSITY_FLAGS[text] for text in arguments if text in VERBOSITY_FLAGS]
    arguments = [text for text in arguments if text not in VERBOSITY_FLAGS]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(general_help())
        return 0
    command, *rest = arguments
    if command == "--version":
        from importlib.metadata import version

        print(version("xai-brain"))
        return 0
    if command not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(command, COMMANDS, n=1)
        return _fail(
            f"there is no command {command!r}; " + (f"did you mean {near[0]!r}?" if near else "see --help")
        )
    if {"-h", "--help"} & set(rest):
        print(command_help(command))
        return 0
    if len(set(chosen)) > 1:
        return _fail("--quiet and --verbose exclude each other; give one of them")
    from xai_brain.parallel.progress import log, log_seconds
    from xai_brain.parallel.verbosity import temporary_verbosity

    try:
        with temporary_verbosity(chosen[0] if chosen else None), log_seconds(f"xai-brain {command}"):
            if command not in PRINTING and _is_first_process():
                log(f"xai-brain {command}: starting")
            return _start_tool(command, rest) if command in TOOLS else _start(command, rest)
    except KeyboardInterrupt:
        return _fail("stopped; what is finished is kept, start again to go on", 130)
    except Exception as error:
        if os.environ.get("XAI_BRAIN_DEBUG"):
            raise
        return _fail(error)


def main_bids(arguments: list[str] | None = None) -> int:
    """Entry point of the BIDS App ``xai-brain-bids``; returns the exit code."""
    from xai_brain.config.setting import ConfigError
    from xai_brain.tools.bids_app import commands_of

    try:
        groups = commands_of(arguments)
    except ConfigError as error:
        return _fail(error)
    failed = 0
    for commands in groups:  # one participant that fails does not stop the others
        code = next((code for code in map(main, commands) if code), 0)
        if code == 130:  # interrupted
            return code
        failed += bool(code)
    if failed and len(groups) > 1:
        return _fail(f"{failed} of {len(groups)} participants failed, see the messages above")
    return int(failed > 0)


def _is_first_process() -> bool:
    """Whether this is the only process that torchrun or SLURM has started, or the first."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _start_tool(command: str, rest: list[str]) -> int:
    """Run a tool; folders that do not exist are refused before its module is imported."""
    from xai_brain.config.inputs import require_folder, require_run, require_sweep

    required = {"verify": require_run, "collect": require_sweep}
    for text in rest:
        key, equals, value = text.partition("=")
        if key in ("maps", "data.root") and value:
            require_folder(key, value)
        elif command in required and (not equals or key == "run_dir"):
            required[command](Path(value or text).expanduser())
    status: int = _function("tools", command)(rest)
    return status


def _start(command: str, rest: list[str]) -> int:
    from xai_brain.config.setting import ConfigError
    from xai_brain.parallel.progress import log_seconds
    from xai_brain.study.commands.settings import command_settings

    if "TORCHELASTIC_RUN_ID" in os.environ and (command not in ("train", "run") or "-m" in rest):
        raise ConfigError(
            "torchrun starts processes that train one network: it is for `xai-brain train` and `xai-brain "
            "run` without -m; other stages are divided with shard=1/8"
        )
    _check_flags(rest)
    rest = _with_run_dir(command, rest)
    if any(argument.startswith("-") for argument in rest):
        return _start_hydra(command, rest)
    if alone := [text for text in rest if text.startswith(("sweep=", "launcher="))]:
        raise ConfigError(f"{alone[0]} is for several jobs: add -m")
    with log_seconds("settings"):
        config = command_settings(command, rest)
    _execute(command, config)
    return 0


def _with_run_dir(command: str, rest: list[str]) -> list[str]:
    """Arguments in which the run directory has its name: ``xai-brain evaluate outputs/demo``."""
    from xai_brain.config.setting import ConfigError

    of_flags = [following for flag, following in pairwise(rest) if flag in VALUE_FLAGS]
    plain = [text for text in rest if "=" not in text and not text.startswith(("-", "~"))]
    plain = [text for text in plain if text not in of_flags]
    if not plain:
        return rest
    if command not in STAGES:
        raise ConfigError(f"{plain[0]}: settings are written key=value; see xai-brain {command} --help")
    if len(plain) > 1 or any(text.startswith("run_dir=") for text in rest):
        raise ConfigError(f"{' '.join(plain)}: xai-brain {command} takes one run directory")
    return [f"run_dir={text}" if text == plain[0] else text for text in rest]


def _check_flags(rest: list[str]) -> None:
    """Refuse flags that neither this program nor Hydra has; settings are written without dashes."""
    from xai_brain.config.setting import ConfigError

    for n, text in enumerate(rest):
        if text.startswith("-") and text.partition("=")[0] not in FLAGS:
            name, equals, value = text.lstrip("-").partition("=")
            following = rest[n + 1] if n + 1 < len(rest) and not equals else value
            written = f"{name}={following or '<value>'}"
            raise ConfigError(f"{text}: there is no such flag; a setting is written {written}")


def _execute(command: str, cfg: object) -> None:
    _function("stages", command)(cfg)


def _function(package: str, command: str) -> Callable[[Any], Any]:
    from xai_brain.parallel.progress import log_seconds

    name = command.replace("-", "_")
    with log_seconds("import"):
        module = import_module(f"xai_brain.{package}.{name}")
    function: Callable[[Any], Any] = getattr(module, name)
    return function


def _start_hydra(command: str, rest: list[str]) -> int:
    """Multirun and Hydra's own flags."""
    import logging
    import time

    import hydra

    from xai_brain.config.compose import compose, conf_dir, register_schemas
    from xai_brain.config.overrides import literal, quoted, split_commas, unquoted
    from xai_brain.config.setting import ConfigError
    from xai_brain.parallel.verbosity import LOGGER
    from xai_brain.study.commands.settings import check_jobs
    from xai_brain.tools.sweep import plan_sweep, summarize_jobs, tolerate_failed_jobs

    multirun = bool({"-m", "--multirun"} & set(rest))
    rest = [literal(text, multirun) for text in rest]
    given = [text for text in rest if "=" in text and not text.startswith("-")]
    shown = bool({"--cfg", "-c"} & set(rest))
    if multirun and shown:
        raise ConfigError("--cfg shows the settings of one job: leave out -m")
    alone = [text for text in given if text.startswith(("sweep=", "launcher="))]
    if alone and not multirun and not shown:
        raise ConfigError(f"{alone[0]} is for several jobs: add -m")
    if multirun:
        check_jobs(command, given)
    elif command not in STAGES:
        compose(command, given, checked=False)
    more: list[str] = []
    start = time.time()
    if multirun:
        if command in STAGES and not any(text.startswith("hydra.sweep.dir=") for text in given):
            runs = [text.partition("=")[2] for text in given if text.startswith("run_dir=")]
            one = f"/{Path(unquoted(runs[0])).name}" if runs and len(split_commas(runs[0])) == 1 else ""
            more = [f"hydra.sweep.dir={quoted(f'outputs/{command}_jobs{one}')}"]  # the runs lie elsewhere
        folder, also = plan_sweep(command, [*given, *more])
        more += also
        planned = {text.split("=")[0] for text in also}
        rest = [text for text in rest if text.split("=")[0] not in planned]
    else:
        folder = None
    if not LOGGER.isEnabledFor(logging.INFO):
        more.append("hydra.hydra_logging.root.level=WARNING")
    register_schemas()
    sys.argv = [f"xai-brain {command}", *rest, *more]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are caught here and shown in one line
    main_of_hydra = hydra.main(version_base="1.3", config_path=str(conf_dir().resolve()), config_name=command)
    try:
        with tolerate_failed_jobs():
            main_of_hydra(_job)()
    except Exception as error:
        if folder is None or os.environ.get("XAI_BRAIN_DEBUG"):
            raise
        _fail(error)
        summarize_jobs(folder, start)
        return 1
    return summarize_jobs(folder, start) if folder is not None else 0


def _job(cfg: DictConfig) -> float | None:
    """What Hydra calls, here or in a process of a launcher."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from xai_brain.config.checks import read_config
    from xai_brain.config.compose import complete
    from xai_brain.study.commands.settings import command_settings, settings_of_job
    from xai_brain.tools.sweep import run_recorded

    command = HydraConfig.get().job.config_name
    assert command is not None
    given = [
        text for text in HydraConfig.get().overrides.task if text.split("=")[0] not in ("sweep", "launcher")
    ]
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        _execute(command, command_settings(command, given))
        return None

    def work() -> None:
        own = [*given, f"run_dir={cfg.run_dir}"] if command == "predict" else given
        settings = settings_of_job(command, own)
        if settings is None:
            complete(cfg, given)
            settings = read_config(cfg)
        _execute(command, settings)

    if command not in STAGES:
        cfg.run_dir = HydraConfig.get().runtime.output_dir
    return run_recorded(cfg, given, work, always=command in STAGES)


def _fail(error: Exception | str, code: int = 1) -> int:
    from xai_brain.parallel.progress import format_error, log_error

    log_error(format_error(error) if isinstance(error, Exception) else error)
    return code

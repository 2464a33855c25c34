"""The command line: ``xai-brain <command> [settings]``.

Help answers before anything heavy is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMMANDS = {
    "run": "Train, explain, evaluate and report. Finished work is not repeated.",
    "train": "Train one network per fold and predict each participant out of fold.",
    "baselines": "Fit baseline classifiers on the same folds, for comparison with the networks.",
    "predict": "Predict new participants with the ensemble of a run's networks, or with a file of weights.",
    "explain": "Explain each participant with the network that was not trained on it, by each method.",
    "evaluate": "Compare the maps with each other, between classes and with planted effects.",
    "validate": "Evaluate the networks on images that contain only top-ranked voxels, or lack them.",
    "report": "Write report.html, a self-contained page.",
    "view": "Open the maps of a run in JupyterLab.",
    "import-maps": "Import maps that were made with other software into a run.",
    "cache": "Show, check or clear the prepared images on disk.",
    "collect": "Summarise the jobs of a sweep: one table, a ranking and figures.",
    "verify": "Compare all files of a run with their stored hashes.",
}
# they take arguments of their own instead of settings
TOOLS = ("view", "import-maps", "cache", "collect", "verify")
# their settings are those of an existing run
STAGES = ("baselines", "explain", "evaluate", "validate", "report")

USAGE = """\
usage: xai-brain <command> [setting=value ...] [-m]

Train and explain 3-D CNNs on brain MRI, and measure which maps can be believed.

commands
{commands}

Begin with:       xai-brain run experiment=demo
Your own data:    xai-brain run data=bids data.root=/path/to/bids data.label=sex
All settings:     xai-brain run experiment=demo --cfg job
A sweep:          xai-brain run -m experiment=demo trainer.lr=1e-3,3e-4
Its results:      xai-brain collect outputs/demo
Full traceback:   XAI_BRAIN_DEBUG=1 xai-brain ...
"""

COMMAND_USAGE = """\
usage: xai-brain {command} {arguments} [-m]

{description}

{details}
Settings are given as key=value. Groups such as data, model, augmentation and experiment select a file
of conf/. All settings:  {example}
With -m, each combination of values (lr=1e-3,3e-4) is one job below outputs/<name>/<job>. sweep=grid, folds,
optuna and detection_curve are prepared sweeps; launcher=joblib or slurm runs jobs at the same time.
"""

DETAILS = {
    "run": "Most important settings: experiment, data, data.root, data.label, run_dir, seeds.\n",
    "train": "Most important settings: experiment, data, model, trainer.max_epochs, seeds.\n"
    "trainer.devices=4 trains each network with four processes of this machine, a GPU or some CPU cores\n"
    "each. On several machines add trainer.num_nodes=2 and start the processes with torchrun or srun.\n"
    "trainer.extra.<name>=<value> passes an argument to Lightning's Trainer, such as gradient_clip_val=1.\n",
    "baselines": "The settings are those of the run directory. baselines=[pca_logistic,slabs3] selects\n"
    "files of conf/baselines; morphometry=<table> is the table of the baselines on regional volumes.\n",
    "predict": "networks=<run_dir> is the trained run, whose preparation is used; instead of it,\n"
    "model.weights=<file> is a file of weights. data, data.root and data.label (null: not known) describe\n"
    "the new participants, run_dir is the folder of the results. preprocessing.raw=true extracts and\n"
    "aligns scanner images first.\n"
    "Published weights need preprocessing=kan2020: brain size is kept, intensities have a median of 700.\n",
    "explain": "The settings are those of the run directory. attribution=[grad_cam] adds a method;\n"
    "explain.target and explain.output select the output that is explained. shard=3/8 computes the third\n"
    "eighth of the maps, for job arrays. In evaluate it divides the metrics, in validate the masks.\n",
    "evaluate": "The settings are those of the run directory; evaluation.top_percents can be changed.\n",
    "validate": "The settings are those of the run directory; those of evaluation.masks can be changed:\n"
    "methods, which (joint, classes), areas, n_subjects, n_random, removal, retrain. With\n"
    "evaluation.masks.in_run=true this stage is part of `xai-brain run`.\n",
    "report": "The settings are those of the run directory.\n",
}

TOOL_USAGE = {
    "view": "usage: xai-brain view <run_dir> [--no-browser] [options of jupyter lab]\n\n{description}\n\n"
    "The notebook is <run_dir>/view.ipynb; it is created if it does not exist.\n",
    "import-maps": "usage: xai-brain import-maps maps=<folder> [method=<Name>] run_dir=<run> "
    "[data=... data.root=...]\n\n"
    "{description}\n\n"
    "File names begin with the id of the participant (sub-<id>_..._desc-<Method>_....nii.gz). The maps are\n"
    "resampled to the grid of the run. A new run_dir needs the participants: data=... data.root=...\n",
    "cache": "usage: xai-brain cache info|verify|clear [part ...] [data.cache_dir=<folder>]\n\n"
    "{description}\n\n"
    "info    content and size\n"
    "verify  read all files; damaged ones are removed and prepared again when they are needed\n"
    "clear   remove all files, or only the named parts: volumes, sources, synthetic\n",
    "collect": "usage: xai-brain collect <sweep_dir> [metric=<name>,...]\n\n"
    "{description}\n\n"
    "<sweep_dir>/sweep.tsv    one row per job: settings, state (complete, failed, missing), results\n"
    "<sweep_dir>/ranking.tsv  settings by test/auroc and rra, or by metric=; 95 % interval over seeds\n"
    "<sweep_dir>/detection.tsv, detection_smallest.tsv  of sweep=detection_curve\n"
    "<sweep_dir>/figures/     ranking.png, detection_curves.png, detection_smallest.png\n\n"
    "The exit code is 1 if a job failed or is missing.\n",
    "verify": "usage: xai-brain verify <run_dir> [data.root=<folder>]\n\n"
    "{description}\n\n"
    "No file is changed. The exit code is 1 if a file is missing or altered, otherwise 0.\n",
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
        print(USAGE.format(commands=lines))
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
    if command in TOOLS and {"-h", "--help"} & set(rest):
        print(TOOL_USAGE[command].format(description=COMMANDS[command]))
        return 0
    if {"-h", "--help"} & set(rest):
        stage = command in STAGES
        example = (
            "config.yaml in the run directory" if stage else f"xai-brain {command} experiment=demo --cfg job"
        )
        print(
            COMMAND_USAGE.format(
                command=command,
                arguments="run_dir=<folder> [setting=value ...]" if stage else "[setting=value ...]",
                description=COMMANDS[command],
                details=DETAILS[command],
                example=example,
            )
        )
        return 0
    try:
        if command in TOOLS:
            return _function("tools", command)(rest)
        return _start(command, rest)
    except KeyboardInterrupt:
        return _fail("stopped; what is finished is kept, start again to go on", 130)
    except Exception as error:
        if os.environ.get("XAI_BRAIN_DEBUG"):
            raise
        return _fail(error)


def _start(command: str, rest: list[str]) -> int:
    from xai_brain.config.compose import compose
    from xai_brain.config.setting import ConfigError

    if "TORCHELASTIC_RUN_ID" in os.environ and (command not in ("train", "run") or "-m" in rest):
        raise ConfigError(
            "torchrun starts processes that train one network: it is for `xai-brain train` and `xai-brain "
            "run` without -m; other stages are divided with shard=1/8"
        )
    if any(argument.startswith("-") for argument in rest):
        return _start_hydra(command, rest)
    if alone := [text for text in rest if text.startswith(("sweep=", "launcher="))]:
        raise ConfigError(f"{alone[0]} is for several jobs: add -m")
    _execute(command, _settings_of_a_run(command, rest) or compose(command, rest))
    return 0


def _settings_of_a_run(command: str, overrides: list[str]) -> object | None:
    """Settings that begin with those of an existing run; None of commands that begin anew."""
    if command == "predict":
        from xai_brain.study.training.predict_settings import predict_settings

        return predict_settings(overrides)
    if command in STAGES:
        from xai_brain.config.stage import stage_settings

        return stage_settings(command, overrides)
    return None


def _execute(command: str, cfg: object) -> None:
    _function("stages", command)(cfg)


def _function(package: str, command: str) -> Callable[[Any], Any]:
    name = command.replace("-", "_")
    function: Callable[[Any], Any] = getattr(import_module(f"xai_brain.{package}.{name}"), name)
    return function


def _start_hydra(command: str, rest: list[str]) -> int:
    """Multirun and Hydra's own flags."""
    import time

    import hydra

    from xai_brain.config.compose import compose, conf_dir, register_schemas
    from xai_brain.config.overrides import literal, quoted, split_commas, unquoted
    from xai_brain.config.setting import ConfigError
    from xai_brain.tools.sweep import first_value, plan_sweep, summarize_jobs, tolerate_failed_jobs

    multirun = bool({"-m", "--multirun"} & set(rest))
    rest = [literal(text, multirun) for text in rest]
    given = [text for text in rest if "=" in text and not text.startswith("-")]
    shown = bool({"--cfg", "-c"} & set(rest))
    if multirun and shown:
        raise ConfigError("--cfg shows the settings of one job: leave out -m")
    alone = [text for text in given if text.startswith(("sweep=", "launcher="))]
    if alone and not multirun and not shown:
        raise ConfigError(f"{alone[0]} is for several jobs: add -m")
    if command not in STAGES:
        compose(command, [first_value(text) for text in given], checked=False)
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
    from xai_brain.tools.sweep import run_recorded

    command = HydraConfig.get().job.config_name
    assert command is not None
    given = [
        text for text in HydraConfig.get().overrides.task if text.split("=")[0] not in ("sweep", "launcher")
    ]
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        if settings := _settings_of_a_run(command, given):
            _execute(command, settings)
            return None
        complete(cfg, given)
        read_config(cfg)
        _execute(command, cfg)
        return None

    def work() -> None:
        own = [*given, f"run_dir={cfg.run_dir}"] if command == "predict" else given
        settings = _settings_of_a_run(command, own)
        if settings is None:
            complete(cfg, given)
            read_config(cfg)
        _execute(command, settings or cfg)

    if command not in STAGES:
        cfg.run_dir = HydraConfig.get().runtime.output_dir
    return run_recorded(cfg, given, work, always=command in STAGES)


def _fail(error: Exception | str, code: int = 1) -> int:
    if isinstance(error, Exception):
        from xai_brain.parallel.progress import format_error

        error = format_error(error)
    print(f"xai-brain: {error}", file=sys.stderr)
    return code

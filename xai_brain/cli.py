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
    "run": "Everything: train, explain, evaluate and report. What is finished is not done again.",
    "train": "Train one network per fold and predict every subject out of fold.",
    "baselines": "Fit classifiers on the folds of a run, to compare its networks with.",
    "predict": "Predict new participants with all networks of a run, or with a file of weights.",
    "explain": "Explain every subject by the network that did not see it, with each configured method.",
    "evaluate": "Compare the maps with each other, between classes and with planted effects.",
    "validate": "Test the networks on the voxels alone that maps of training subjects rank first.",
    "report": "Write the run's self-contained report.html.",
    "view": "Open JupyterLab on a notebook that looks at a run.",
    "import-maps": "Bring maps that others made into a run, to be evaluated and shown with its own.",
    "cache": "Show, check or clear the prepared images that are kept on disk.",
    "collect": "Bring all jobs of a sweep into one table, a ranking and figures.",
    "verify": "Check that nothing of a run is missing or altered: inputs, networks, maps.",
}
# they take arguments of their own instead of settings
TOOLS = ("view", "import-maps", "cache", "collect", "verify")
# their settings are those of an existing run
STAGES = ("baselines", "explain", "evaluate", "validate", "report")

USAGE = """\
usage: xai-brain <command> [setting=value ...] [-m]

Explain 3-D CNNs on brain MRI voxel by voxel, and know which map to believe.

commands
{commands}

Begin with:       xai-brain run experiment=demo
Your own data:    xai-brain run data=bids data.root=/path/to/bids data.label=sex
All settings:     xai-brain run experiment=demo --cfg job
A sweep:          xai-brain run -m experiment=demo trainer.lr=1e-3,3e-4
Its results:      xai-brain collect outputs/demo
Trace of errors:  XAI_BRAIN_DEBUG=1 xai-brain ...
"""

COMMAND_USAGE = """\
usage: xai-brain {command} {arguments} [-m]

{description}

{details}
Settings are given as key=value; groups such as data, model, augmentation and experiment choose a file
of conf/. See them all:  {example}
Several values (lr=1e-3,3e-4) with -m run one job each, below outputs/<name>/<job>; sweep=grid, folds,
optuna or detection_curve brings its own, launcher=joblib or slurm runs them at the same time.
"""

DETAILS = {
    "run": "Settings that matter first: experiment, data, data.root, data.label, run_dir, seeds.\n",
    "train": "Settings that matter first: experiment, data, model, trainer.max_epochs, seeds.\n"
    "trainer.devices=4 trains each network with four processes of this machine, a GPU or some CPU cores\n"
    "each. On several machines add trainer.num_nodes=2 and start the processes with torchrun or srun.\n"
    "trainer.extra.gradient_clip_val=1 and the like go to Lightning's Trainer.\n",
    "baselines": "Its settings are those of the run directory. Name files of conf/baselines with\n"
    "baselines=[pca_logistic,slabs3]; morphometry=<table> gives those on regional volumes their table.\n",
    "predict": "networks=<run_dir> names the trained run, whose preparation is used, or a file of weights,\n"
    "model.weights=<file>; data, data.root and data.label (null: not known) name the new participants,\n"
    "run_dir the folder of the results. preprocessing.raw=true first extracts and aligns scanner images.\n"
    "Published weights get preprocessing=kan2020: brain size kept, intensities scaled to a median of 700.\n",
    "explain": "Its settings are those of the run directory. Add a method with attribution=[grad_cam];\n"
    "choose what is explained with explain.target and explain.output. shard=3/8 does an eighth of\n"
    "the maps, as a job of an array; of evaluate it divides the metrics, of validate the masks.\n",
    "evaluate": "Its settings are those of the run directory; evaluation.top_percents can be changed.\n",
    "validate": "Its settings are those of the run directory; those of evaluation.masks can be changed:\n"
    "methods, which (joint, classes), areas, n_subjects, n_random, removal, retrain. With\n"
    "evaluation.masks.in_run=true `xai-brain run` does it too.\n",
    "report": "Its settings are those of the run directory.\n",
}

TOOL_USAGE = {
    "view": "usage: xai-brain view <run_dir> [--no-browser] [options of jupyter lab]\n\n{description}\n\n"
    "The notebook is <run_dir>/view.ipynb; it is written when it is not there.\n",
    "import-maps": "usage: xai-brain import-maps maps=<folder> [method=<Name>] run_dir=<run> "
    "[data=... data.root=...]\n\n"
    "{description}\n\n"
    "Files are found by the id that their names begin with (sub-<id>_..._desc-<Method>_....nii.gz), and\n"
    "resampled to the grid of the run. A new run_dir needs data=... data.root=...,\n"
    "the participants of the maps.\n",
    "cache": "usage: xai-brain cache info|verify|clear [part ...] [data.cache_dir=<folder>]\n\n"
    "{description}\n\n"
    "info    what is there, and how large it is\n"
    "verify  read everything again; what is damaged is removed and prepared anew when it is needed\n"
    "clear   remove it, or only the parts named: volumes, sources, synthetic\n",
    "collect": "usage: xai-brain collect <sweep_dir> [metric=<name>,...]\n\n"
    "{description}\n\n"
    "<sweep_dir>/sweep.tsv    a row per job: its settings, complete, failed or missing, its figures\n"
    "<sweep_dir>/ranking.tsv  settings by test/auroc and rra, or by metric=; 95 % interval over seeds\n"
    "<sweep_dir>/detection.tsv, detection_smallest.tsv  of sweep=detection_curve\n"
    "<sweep_dir>/figures/     ranking.png, detection_curves.png, detection_smallest.png\n\n"
    "The exit code is 1 when a job failed or is missing.\n",
    "verify": "usage: xai-brain verify <run_dir> [data.root=<folder>]\n\n"
    "{description}\n\n"
    "Nothing is changed. The exit code is 1 when something is missing or altered, else 0.\n",
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
        return _fail(_message(error))


def _start(command: str, rest: list[str]) -> int:
    from xai_brain.config.compose import ConfigError, compose

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
        from xai_brain.study.settings import stage_settings

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

    from xai_brain.config.compose import ConfigError, compose, conf_dir, register_schemas
    from xai_brain.config.overrides import literal, quoted, split_commas, unquoted
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
        _fail(_message(error))
        summarize_jobs(folder, start)
        return 1
    return summarize_jobs(folder, start) if folder is not None else 0


def _job(cfg: DictConfig) -> float | None:
    """What Hydra calls, here or in a process of a launcher."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from xai_brain.config.compose import check, complete
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
        check(cfg)
        _execute(command, cfg)
        return None

    def work() -> None:
        own = [*given, f"run_dir={cfg.run_dir}"] if command == "predict" else given
        settings = _settings_of_a_run(command, own)
        if settings is None:
            complete(cfg, given)
            check(cfg)
        _execute(command, settings or cfg)

    if command not in STAGES:
        cfg.run_dir = HydraConfig.get().runtime.output_dir
    return run_recorded(cfg, given, work, always=command in STAGES)


def _message(error: Exception) -> str:
    from xai_brain.parallel.progress import format_error

    return format_error(error)


def _fail(text: str, code: int = 1) -> int:
    print(f"xai-brain: {text}", file=sys.stderr)
    return code

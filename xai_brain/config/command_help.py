"""Help texts of the commands."""

from __future__ import annotations

COMMANDS = {
    "run": "Train, explain, evaluate and report. Finished work is not repeated.",
    "train": "Train one network per fold and predict each participant out of fold.",
    "baselines": "Fit baseline classifiers on the same folds, for comparison with the networks.",
    "predict": "Predict new participants with the ensemble of a run's networks, or with a file of weights.",
    "explain": "Explain each participant by all methods with the network that was not trained on it.",
    "explain-network": "Predict and explain participants with a network that was trained elsewhere.",
    "evaluate": "Compare the maps with each other, between classes and with planted effects.",
    "validate": "Evaluate the networks on images that contain only top-ranked voxels, or lack them.",
    "threshold": "Find which voxels exceed what networks show that were trained on permuted labels.",
    "report": "Write report.html, a self-contained page of all results.",
    "view": "Open the maps of a run in JupyterLab.",
    "import-maps": "Import maps that were made with other software into a run.",
    "cache": "Show, check or clear the prepared images on disk.",
    "collect": "Summarise the jobs of a sweep: one table, a ranking and figures.",
    "verify": "Compare the files of a run with their stored hashes.",
    "settings": "List settings with their meaning, type and default.",
    "completion": "Print the script that completes commands and settings in bash.",
}
# commands with their own arguments instead of settings
TOOLS = ("explain-network", "view", "import-maps", "cache", "collect", "verify", "settings", "completion")
# commands whose output is read by other programs, so that nothing else is printed
PRINTING = ("settings", "completion")
# commands that use the settings of an existing run
STAGES = ("baselines", "explain", "evaluate", "validate", "threshold", "report")

USAGE = """\
usage: xai-brain <command> [setting=value ...] [-m]

Train and explain 3-D CNNs on brain MRI, and measure which maps can be believed.

commands
{commands}

First run:        xai-brain run experiment=demo
Your own data:    xai-brain run data=bids data.root=/path/to/bids data.label=sex
All settings:     xai-brain settings
A sweep:          xai-brain run -m experiment=demo trainer.lr=1e-3,3e-4
Its results:      xai-brain collect outputs/demo
Messages:         --quiet shows warnings and errors only, --verbose also the duration of each step
Full traceback:   XAI_BRAIN_DEBUG=1 xai-brain ...
"""

COMMAND_USAGE = """\
usage: xai-brain {command} {arguments} [-m]

{description}

{details}
Settings are given as key=value. Groups such as data, model, augmentation and experiment select a file
of conf/. Their meaning:  xai-brain settings [group].  Their values:  {example}
With -m, each combination of values (trainer.lr=1e-3,3e-4) is one job in outputs/<name>/<job>. Prepared sweeps
are sweep=grid, folds, optuna and detection_curve; launcher=joblib or slurm runs several jobs in parallel.
--quiet shows warnings and errors only; --verbose also shows the duration of each step.
"""

DETAILS = {
    "run": "Most important settings: experiment, data, data.root, data.label, run_dir, seeds.\n",
    "train": "Most important settings: experiment, data, model, trainer.max_epochs, seeds.\n"
    "trainer.devices=4 trains each network with four processes on this machine, each with a GPU or several\n"
    "CPU cores. For several machines, add trainer.num_nodes=2 and start processes with torchrun or srun.\n"
    "trainer.extra.<name>=<value> passes an argument to Lightning's Trainer, such as gradient_clip_val=1.\n",
    "baselines": "The settings are those of the run directory. baselines=[pca_logistic,slabs3] selects\n"
    "files of conf/baselines; morphometry=<table> is a table of regional volumes or thickness.\n",
    "predict": "networks=<run_dir> is the trained run, whose preprocessing is used. Alternatively,\n"
    "model.weights=<file> is a file of weights. data, data.root and data.label (null: unknown) describe the\n"
    "new participants; run_dir is the folder of the results. preprocessing.raw=true extracts brains from\n"
    "acquired images and aligns them first.\n"
    "Published weights require preprocessing=kan2020, which keeps brain size and scales the median to 700.\n",
    "explain": "The settings are those of the run directory. attribution=[grad_cam] adds a method,\n"
    "which the commands evaluate and report then include. explain.target and explain.output select the\n"
    "output that is explained. shard=3/8 computes the third of eight parts of the maps, for job arrays;\n"
    "evaluate and validate divide metrics and masks in this way.\n",
    "evaluate": "The settings are those of the run directory; evaluation.top_percents can be changed.\n",
    "validate": "The settings are those of the run directory; those of evaluation.masks can be changed:\n"
    "methods, which (joint, classes), areas, n_subjects, n_random, removal, retrain. With\n"
    "evaluation.masks.in_run=true, `xai-brain run` includes this stage.\n",
    "threshold": "The settings are those of the run directory; those of evaluation.threshold can be\n"
    "changed: n_perm, alpha, n_participants, blocks, statistic, methods. Every permutation trains networks\n"
    "as the run did; the command states the duration first, and goes on where it was interrupted.\n",
    "report": "The settings are those of the run directory.\n",
}

TOOL_USAGE = {
    "explain-network": "usage: xai-brain explain-network setting=value ...\n\n"
    "{description}\n\n"
    "network._target_     package.Class of the network; network.<argument> are its arguments\n"
    "network.weights      state dict, checkpoint or safetensors. Without network._target_: models/model.pt\n"
    "                     of a MONAI bundle, or with network.trusted=true a TorchScript or export archive\n"
    "network.load         package.function that returns the network, instead of the two\n"
    "network.output_key   part of a tuple, dictionary or dataclass that the network returns\n"
    "network.one_logit    true: the network returns one logit of the second class\n"
    "network.preprocess   package.function that prepares one image, instead of preprocessing. It receives a\n"
    "                     NIfTI image and returns one, or an array on the grid of the image\n\n"
    "preprocessing, data.class_names (in the order of the outputs) and trusted_modules are those of the\n"
    "network. Afterwards evaluate, report, view and verify accept run_dir. A second call does nothing.\n",
    "view": "usage: xai-brain view <run_dir> [--no-browser] [options of jupyter lab]\n\n{description}\n\n"
    "The notebook <run_dir>/view.ipynb is created if it does not exist.\n",
    "import-maps": "usage: xai-brain import-maps maps=<folder> [method=<Name>] run_dir=<run> "
    "[data=... data.root=...]\n\n"
    "{description}\n\n"
    "File names begin with the id of the participant (sub-<id>_..._desc-<Method>_....nii.gz). The maps are\n"
    "resampled to the grid of the run. For a new run_dir, add data=... and data.root=... (participants).\n",
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
    "settings": "usage: xai-brain settings [group]\n\n"
    "{description}\n\n"
    "A group is the first part of a name, such as trainer or evaluation.group.\n",
    "completion": "usage: xai-brain completion bash\n\n"
    "{description}\n\n"
    'For this shell:  eval "$(xai-brain completion bash)"\n'
    "To keep it, add this line to ~/.bashrc.\n",
}


def general_help() -> str:
    width = max(map(len, COMMANDS))
    return USAGE.format(commands="\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()))


def command_help(command: str) -> str:
    if command in TOOLS:
        return TOOL_USAGE[command].format(description=COMMANDS[command])
    stage = command in STAGES
    return COMMAND_USAGE.format(
        command=command,
        arguments="<run_dir> [setting=value ...]" if stage else "[setting=value ...]",
        description=COMMANDS[command],
        details=DETAILS[command],
        example="config.yaml in the run directory"
        if stage
        else f"xai-brain {command} experiment=demo --cfg job",
    )

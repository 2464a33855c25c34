"""A given network and a given preparation of images, on the cohort of a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.cache import cache_errors
from xai_brain.io.problems import Problems
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, update_metrics, write_json
from xai_brain.statistics.classification import defined_figures
from xai_brain.study.cohort import Cohort
from xai_brain.study.given.explain import explain
from xai_brain.study.participants import find_participants, task_of
from xai_brain.study.training.networks import ALL, trained_networks
from xai_brain.task.protocol import Task

SETTINGS = "ExplainNetwork"  # field of provenance.json


def explain_cohort(config: Config, preprocess: Callable[..., Any], settings: Sequence[str]) -> RunDirectory:
    """Explain the network of the settings on images that a function prepares; maps are on their own grids.

    Parameters
    ----------
    config : Config
        From `xai_brain.study.training.predict_settings.predict_settings`; its preprocessing is not used.
    preprocess : function
        See `xai_brain.explain`.
    settings : sequence of str
        Arguments of the command, which a second call has to repeat.

    Returns
    -------
    RunDirectory
        As from `xai_brain.explain`.

    Raises
    ------
    ConfigError
        The run directory was made with other settings.
    """
    run, settings = RunDirectory(Path(config.run_dir).expanduser()), sorted(settings)
    if run.config.exists():
        before = (read_json(run.provenance) if run.provenance.exists() else {}).get(SETTINGS)
        if before == settings:
            log(f"explain-network: nothing to do, {run.path} is complete")
            return run
        differing = ", ".join(sorted({*settings} ^ {*(before or ())}))
        raise ConfigError(f"run_dir={run.path}: was made with other settings ({differing}); use another one")
    problems = Problems(config.data.on_error)
    with cache_errors(config.data.cache_dir):
        table = find_participants(config, problems)
    cohort = Cohort(table, {}, {}, problems.table(), task_of(config, table))
    (network,) = trained_networks(config)
    classifier = network.load(config)
    target = classifier.task.read_target(config.explain.target)
    explain(
        classifier,
        cohort,
        config.attribution,
        [int(k) for k in cohort.table["target"]] if target == "true" else target,
        outputs="classes",
        output=config.explain.output,
        class_names=list(config.data.class_names or ()) or None,
        preprocess=preprocess,
        orientation=config.data.orientation,
        space=config.data.space,
        batch_size=config.explain.batch_size,
        folder=run.path,
    )
    write_scores(config, run, classifier.task)
    write_json({**read_json(run.provenance), SETTINGS: settings}, run.provenance)
    return run


def write_scores(config: Config, run: RunDirectory, task: Task) -> None:
    """Write the scores of the network to metrics.json, if participants of every class are known."""
    predictions = read_tsv(run.predictions)
    if not task.can_be_scored(predictions["target"].to_numpy()):
        log("explain-network: without participants of every class there are no test metrics")
        return
    scores = task.scores(predictions.assign(fold=ALL[1]), "test", config.evaluation.n_bootstrap)
    update_metrics(run, defined_figures(scores))

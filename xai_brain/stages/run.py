"""Run all stages: train, explain, evaluate, validate (on request) and report."""

from __future__ import annotations

from dataclasses import asdict

from omegaconf import DictConfig

from xai_brain.config.checks import read_config
from xai_brain.config.schema import Config
from xai_brain.metrics.titles import figure_title
from xai_brain.models.process_group import global_rank
from xai_brain.parallel.progress import log
from xai_brain.reporting.wording import fixed, interval
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv
from xai_brain.stages.evaluate import evaluate
from xai_brain.stages.report import report
from xai_brain.stages.train import train
from xai_brain.stages.validate import validate
from xai_brain.statistics.matching import MATCHED, N_MATCHED, missing_interval
from xai_brain.study.benchmarks.chosen import benchmark_of
from xai_brain.study.evaluation.mask_validation import is_validated, methods_of
from xai_brain.study.evaluation.regions import atlas_of
from xai_brain.study.evaluation.tables import is_complete
from xai_brain.study.explanation.missing_maps import explain_run, n_maps_missing
from xai_brain.study.settings import stage
from xai_brain.task.build import build_task, task_of_table


def run(cfg: DictConfig | Config) -> RunDirectory:
    """Run all stages; finished results are kept.

    With ``shard``, each stage does its part of the work; stages that need all parts run once these exist.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.compose`, as in ``run(compose("run", ["experiment=demo"]))``.

    Returns
    -------
    RunDirectory
    """
    config = read_config(cfg)
    if benchmark := benchmark_of(config):
        return benchmark(config)
    if global_rank(asdict(config.trainer)):  # of several processes, only the first continues after training
        return train(config)
    atlas_of(config)  # raises an error before training
    if config.evaluation.masks.in_run:
        methods_of(config)
    train(config)
    done = stage(explain_run)(config)
    if config.shard and n_maps_missing(config, done):
        log(f"run shard {config.shard}: done; evaluate and report need the maps of all shards")
        return done
    if build_task(config.task).reported_as is None:
        log("run: evaluate and report are skipped: they compare classes, which this task does not have")
        return done
    evaluate(config)
    if config.shard and not is_complete(config, done):
        return done
    if config.evaluation.masks.in_run:
        validate(config)
        if config.shard and not is_validated(config, done):
            return done
    done = report(config)
    print_summary(config, done)
    return done


def print_summary(config: Config, done: RunDirectory) -> None:
    """Log a short table of the main metrics."""
    from rich.table import Table

    metrics = read_json(done.metrics)
    table = Table("metric", "value", "95 % CI", "chance", title=None)
    task = task_of_table(config.task, read_tsv(done.predictions).columns)
    levels = task.chance_levels(None if task.has_classes else read_tsv(done.predictions)["target"])
    chance = {f"test/{score}": level for score, level in levels.items()}
    chance |= {
        name: level
        for score, level in levels.items()
        for name in metrics
        if score in ("auroc", "mae") and name.startswith("baseline/") and name.endswith(f"/{score}")
    }
    local = metrics.get("localization/chance")
    names = [name for name in chance if name in metrics]
    names += [
        name for name in metrics if name.startswith("localization/") and name.endswith(("/rra", "/rma"))
    ]
    for name in names:
        low, high = metrics.get(f"{name}_ci_low"), metrics.get(f"{name}_ci_high")
        limits = "" if low is None else interval(low, high)
        if low is None and name == f"test/{MATCHED}":
            limits = missing_interval(metrics[N_MATCHED])
        by_chance = chance.get(name, local)
        shown = "" if by_chance is None else fixed(by_chance)
        table.add_row(figure_title(name, task.score_titles), fixed(metrics[name]), limits, shown)
    log(table)

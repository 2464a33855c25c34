"""Compare the networks of a run with its baselines: paired tests, and pairs matched for brain size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from xai_brain.baselines.kinds import brain_size_predictions
from xai_brain.baselines.regressors import mean_predictions
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import (
    RunDirectory,
    first_repeat,
    read_json,
    read_tsv,
    update_metrics,
    write_tsv,
)
from xai_brain.runs.manifest import is_up_to_date, write_manifest
from xai_brain.statistics.classification import defined_figures
from xai_brain.statistics.continuous.correction import CORRECTIONS
from xai_brain.statistics.matching import MATCHED, N_MATCHED, TOLERANCE, matched_auroc, size_matched_pairs
from xai_brain.study.participants import task_of
from xai_brain.study.training.ensembles import NETWORK, with_ensembles
from xai_brain.task.build import build_task, task_of_table
from xai_brain.task.protocol import Task

BRAIN_SIZE = "brain_size"
MEAN = "mean"  # of the targets of the training participants


def compare_baselines(config: Config, run: RunDirectory) -> None:
    """Write evaluation/baselines.tsv and its metrics, if predictions or settings have changed.

    Rows: name, metric, value, ci_low, ci_high, n_subjects; for a baseline also the difference of the
    network from it (DeLong for auroc, corrected resampled t-test for accuracy, paired t-test for mae). Of a
    number the mean target of the training participants is always a baseline.
    """
    if not run.folds.exists():  # new participants, or imported maps
        return
    done, manifest = run.evaluation("baselines"), run.path / "evaluation" / "baselines.json"
    column = config.data.brain_size_column
    of_size = run.evaluation("brain_size_predictions")
    of_column = read_json(manifest).get("Of", {}).get("brain_size_column") if manifest.exists() else None
    if column and not (of_size.exists() and of_column == column):
        write_brain_size_predictions(config, run)
    task, of_mean = build_task(config.task), run.evaluation("mean_predictions")
    if task.reported_as == "number" and not of_mean.exists():
        participants = read_tsv(run.participants)
        found = mean_predictions(participants, read_tsv(run.folds), task_of(config, participants))
        write_tsv(found, of_mean)
    paths = {MEAN: of_mean} if task.reported_as == "number" else {}
    paths |= {BRAIN_SIZE: of_size} if column else {}
    paths |= {name: run.baseline(name) for name in config.baselines}
    paths = {name: path for name, path in paths.items() if path.exists()}
    if not paths:
        return
    if run.predictions.exists():
        paths = {NETWORK: run.predictions, **paths}
    inputs: dict[str, Any] = {name: file_hash(path) for name, path in paths.items()}
    inputs |= {"n_bootstrap": config.evaluation.n_bootstrap, "random_state": config.evaluation.random_state}
    inputs["brain_size_column"] = column

    def is_current() -> bool:
        return done.exists() and is_up_to_date(manifest, inputs)

    def compare() -> None:
        pairs = _pairs(config, run)
        predictions = {name: read_tsv(path) for name, path in paths.items()}
        columns = next(iter(predictions.values())).columns
        table = comparison_table(
            with_ensembles(config, run, predictions),
            pairs,
            read_tsv(run.participants)["participant_id"].nunique(),
            config.evaluation.n_bootstrap,
            config.evaluation.random_state,
            task_of_table(config.task, columns),
        )
        replaced = ("baseline/", *(f"{name}/" for name in CORRECTIONS), f"test/{MATCHED}", N_MATCHED)
        update_metrics(run, _named_metrics(table), replace=replaced)
        write_tsv(table, done)
        names = ("baselines", "brain_size_predictions", "mean_predictions", "chosen_network")
        write_manifest(
            manifest,
            inputs,
            [*map(run.evaluation, (*names, "size_matched_pairs")), *(run.path / "baselines").rglob("[!.]*")],
        )

    if not is_current():
        run_exclusive(run.locks, "baselines", compare, is_current)


def write_brain_size_predictions(config: Config, run: RunDirectory) -> None:
    """Write predictions of a classifier that uses brain size only, on the folds of the networks."""
    column, participants = config.data.brain_size_column, read_tsv(run.participants)
    if column is None or column not in participants:
        raise ConfigError(f"data.brain_size_column={column}: {run.participants} has no such column")
    task = task_of(config, participants)
    table = brain_size_predictions(participants, read_tsv(run.folds), column, task)
    write_tsv(table, run.evaluation("brain_size_predictions"))


def comparison_table(
    predictions: Mapping[str, pd.DataFrame],
    pairs: pd.DataFrame | None,
    n_participants: int,
    n_bootstrap: int = 1000,
    random_state: int = 0,
    task: Task | None = None,
) -> pd.DataFrame:
    """Metrics of all classifiers or regressors, and the differences of the network from the baselines.

    Parameters
    ----------
    predictions : mapping of name to DataFrame
        As predictions.tsv; the network under the name ``network``.
    pairs : DataFrame, optional
        From `size_matched_pairs`.
    n_participants : int
        Size of the cohort.
    n_bootstrap, random_state : int
    task : Task, optional
        With the names of the outputs; default: classification.

    Returns
    -------
    pandas.DataFrame
        name, metric, value, ci_low, ci_high, n_subjects, difference, difference_ci_low,
        difference_ci_high, p, test.
    """
    rows, task = [], task or build_task()
    what = "classifiers" if task.has_classes else "regressors"
    for name, table in track(list(predictions.items()), f"compare {what}", what, brief=True):
        metrics = task.scores(table, "", n_bootstrap, random_state)
        tests = {}
        if name != NETWORK and NETWORK in predictions:
            tests = task.compare(predictions[NETWORK], table, n_participants)
        for metric in task.compared_scores:
            row = {"name": name, "metric": metric, "value": metrics[f"/{metric}"]}
            row |= {key: metrics[f"/{metric}_{key}"] for key in ("ci_low", "ci_high")}
            row["n_subjects"] = table["participant_id"].nunique()
            if metric in tests:
                kind, found = tests[metric]
                compared = asdict(found)
                row |= {"difference": compared["difference"], "p": compared["p"], "test": kind}
                row |= {f"difference_{key}": compared[key] for key in ("ci_low", "ci_high")}
            rows.append(row)
        if pairs is not None:
            value, low, high, n_pairs = matched_auroc(table, pairs)
            if n_pairs:
                rows.append({"name": name, "metric": MATCHED, "value": value, "ci_low": low,
                             "ci_high": high, "n_subjects": 2 * n_pairs})  # fmt: skip
    columns = ["name", "metric", "value", "ci_low", "ci_high", "n_subjects"]
    columns += ["difference", "difference_ci_low", "difference_ci_high", "p", "test"]
    return pd.DataFrame(rows).reindex(columns=columns)


def _pairs(config: Config, run: RunDirectory) -> pd.DataFrame | None:
    """Pairs of test participants of two classes with equal brain size, in folds of the first repeat."""
    column, participants = config.data.brain_size_column, read_tsv(run.participants)
    if not column or not build_task(config.task).has_classes or participants["target"].nunique() != 2:
        return None
    unique = participants.drop_duplicates("participant_id").set_index("participant_id")
    sizes = pd.to_numeric(unique[column], errors="coerce")
    pairs = size_matched_pairs(first_repeat(read_tsv(run.folds)), sizes, unique["target"])
    if pairs.empty:
        log(
            f"{column}: no test participants of a fold differ in class and by at most {TOLERANCE:.0%} in size"
        )
        return None
    write_tsv(pairs.assign(brain_size=sizes.loc[pairs["participant_id"]].to_numpy()),
              run.evaluation("size_matched_pairs"))  # fmt: skip
    return pairs


def _named_metrics(table: pd.DataFrame) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for row in table.to_dict("records"):
        own = row["name"] in CORRECTIONS  # corrections of the network are no baselines
        prefix = "test" if row["name"] == NETWORK else f"{'' if own else 'baseline/'}{row['name']}"
        if row["name"] != NETWORK or row["metric"] == MATCHED:  # training writes the other test metrics
            key = f"{prefix}/{row['metric']}"
            metrics |= {key: row["value"], f"{key}_ci_low": row["ci_low"], f"{key}_ci_high": row["ci_high"]}
        if row["name"] == NETWORK and row["metric"] == MATCHED:
            metrics[N_MATCHED] = row["n_subjects"] / 2
    return defined_figures(metrics)

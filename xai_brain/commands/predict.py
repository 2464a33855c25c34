"""Predict people who were not in a run, by all of its networks together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from xai_brain.claims import alone
from xai_brain.commands.cohort import portable, prepared_cohort, synthetic_root
from xai_brain.commands.explain_batch import load_volume
from xai_brain.commands.networks import ALL, Network, trained_networks, trained_run
from xai_brain.commands.progress import say, track
from xai_brain.commands.setup import open_run, stage
from xai_brain.config import ConfigError, check, compose
from xai_brain.data.audit import content_hashes
from xai_brain.data.problems import DataError, named
from xai_brain.evaluation.classification import classification_metrics
from xai_brain.runs import (
    RunDirectory,
    add_seconds,
    provenance,
    read_tsv,
    update_metrics,
    write_json,
    write_tsv,
)
from xai_brain.volumes import file_hash

LABELS = ("label", "class_names", "threshold", "bins")  # as at training unless they are given


def predict_settings(overrides: list[str]) -> DictConfig:
    """Settings of the trained run with the new people's data.

    Parameters
    ----------
    overrides : list of str
        ``networks=<run>``, ``data=...``, ``data.root=...``, ``run_dir=...``. Preparation and network are
        those of the trained run.

    Raises
    ------
    ConfigError
        ``networks`` is missing or no run, or a setting belongs to training.
    """
    composed = compose("predict", overrides, checked=False)
    if not composed.networks:
        raise ConfigError(
            "no value for networks: the folder of the run that was trained, networks=outputs/demo"
        )
    given = [override.lstrip("+~").split("=")[0].split("@")[0] for override in overrides]
    free = ("run_dir", "name", "networks", "overwrite", "data", "explain", "attribution", "evaluation")
    for key in given:
        if key.split(".")[0] not in free:
            raise ConfigError(f"{key} cannot be changed by `xai-brain predict`: it belongs to training")
    cfg, trained = trained_run(composed)
    if cfg.planted.kind:
        raise ConfigError(
            f"networks={composed.networks}: its classes were planted and mean nothing for others"
        )
    labels = {key: cfg.data[key] for key in LABELS}
    cfg.data = composed.data
    for key, value in labels.items():
        if f"data.{key}" not in given:
            cfg.data[key] = value
    if cfg.data.brain_size_column and "data.brain_size_column" not in given:
        cfg.data.brain_size_column = None  # needs folds
    cfg.data.class_names = trained_class_names(trained)
    for key in ("explain", "evaluation", "attribution"):
        if any(name.split(".")[0] == key for name in given):
            cfg[key] = composed[key]
    cfg.name, cfg.run_dir, cfg.overwrite = composed.name, composed.run_dir, composed.overwrite
    cfg.networks, cfg.seeds = composed.networks, [ALL[0]]
    check(cfg)
    return cfg


def trained_class_names(trained: RunDirectory) -> list[str]:
    """In the order of the network's outputs."""
    columns = read_tsv(trained.predictions).columns
    return [column.removeprefix("prob_") for column in columns if column.startswith("prob_")]


@stage
def predict(cfg: DictConfig) -> RunDirectory:
    """Predict new people; the mean of the calibrated probabilities of all networks counts.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
        From `predict_settings`.

    Returns
    -------
    RunDirectory
        With participants.tsv and predictions.tsv (``n_networks`` and ``networks_agree``, the share of
        them that choose the same class); with test figures where all classes are known and present.
    """
    run = open_run(cfg)
    if run.predictions.exists():
        say(f"predict: nothing to do, {run.predictions} is complete")
        return run
    alone(run.claims, "predictions", lambda: _predict(cfg, run), run.predictions.exists)
    return run


def _predict(cfg: DictConfig, run: RunDirectory) -> None:
    start = time.monotonic()
    networks = trained_networks(cfg)
    cohort = prepared_cohort(cfg, run)
    if cohort.empty:
        raise DataError(f"{cfg.data.root}: no image of it can be used; see {run.quarantine}")
    refuse_training_subjects(cfg, cohort)
    root = synthetic_root(cfg) if cfg.data.layout == "synthetic" else Path(cfg.data.root).expanduser()
    write_tsv(portable(cohort, root), run.participants)
    inputs = {Path(row.t1w_path).name: row.sha256 for row in cohort.itertuples()}
    about = provenance(list(cfg.seeds), inputs)
    about["networks_sha256"] = {n.checkpoint.name: n.sha256 for n in networks}
    about["tables_sha256"] = {run.participants.name: file_hash(run.participants)}
    write_json(about, run.provenance)

    names = list(cfg.data.class_names)
    probabilities = ensemble_probabilities(cfg, cohort, networks)  # (n_networks, N, n_classes)
    mean = probabilities.mean(0)
    agreeing = (probabilities.argmax(2) == mean.argmax(1)).mean(0)
    table = cohort[["participant_id", "session_id"]].assign(
        seed=ALL[0],
        fold=ALL[1],
        target=cohort["target"],
        n_networks=len(networks),
        networks_agree=agreeing,
        **{f"prob_{name}": mean[:, k] for k, name in enumerate(names)},
    )
    if set(table["target"]) == set(range(len(names))):
        figures = classification_metrics(table, "test", cfg.evaluation.n_bootstrap)
        update_metrics(run, figures, replace=("test/",))
    else:
        say("predict: without people of every class there are no test figures")
    write_tsv(table, run.predictions)  # last: it says that prediction is complete
    add_seconds(run, "predict", time.monotonic() - start)
    say(f"predict: {len(table)} images by {len(networks)} networks together, see {run.predictions}")


def refuse_training_subjects(cfg: DictConfig, cohort: pd.DataFrame) -> None:
    """Refuse images that the networks were trained on; ids that occur in both cohorts are told.

    Raises
    ------
    DataError
        The same image content is in the trained run, by file or as prepared.
    """
    settings, run = trained_run(cfg)
    before = read_tsv(run.participants)
    known = set(before["sha256"])
    shared = cohort["participant_id"][cohort["sha256"].isin(known)].tolist()
    shared = shared or _same_content(settings, cohort, run)
    if shared:
        raise DataError(
            f"{named(shared)}: in the cohort that the networks of {run.path} were trained on; their "
            "out-of-fold predictions are there; remove them from this cohort"
        )
    if same := sorted(set(cohort["participant_id"]) & set(before["participant_id"])):
        say(f"warning: {named(same)}: in training too, with other images; are they other people?")


def _same_content(settings: DictConfig, cohort: pd.DataFrame, run: RunDirectory) -> list[str]:
    """Ids whose prepared volume is that of a training subject, where the training cohort can be read."""
    try:
        trained = prepared_cohort(settings, run)
    except (DataError, OSError) as error:
        say(f"only files are compared with the training cohort, which cannot be read ({error})")
        return []
    hashes = content_hashes([*trained["volume_path"], *cohort["volume_path"]])
    known = {content for content in hashes[: len(trained)] if content}
    here = zip(cohort["participant_id"], hashes[len(trained) :], strict=True)
    return [participant_id for participant_id, content in here if content in known]


@torch.no_grad()
def ensemble_probabilities(cfg: DictConfig, cohort: pd.DataFrame, networks: list[Network]) -> np.ndarray:
    """Calibrated probabilities, (n_networks, N, n_classes)."""
    told = []
    for network in track(networks, "predict, networks"):
        classifier = network.load(cfg)
        device = next(classifier.parameters()).device
        batches = _batches(cohort["volume_path"].tolist(), cfg.explain.batch_size)
        told.append(torch.cat([classifier(batch.to(device)).softmax(1).cpu() for batch in batches]))
    return torch.stack(told).numpy()


def _batches(paths: list[str], size: int) -> Iterator[torch.Tensor]:
    for i in range(0, len(paths), size):
        yield torch.from_numpy(np.stack([load_volume(path) for path in paths[i : i + size]]))[:, None]

"""Explain every subject by the network that did not see it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from xai_brain.commands.cohort import prepared_cohort, same_cohort
from xai_brain.commands.explain_batch import (
    SPACE,
    Batch,
    build_method,
    build_reference,
    explain_batch,
    is_current,
)
from xai_brain.commands.folds import parts_of
from xai_brain.commands.native import write_native_maps
from xai_brain.commands.progress import say, track
from xai_brain.commands.setup import open_run
from xai_brain.config import ConfigError
from xai_brain.data.fold_tables import fold_numbers
from xai_brain.models.classifier import BrainClassifier
from xai_brain.models.fitting import keep_freed_memory
from xai_brain.runs import (
    RunDirectory,
    add_seconds,
    first_repeat,
    read_json,
    read_tsv,
    versions,
    write_json,
)
from xai_brain.volumes import Grid, file_hash, get_grid, load_img, resample_to_grid, save_img


def explain(cfg: DictConfig) -> RunDirectory:
    """Make the maps that are missing.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
        From `xai_brain.compose`, or the settings of an existing run.

    Returns
    -------
    RunDirectory
        With attributions/ (NIfTI and JSON sidecar per subject and method) and images/.
    """
    check_methods(cfg)
    run = open_run(cfg)
    if not run.predictions.exists():
        raise ConfigError(f"{run.predictions}: does not exist; run `xai-brain train` first")
    predictions, folds = first_repeat(read_tsv(run.predictions)), first_repeat(read_tsv(run.folds))
    seeds = explained_seeds(cfg)
    batches = [batch for seed in seeds for batch in _batches(cfg, predictions[predictions["seed"] == seed])]
    networks = {
        (seed, fold): file_hash(run.checkpoint(fold, seed, list(cfg.seeds)))
        for seed in seeds
        for fold in fold_numbers(folds)
    }
    plan = {
        label: [
            b
            for b in batches
            if any(not is_current(cfg, run, row, label, networks) for row in b.rows.itertuples())
        ]
        for label in cfg.attribution
    }
    if not any(plan.values()):
        say(f"explain: nothing to do, all maps of {', '.join(cfg.attribution)} are there")
        _bring_back(cfg, run, batches)
        return run

    start = time.monotonic()
    cohort = same_cohort(prepared_cohort(cfg, run), run)
    _write_images(run, cohort, get_grid(cfg.preprocessing.grid))
    _write_dataset_description(run)
    keep_freed_memory()
    for seed in seeds:
        for fold in fold_numbers(folds):
            todo = {
                label: [b for b in missing if b.seed == seed and b.fold == fold]
                for label, missing in plan.items()
            }
            if any(todo.values()):
                _explain_fold(cfg, run, cohort, folds, fold, seed, todo)
    _bring_back(cfg, run, batches)
    add_seconds(run, "explain", time.monotonic() - start)
    return run


def _bring_back(cfg: DictConfig, run: RunDirectory, batches: list[Batch]) -> None:
    if cfg.explain.output_space == "native":
        write_native_maps(cfg, run, pd.concat([batch.rows for batch in batches]))


def check_methods(cfg: DictConfig) -> None:
    """Refuse a method that cannot be made, before anything depends on it."""
    for label, method in cfg.attribution.items():
        try:
            instantiate(method)
        except InstantiationException as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ConfigError(f"attribution.{label}: cannot be made: {reason}") from error


def explained_seeds(cfg: DictConfig) -> list[int]:
    seeds = list(cfg.seeds) if cfg.explain.seeds is None else list(cfg.explain.seeds)
    if unknown := sorted(set(seeds) - set(cfg.seeds)):
        raise ConfigError(f"explain.seeds={seeds}: {unknown} were not trained (seeds={list(cfg.seeds)})")
    return seeds


def _batches(cfg: DictConfig, predictions: pd.DataFrame) -> list[Batch]:
    size = cfg.explain.batch_size
    return [
        Batch(int(seed), int(fold), rows.iloc[i : i + size])
        for (seed, fold), rows in predictions.groupby(["seed", "fold"])
        for i in range(0, len(rows), size)
    ]


def _explain_fold(
    cfg: DictConfig,
    run: RunDirectory,
    cohort: pd.DataFrame,
    folds: pd.DataFrame,
    fold: int,
    seed: int,
    todo: dict[str, list[Batch]],
) -> None:
    checkpoint = run.checkpoint(fold, seed, list(cfg.seeds))
    device = torch.device("cuda" if torch.cuda.is_available() and cfg.trainer.accelerator != "cpu" else "cpu")
    classifier = BrainClassifier.load_from_checkpoint(
        checkpoint, map_location=device, weights_only=True
    ).eval()
    parts = parts_of(cfg, cohort, folds, fold)
    grid = get_grid(cfg.preprocessing.grid)
    n_volumes = cfg.explain.n_reference_volumes
    reference = build_reference(parts["train"], classifier.class_names, n_volumes, grid)
    about = {"Fold": int(fold), "Seed": int(seed), "CheckpointSHA256": file_hash(checkpoint)}
    for label, batches in todo.items():
        if not batches:
            continue
        method, output = build_method(cfg, label, classifier, reference)
        for batch in track(batches, f"explain seed {seed} fold {fold + 1}, {label}"):
            explain_batch(cfg, run, cohort, batch, label, method, output, classifier, about)


def _write_images(run: RunDirectory, cohort: pd.DataFrame, grid: Grid) -> None:
    """Prepared T1 for looking (uint8, 0 outside the brain), and truth masks of planted effects."""
    for row in cohort.to_dict("records"):
        if row.get("alignment_path"):
            write_json(
                read_json(Path(row["alignment_path"])),
                run.alignment(row["participant_id"], row["session_id"]),
            )
        path = run.image(row["participant_id"], row["session_id"], SPACE)
        truth = run.image(row["participant_id"], row["session_id"], SPACE, "mask")
        if path.exists() and (truth.exists() or not row["truth_path"]):
            continue
        volume, mask = np.load(row["volume_path"]), np.load(row["volume_mask_path"])
        if row["truth_path"]:
            data = resample_to_grid(load_img(row["truth_path"]), grid, order=0) > 0.5
            save_img(data, grid.affine, truth, space=SPACE)
        save_img(for_looking(volume, mask), grid.affine, path, space=SPACE)


def for_looking(volume: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    """uint8: 1 to 255 in the brain between its 0.5th and 99.5th percentile, 0 outside."""
    low, high = np.percentile(volume[brain_mask], [0.5, 99.5])
    scaled = 1 + 254 * np.clip((volume - low) / max(high - low, 1e-6), 0, 1)
    return np.where(brain_mask, scaled, 0).round().astype(np.uint8)


def _write_dataset_description(run: RunDirectory) -> None:
    content = {
        "Name": "Attribution maps of xai_brain",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "xai_brain", "Version": versions().get("xai-brain", "unknown")}],
    }
    path = run.path / "attributions" / "dataset_description.json"
    if not path.exists():
        write_json(content, path)

"""Explain every subject by the network that did not see it."""

from __future__ import annotations

import time
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from xai_brain.attribution.reference import Reference
from xai_brain.claims import alone, share
from xai_brain.commands.cohort import prepared_cohort, same_cohort
from xai_brain.commands.explain_batch import (
    Batch,
    Explainer,
    build_method,
    build_reference,
    check_references,
    explain_batch,
    is_current,
    takes_reference,
)
from xai_brain.commands.native import write_native_maps
from xai_brain.commands.networks import (
    Network,
    described,
    fingerprint,
    is_weights_file,
    networks_of,
    training_subjects,
)
from xai_brain.commands.progress import say, track
from xai_brain.commands.run_images import SPACE
from xai_brain.commands.setup import open_run, stage
from xai_brain.commands.writing import write_all
from xai_brain.config import ConfigError
from xai_brain.freed_memory import keep_freed_memory
from xai_brain.runs import (
    RunDirectory,
    add_seconds,
    first_repeat,
    read_json,
    read_tsv,
    versions,
    write_json,
)
from xai_brain.shards import of_shard
from xai_brain.volumes import Grid, get_grid, load_img, resample_to_grid, save_img


@stage
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
        first = "predict" if cfg.networks else "train"
        raise ConfigError(f"{run.predictions}: does not exist; run `xai-brain {first}` first")
    networks = networks_of(cfg, run)
    check_references(cfg)
    batches = _batches(cfg, first_repeat(read_tsv(run.predictions)), networks)
    hashes = {key: fingerprint(found) for key, found in networks.items()}
    mine = of_shard((_name(label, b) for label in cfg.attribution for b in batches), cfg.shard)
    plan = {
        label: [b for b in batches if _name(label, b) in mine and not _is_done(cfg, run, hashes, label, b)]
        for label in cfg.attribution
    }
    if not any(plan.values()) and has_all_images(run):
        say(f"explain{_of(cfg)}: nothing to do, all maps of {', '.join(cfg.attribution)} are there")
        _bring_back(cfg, run, batches)
        return run

    start = time.monotonic()
    cohort = same_cohort(prepared_cohort(cfg, run), run)
    alone(
        run.claims,
        "images",
        lambda: write_images(run, cohort, get_grid(cfg.preprocessing.grid), cfg.data.orientation),
        lambda: all(has_images(run, row) for row in cohort.to_dict("records")),
        stay=cfg.shard is None,
    )
    write_dataset_description(run)
    keep_freed_memory()
    for key, those in networks.items():
        todo = {label: [b for b in missing if (b.seed, b.fold) == key] for label, missing in plan.items()}
        if any(todo.values()):
            _explain_with(cfg, run, cohort, those, todo, hashes)
    _bring_back(cfg, run, batches)
    add_seconds(run, "explain", time.monotonic() - start)
    return run


def _bring_back(cfg: DictConfig, run: RunDirectory, batches: list[Batch]) -> None:
    if cfg.shard and (n := n_maps_missing(cfg, run)):
        say(f"explain{_of(cfg)}: done; {n} maps are left to other shards")
    elif cfg.explain.output_space == "native":
        rows = pd.concat([batch.rows for batch in batches])
        alone(run.claims, "native", lambda: write_native_maps(cfg, run, rows))


def n_maps_missing(cfg: DictConfig, run: RunDirectory) -> int:
    """Maps of the methods and people of a run that are not there yet."""
    if not cfg.attribution:  # maps of others, without a network
        return 0
    networks = networks_of(cfg, run)
    hashes = {key: fingerprint(found) for key, found in networks.items()}
    return sum(
        not is_current(cfg, run, row, label, hashes)
        for batch in _batches(cfg, first_repeat(read_tsv(run.predictions)), networks)
        for row in batch.rows.itertuples()
        for label in cfg.attribution
    )


def _of(cfg: DictConfig) -> str:
    return f" shard {cfg.shard}" if cfg.shard else ""


def _name(label: str, batch: Batch) -> str:
    """Of a unit of work: a method and a batch."""
    return f"{label}_seed-{batch.seed}_fold-{batch.fold}_row-{batch.rows.index[0]}"


def _is_done(
    cfg: DictConfig, run: RunDirectory, hashes: dict[tuple[int, int], str], label: str, batch: Batch
) -> bool:
    return all(is_current(cfg, run, row, label, hashes) for row in batch.rows.itertuples())


def check_methods(cfg: DictConfig) -> None:
    """Refuse a method that cannot be made, before anything depends on it."""
    for label, method in cfg.attribution.items():
        try:
            instantiate(method)
        except InstantiationException as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ConfigError(f"attribution.{label}: cannot be made: {reason}") from error


def _batches(
    cfg: DictConfig, predictions: pd.DataFrame, networks: dict[tuple[int, int], list[Network]]
) -> list[Batch]:
    size = cfg.explain.batch_size
    return [
        Batch(int(seed), int(fold), rows.iloc[i : i + size])
        for (seed, fold), rows in predictions.groupby(["seed", "fold"])
        if (seed, fold) in networks
        for i in range(0, len(rows), size)
    ]


def _explain_with(
    cfg: DictConfig,
    run: RunDirectory,
    cohort: pd.DataFrame,
    networks: list[Network],
    todo: dict[str, list[Batch]],
    hashes: dict[tuple[int, int], str],
) -> None:
    """Maps of the subjects of whom these networks speak, but those that other processes make."""
    done = partial(_is_done, cfg, run, hashes)
    if all(done(label, batch) for label, batches in todo.items() for batch in batches):
        return  # another process was faster
    classifiers = [network.load(cfg) for network in networks]
    references: list[Reference | None] = [None] * len(networks)
    known = not is_weights_file(cfg)  # the participants that they were trained on
    if known and any(takes_reference(cfg, label) for label, batches in todo.items() if batches):
        grid = get_grid(cfg.preprocessing.grid)
        names, n_volumes = classifiers[0].class_names, cfg.explain.n_reference_volumes
        references = [
            build_reference(train, names, n_volumes, grid)
            for train in training_subjects(cfg, run, cohort, networks)
        ]
    about = described(networks)
    who = (
        f"{len(networks)} networks"
        if len(networks) > 1
        else f"seed {networks[0].seed} fold {networks[0].fold + 1}"
    )
    for label, batches in todo.items():
        if not batches:
            continue
        explainers = [
            Explainer(classifier, *build_method(cfg, label, classifier, reference))
            for classifier, reference in zip(classifiers, references, strict=True)
        ]
        share(
            run.claims,
            {_name(label, b): b for b in batches},
            done=partial(done, label),
            do=partial(explain_batch, cfg, run, cohort, label=label, explainers=explainers, about=about),
            progress=partial(track, description=f"explain {who}, {label}"),
            wait=partial(_waiting, who, label),
            stay=cfg.shard is None,
        )


def _waiting(who: str, label: str, n: int) -> None:
    say(f"explain {who}, {label}: waiting for {n} batches that other processes explain")


def write_images(run: RunDirectory, cohort: pd.DataFrame, grid: Grid, orientation: str | None) -> None:
    """Prepared T1 for looking (uint8, 0 outside the brain), and truth masks of planted effects.

    `orientation` is ``data.orientation``, that of files that contain none.
    """

    def write(row: dict[Hashable, Any]) -> None:
        if row.get("alignment_path"):
            write_json(
                read_json(Path(row["alignment_path"])),
                run.alignment(row["participant_id"], row["session_id"]),
            )
        if has_images(run, row):
            return
        path, truth = image_paths(run, row)
        volume, mask = np.load(row["volume_path"]), np.load(row["volume_mask_path"])
        if row["truth_path"]:
            data = resample_to_grid(load_img(row["truth_path"], orientation), grid, order=0) > 0.5
            save_img(data, grid.affine, truth, space=SPACE)
        save_img(for_looking(volume, mask), grid.affine, path, space=SPACE)

    write_all(write, cohort.to_dict("records"))


def image_paths(run: RunDirectory, row: dict[Hashable, Any]) -> tuple[Path, Path]:
    """Of the T1, and of the truth mask."""
    about = (row["participant_id"], row["session_id"], SPACE)
    return run.image(*about), run.image(*about, "mask")


def has_images(run: RunDirectory, row: dict[Hashable, Any]) -> bool:
    path, truth = image_paths(run, row)
    return path.exists() and (truth.exists() or not row["truth_path"])


def has_all_images(run: RunDirectory) -> bool:
    """Whether everybody's image for looking is there; that of a true place is written before it."""
    people = read_tsv(run.participants).itertuples()
    return all(run.image(row.participant_id, row.session_id, SPACE).exists() for row in people)


def for_looking(volume: np.ndarray, brain_mask: np.ndarray) -> np.ndarray:
    """uint8: 1 to 255 in the brain between its 0.5th and 99.5th percentile, 0 outside."""
    low, high = np.percentile(volume[brain_mask], [0.5, 99.5])
    scaled = 1 + 254 * np.clip((volume - low) / max(high - low, 1e-6), 0, 1)
    return np.where(brain_mask, scaled, 0).round().astype(np.uint8)


def write_dataset_description(run: RunDirectory) -> None:
    """What BIDS asks of a folder of derivatives."""
    content = {
        "Name": "Attribution maps of xai_brain",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "xai_brain", "Version": versions().get("xai-brain", "unknown")}],
    }
    path = run.path / "attributions" / "dataset_description.json"
    if not path.exists():
        write_json(content, path)

"""Evaluate the networks of a run on images that contain only the top-ranked voxels of masks.

Each network predicts its own test participants. The masks are made from maps of training participants of the
fold, which are computed here for this purpose; maps of test participants are not used.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.utils import instantiate

from xai_brain.attribution.protocol import method_info
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import get_grid
from xai_brain.metrics.mask_validation import figures_of_joint_masks, validation_table
from xai_brain.metrics.masks import top_k_mask, voxels_of
from xai_brain.parallel.locks import run_exclusive, run_shared
from xai_brain.parallel.memory import keep_freed_memory, return_freed_memory
from xai_brain.parallel.progress import log, track
from xai_brain.parallel.shards import select_shard
from xai_brain.runs.directory import (
    RunDirectory,
    add_seconds,
    first_repeat,
    read_tsv,
    update_metrics,
    write_tsv,
)
from xai_brain.runs.group_maps import find_group_maps, write_group_map
from xai_brain.runs.manifest import is_up_to_date, write_manifest
from xai_brain.runs.seeds import network_name
from xai_brain.study.evaluation.context import EvaluationContext
from xai_brain.study.evaluation.group_records import SHARES
from xai_brain.study.explanation.fold_masks import validate_fold
from xai_brain.study.explanation.mask_unit import JOINT, MaskUnit
from xai_brain.study.explanation.missing_maps import check_methods
from xai_brain.study.participants import class_names, prepared_cohort, require_classes, same_cohort
from xai_brain.study.settings import open_run
from xai_brain.study.training.masked_training import read_retrained_predictions, retrain_masked
from xai_brain.study.training.networks import load_networks
from xai_brain.task.labels import class_named

WHOLE = {"method": "none", "mask": "none", "area_percent": 100.0, "kept": "mask", "control": "none"}


def validate_run(config: Config) -> RunDirectory:
    """Make the missing masks of every network and method, and the metrics of all masks."""
    run = RunDirectory(Path(config.run_dir))
    if config.networks or not run.predictions.exists() or not run.folds.exists():
        raise ConfigError(f"{run.path}: has no networks of its own; masks need those of `xai-brain train`")
    require_classes(config, "validate")
    check_methods(config)
    methods_of(config)  # raises an error before anything is saved
    check_classes(config, class_names(read_tsv(run.participants)))
    open_run(config)
    units = _units(config, run)
    is_current = partial(_is_gathered, config, run, units)

    def finish() -> None:
        _manifest(run).unlink(missing_ok=True)
        gather(config, run, units)
        tables = [run.evaluation(name) for name in ("mask_predictions", "mask_validation")]
        shares = [path for each in find_group_maps(run, quantities=[SHARES]) for path in each.files]
        write_manifest(_manifest(run), _inputs(config, run, units), [*tables, *shares])

    if not any(map(is_missing, units)) and is_current():
        log("validate: nothing to do, all masks are tested")
        return run
    start = time.monotonic()
    mine = select_shard((unit.path.stem for unit in units), config.shard)
    make_missing(config, run, [unit for unit in units if unit.path.stem in mine])
    if config.shard and (n_left := sum(map(is_missing, units))):
        log(f"validate shard {config.shard}: done; {n_left} units and the tables are left to other processes")
    else:
        run_exclusive(run.locks, "masks", finish, is_current, stay=config.shard is None)
    add_seconds(run, "validate", time.monotonic() - start)
    return run


def is_validated(config: Config, run: RunDirectory) -> bool:
    """Whether all results of this stage exist."""
    units = _units(config, run)
    return not any(map(is_missing, units)) and _is_gathered(config, run, units)


def _units(config: Config, run: RunDirectory) -> list[MaskUnit]:
    networks = load_networks(config, run).values()
    return [MaskUnit(config, run, one, label) for (one,) in networks for label in methods_of(config)]


def _manifest(run: RunDirectory) -> Path:
    return run.path / "evaluation" / "masks" / "inputs.json"


def _is_gathered(config: Config, run: RunDirectory, units: list[MaskUnit]) -> bool:
    there = run.evaluation("mask_validation").exists()
    return there and is_up_to_date(_manifest(run), _inputs(config, run, units))


def methods_of(config: Config) -> list[str]:
    """Methods whose masks are tested: those of the settings, by default all except baselines."""
    chosen = config.evaluation.masks.methods
    if chosen is None:
        makers = {label: instantiate(method) for label, method in config.attribution.items()}
        kinds = {
            label: "baseline" if method_info(make).is_baseline else "method" for label, make in makers.items()
        }
        chosen = [label for label, kind in kinds.items() if kind != "baseline"]
    known = ", ".join(map(str, config.attribution)) or "none"
    if unknown := [label for label in chosen if label not in config.attribution]:
        raise ConfigError(f"evaluation.masks.methods: there is no {unknown[0]!r}; there are {known}")
    if not chosen:
        raise ConfigError(f"evaluation.masks.methods: at least one is needed; there are {known}")
    return list(chosen)


def check_classes(config: Config, names: list[str]) -> None:
    """Raise an error for masks of a class that does not exist."""
    which = [class_named(name, names) for name in config.evaluation.masks.which or []]
    if unknown := [name for name in which if name not in (JOINT, *names)]:
        known = ", ".join((JOINT, *names))
        raise ConfigError(f"evaluation.masks.which: there is no {unknown[0]!r}; there are {known}")
    if JOINT in names:
        raise ConfigError(
            f"data.class_names: the name {JOINT} is reserved for the mask of all classes; rename the class"
        )


def is_missing(unit: MaskUnit) -> bool:
    if not unit.is_done():
        return True
    again = unit.config.evaluation.masks.retrain
    return again and any(not path.exists() for _, _, path in unit.retraining_jobs())


def make_missing(config: Config, run: RunDirectory, units: list[MaskUnit]) -> None:
    """Explain, mask and predict, network by network; retrain if the settings request it."""
    missing = [unit for unit in units if is_missing(unit)]
    if not missing:
        return
    cohort = same_cohort(prepared_cohort(config, run), run)
    predictions = first_repeat(read_tsv(run.predictions))
    keep_freed_memory()
    for network in dict.fromkeys(unit.network for unit in missing):
        rows = predictions[(predictions["seed"] == network.seed) & (predictions["fold"] == network.fold)]
        context = EvaluationContext(
            config, run, cohort, network, network.load(config), rows.reset_index(drop=True)
        )
        own = [unit for unit in missing if unit.network == network]
        where = f"seed {network.seed} fold {network.fold + 1}"
        run_shared(
            run.locks,
            {f"validate_{unit.label}_{network_name(network.seed, network.fold)}": unit for unit in own},
            done=MaskUnit.is_done,
            do=partial(validate_fold, context=context),
            progress=partial(track, description=f"validate {where}", unit="methods"),
            wait=partial(_log_waiting, where),
            stay=config.shard is None,
        )
        if config.evaluation.masks.retrain:
            again = {
                path: masked.kept_voxels(kept)
                for unit in own
                if unit.is_done()
                for masked, kept, path in unit.retraining_jobs()
            }
            run_shared(
                run.locks,
                {path.stem: path for path in again},
                done=Path.exists,
                do=partial(_retrain, context, again),
                progress=partial(track, description=f"retrain {where}", unit="networks"),
                wait=partial(_log_waiting, where),
                stay=config.shard is None,
            )
        return_freed_memory()


def _retrain(context: EvaluationContext, left: dict[Path, np.ndarray], path: Path) -> None:
    retrain_masked(context, left[path], path)


def _log_waiting(where: str, n: int) -> None:
    log(f"validate {where}: waiting for {n} units that other processes compute")


def gather(config: Config, run: RunDirectory, units: list[MaskUnit]) -> None:
    """Pool predictions, metrics and masks over networks and write their tables and images."""
    predictions = first_repeat(read_tsv(run.predictions))
    seeds = {unit.network.seed for unit in units}
    whole = predictions[predictions["seed"].isin(seeds)].drop(columns="repeat", errors="ignore")
    tables = [whole.assign(**WHOLE, retrained=False, draw=0)]
    for unit in track(units, "read masks", "files", brief=True):
        if unit.path.read_text().strip():
            tables.append(read_tsv(unit.path).assign(method=unit.label))
        if config.evaluation.masks.retrain:
            of_network = predictions["seed"].eq(unit.network.seed) & predictions["fold"].eq(unit.network.fold)
            images = predictions[of_network]
            tables += [
                masked.table(images, kept, read_retrained_predictions(images, path), retrained=True).assign(
                    method=unit.label
                )
                for masked, kept, path in unit.retraining_jobs()
            ]
    predictions_of_masks = pd.concat(tables, ignore_index=True)
    first = ["method", "mask", "area_percent", "kept", "control", "retrained", "draw"]
    predictions_of_masks = predictions_of_masks[
        [*first, *(column for column in predictions_of_masks if column not in first)]
    ]
    write_tsv(predictions_of_masks, run.evaluation("mask_predictions"))
    write_shares(config, run, units)
    table = validation_table(
        predictions_of_masks,
        config.evaluation.n_bootstrap,
        config.evaluation.random_state,
        progress=partial(track, description="metrics of masks, bootstrap", unit="conditions", brief=True),
    )
    update_metrics(run, dict(figures_of_joint_masks(table)), replace=("masks/",))
    write_tsv(table, run.evaluation("mask_validation"))


def write_shares(config: Config, run: RunDirectory, units: list[MaskUnit]) -> None:
    """Write, for every mask of a method, the share of networks whose mask contains each voxel."""
    for each in find_group_maps(run, quantities=[SHARES]):
        each.remove()
    shares: dict[tuple[str, str, float], list[np.ndarray]] = {}
    for unit in units:
        orders = {mask: order for (mask, control), order in unit.orders().items() if control == "map"}
        for mask, order in orders.items():
            if mask not in (config.evaluation.masks.which or [mask]):
                continue
            for area in config.evaluation.masks.areas:
                voxels = top_k_mask(order, voxels_of(area, order > 0))
                shares.setdefault((unit.label, mask, area), []).append(voxels)
    affine = get_grid(config.preprocessing.grid).affine
    for (label, mask, area), masks in shares.items():
        about: dict[str, Any] = {"Mask": mask, "AreaPercent": area, "NumberOfNetworks": len(masks)}
        meaning = (
            "share of the networks whose mask, made from their training participants, contains the voxel"
        )
        about |= {"ValueMeaning": meaning}
        share = np.asarray(np.mean(masks, axis=0, dtype=np.float32))
        write_group_map(run, label, f"mask-{mask}-top{area:g}", "share", share, affine, about)


def _inputs(config: Config, run: RunDirectory, units: list[MaskUnit]) -> dict[str, Any]:
    """Inputs that the tables depend on."""
    return {
        "units": {unit.path.name: unit.inputs_hash for unit in units},
        "predictions": file_hash(run.predictions),
        "retrain": config.evaluation.masks.retrain,
        "n_bootstrap": config.evaluation.n_bootstrap,
        "random_state": config.evaluation.random_state,
    }

"""What no type can exclude: settings that contradict each other, or that would fail hours later."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xai_brain.config.planted_effect import PlantedEffect, PlantedError, check_planted
from xai_brain.config.schema import OWN_TRAINER_ARGUMENTS, ConfigError, OnError, TrainerConfig
from xai_brain.config.trust import KINDS, KNOWN_PACKAGES, import_trusted, is_known_kind
from xai_brain.io.nifti import GRIDS
from xai_brain.io.orientation import validate_orientation
from xai_brain.parallel.shards import read_shard


def check(cfg: DictConfig) -> None:
    """Refuse what no type can exclude."""
    if missing := sorted(str(key) for key in OmegaConf.missing_keys(cfg)):
        hint = " (choose one with data=synthetic or data=bids data.root=...)" if "data" in missing[0] else ""
        raise ConfigError(f"no value for {', '.join(missing)}{hint}")
    if cfg.data.layout != "synthetic" and not cfg.data.root:
        raise ConfigError("no value for data.root: the folder of the images, data.root=/path/to/it")
    if not isinstance(cfg.data.entities, DictConfig):
        raise ConfigError(
            f"data.entities={cfg.data.entities}: names and values are needed, as in {{desc: brain}}"
        )
    if not cfg.model.get("_target_"):
        raise ConfigError("no value for model._target_: the dotted name of a torch.nn.Module")
    if not cfg.task.get("_target_"):
        raise ConfigError("no value for task._target_: the dotted name of a task, as in conf/task")
    _check_baselines(cfg.baselines)
    for label, method in cfg.attribution.items():
        if not method.get("_target_"):
            raise ConfigError(f"attribution.{label} has no _target_: it is not one of the methods chosen")
    choices = {
        "data.on_error": tuple(choice.value for choice in OnError),
        "folds.kind": ("stratified", "hold_out", "column"),
        "trainer.scheduler": ("one_cycle", "multistep", "constant"),
        "trainer.mode": (None, "min", "max"),
        "trainer.standardize": (None, "mean", "zscore"),
        "explain.output_space": ("MNI152", "native"),
        "preprocessing.scaling": ("zscore", "percentile", "none"),
        "preprocessing.brain": ("image", "template"),
        "data.space_check": ("error", "warn"),
        "preprocessing.alignment": ("affine", "rigid"),
        "evaluation.group.scaling": ("none", "l2", "rank"),
        "evaluation.variance_scaling": ("none", "l2", "rank"),
    }
    for key, allowed in choices.items():
        if (value := OmegaConf.select(cfg, key)) not in allowed:
            raise ConfigError(f"{key}={value}: one of {', '.join(str(a) for a in allowed if a)} is needed")
    at_least = {"folds.n_folds": 2, "trainer.max_epochs": 1, "trainer.batch_size": 1, "explain.batch_size": 1}
    at_least |= {"trainer.devices": 1, "trainer.num_nodes": 1}
    at_least |= {"evaluation.n_bootstrap": 1, "folds.n_repeats": 1}
    at_least |= {"evaluation.group.n_perm": 0, "evaluation.group.fwhm_mm": 0}
    at_least |= {"evaluation.top_regions": 1, "evaluation.n_perm": 1}
    at_least |= {f"augmentation.{key}": 0 for key in cfg.augmentation}
    for key, least in at_least.items():
        if (value := OmegaConf.select(cfg, key)) < least:
            raise ConfigError(f"{key}={value}: at least {least} is needed")
    _check_trainer(cfg.trainer)
    for key in ("validation_fraction", "test_fraction"):
        if not 0 < cfg.folds[key] < 1:
            raise ConfigError(f"folds.{key}={cfg.folds[key]}: between 0 and 1 is needed")
    if cfg.folds.kind == "column" and not cfg.folds.column:
        raise ConfigError("no value for folds.column: the column of participants.tsv whose values are folds")
    if cfg.folds.n_repeats > 1 and cfg.folds.kind != "stratified":
        raise ConfigError(f"folds.n_repeats={cfg.folds.n_repeats}: only folds.kind=stratified is repeated")
    if cfg.augmentation.flip_probability > 1 or cfg.augmentation.max_scaling >= 1:
        raise ConfigError("augmentation: flip_probability is at most 1, max_scaling below 1")
    if cfg.augmentation.elastic_sd_mm > cfg.augmentation.elastic_spacing_mm / 8:
        raise ConfigError(
            f"augmentation.elastic_sd_mm={cfg.augmentation.elastic_sd_mm}: above an eighth of "
            "elastic_spacing_mm the anatomy would fold over itself"
        )
    if not all(0 < percent <= 100 for percent in cfg.evaluation.top_percents):
        raise ConfigError(
            f"evaluation.top_percents={list(cfg.evaluation.top_percents)}: above 0, at most 100"
        )
    _check_group(cfg.evaluation.group)
    _check_card(cfg.evaluation.card)
    _check_masks(cfg.evaluation.masks)
    if cfg.evaluation.atlas_table and not cfg.evaluation.atlas:
        raise ConfigError("no value for evaluation.atlas: the labels image that evaluation.atlas_table names")
    if cfg.preprocessing.grid not in GRIDS:
        raise ConfigError(f"preprocessing.grid={cfg.preprocessing.grid}: one of {', '.join(GRIDS)}")
    if (median := cfg.preprocessing.brain_median) is not None and (
        median <= 0 or cfg.preprocessing.scaling != "none"
    ):
        raise ConfigError(
            f"preprocessing.brain_median={median}: a positive number with scaling=none is needed"
        )
    if cfg.data.num_workers is not None and cfg.data.num_workers < 1:
        raise ConfigError(f"data.num_workers={cfg.data.num_workers}: at least 1 is needed")
    if cfg.data.orientation is not None:
        try:
            validate_orientation(cfg.data.orientation)
        except ValueError as error:
            raise ConfigError(f"data.{error}") from error
    if cfg.shard is not None:
        try:
            read_shard(cfg.shard)
        except ValueError as error:
            raise ConfigError(str(error)) from error
    if len(set(cfg.seeds)) != len(cfg.seeds) or not len(cfg.seeds):
        raise ConfigError(f"seeds={list(cfg.seeds)}: one or more different numbers are needed")
    try:
        check_planted(PlantedEffect(**cfg.planted))
    except PlantedError as error:
        raise ConfigError(str(error)) from error
    for section in ("attribution", "baselines"):
        if unfit := [name for name in cfg[section] if not re.fullmatch(r"\w+", str(name), re.ASCII)]:
            raise ConfigError(f"{section}.{unfit[0]}: a name can hold letters, digits and _ only")
    import_trusted(cfg.trusted_modules)
    _check_targets(OmegaConf.to_container(cfg), list(cfg.trusted_modules))
    _check_task(cfg)


# These belong to higher layers, so they are named like a _target_.
METRICS_TABLE, TASKS = "xai_brain.metrics.table", "xai_brain.task.build"
BASELINES = {  # what each kind of baseline needs, and what it may have
    "voxels": ({"steps", "block_voxels"}, {"choices"}),
    "morphometry": ({"steps"}, {"choices"}),
    "slabs": ({"network", "n_slices"}, {"trainer", "n_seeds"}),
    "volumes": ({"network"}, {"trainer", "n_seeds"}),
}


def _check_baselines(baselines: DictConfig) -> None:
    trainer = {field.name for field in fields(TrainerConfig)} - {"devices", "num_nodes", "strategy"}
    for name, settings in baselines.items():
        where = f"baselines.{name!s}"
        features = settings.get("features") if isinstance(settings, DictConfig) else None
        if features not in BASELINES:
            raise ConfigError(f"{where}.features={features}: one of {', '.join(BASELINES)} is needed")
        if name in ("brain_size", "network", "chosen_network") or str(name).endswith("_ensemble"):
            raise ConfigError(f"{where}: this name is taken; choose another")
        needed, optional = BASELINES[features]
        if missing := sorted(key for key in needed if not settings.get(key)):
            raise ConfigError(f"no value for {where}.{missing[0]}")
        if unknown := sorted(set(settings) - needed - optional - {"features"}):
            known = ", ".join(sorted(needed | optional))
            raise ConfigError(f"there is no setting {where}.{unknown[0]}; it has features, {known}")
        if unknown := sorted(set(settings.get("trainer") or {}) - trainer):
            raise ConfigError(f"there is no setting {where}.trainer.{unknown[0]}; see conf/trainer")
        for key in ("block_voxels", "n_slices", "n_seeds"):
            if key in settings and not (isinstance(settings[key], int) and settings[key] >= 1):
                raise ConfigError(f"{where}.{key}={settings[key]!r}: a whole number from 1 on is needed")
        if "network" in settings and not settings.network.get("_target_"):
            raise ConfigError(f"no value for {where}.network._target_: the dotted name of a torch.nn.Module")


def _check_task(cfg: DictConfig) -> None:
    try:
        task = import_module(TASKS).build_task(OmegaConf.to_container(cfg.task))
    except (ValueError, ImportError) as error:
        raise ConfigError(str(error)) from error
    if cfg.explain.output not in (None, *task.outputs):
        raise ConfigError(f"explain.output={cfg.explain.output}: one of {', '.join(task.outputs)} is needed")
    if task.has_classes:
        return
    needs_classes = {
        "planted.kind": cfg.planted.kind,
        "baselines": list(cfg.baselines),
        "data.brain_size_column": cfg.data.brain_size_column,
        "data.threshold": cfg.data.threshold,
        "data.bins": cfg.data.bins,
        "evaluation.masks.in_run": cfg.evaluation.masks.in_run,
    }
    for key, value in needs_classes.items():
        if value:
            raise ConfigError(f"{key}={value}: needs classes; leave it out, or use task=classification")


def _check_trainer(trainer: DictConfig) -> None:
    if trainer.batch_size % (trainer.devices * trainer.num_nodes):
        nodes = f" trainer.num_nodes={trainer.num_nodes}" if trainer.num_nodes > 1 else ""
        raise ConfigError(
            f"trainer.batch_size={trainer.batch_size}: cannot be divided evenly over "
            f"trainer.devices={trainer.devices}{nodes}"
        )
    strategies = ("auto", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")
    if trainer.strategy.removesuffix("_find_unused_parameters_true") not in strategies:
        raise ConfigError(f"trainer.strategy={trainer.strategy}: one of {', '.join(strategies)} is needed")
    if not isinstance(trainer.extra, DictConfig):
        raise ConfigError(
            f"trainer.extra={trainer.extra}: names and values are needed, as in {{gradient_clip_val: 1}}"
        )
    if taken := [name for name in trainer.extra if name in OWN_TRAINER_ARGUMENTS]:
        own = f"use trainer.{taken[0]}" if taken[0] in trainer else "it cannot be changed"
        raise ConfigError(f"trainer.extra.{taken[0]}: xai_brain sets this argument; {own}")


def _check_group(group: DictConfig) -> None:
    for key in ("alpha", "cluster_p"):
        if group[key] is not None and not 0 < group[key] < 1:
            raise ConfigError(f"evaluation.group.{key}={group[key]}: between 0 and 1 is needed")
    if group.n_perm > 0 and (group.n_perm + 1) * group.alpha < 1:
        least = math.ceil(1 / group.alpha) - 1
        raise ConfigError(
            f"evaluation.group.n_perm={group.n_perm}: with fewer than {least} permutations no p can reach "
            f"evaluation.group.alpha={group.alpha}"
        )


def _check_targets(node: Any, trusted: list[str], where: str = "") -> None:
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    if (target := node.get("_target_")) is not None:
        package = str(target).split(".")[0]
        hint = f"if it is yours, add trusted_modules=[{package}]"
        if package not in (*KNOWN_PACKAGES, *trusted):
            raise ConfigError(f"{where}._target_={target}: its package is not trusted; {hint}")
        if package not in trusted and not is_known_kind(str(target)):
            raise ConfigError(f"{where}._target_={target}: is not {KINDS}; {hint}")
    for key, value in node.items():
        _check_targets(value, trusted, f"{where}.{key}".lstrip("."))


def _check_card(card: DictConfig) -> None:
    try:
        import_module(METRICS_TABLE).select_metrics(card.metrics)
    except KeyError as error:
        raise ConfigError(f"evaluation.card.metrics: {error.args[0]}") from error
    if card.removal not in ("zero", "blur", "training_mean"):
        raise ConfigError(
            f"evaluation.card.removal={card.removal}: one of zero, blur, training_mean is needed"
        )
    for key in ("n_removal", "n_sanity", "n_noise", "n_cost", "n_steps", "n_blocks", "n_noise_draws"):
        if card[key] < 1:
            raise ConfigError(f"evaluation.card.{key}={card[key]}: at least 1 is needed")
    if card.noise_sd <= 0:
        raise ConfigError(f"evaluation.card.noise_sd={card.noise_sd}: above 0 is needed")


def _check_masks(masks: DictConfig) -> None:
    areas = list(masks.areas)
    if not areas or len(set(areas)) != len(areas) or not all(0 < area < 100 for area in areas):
        raise ConfigError(
            f"evaluation.masks.areas={areas}: different percentages between 0 and 100 are needed"
        )
    if masks.removal not in ("zero", "blur", "training_mean"):
        raise ConfigError(
            f"evaluation.masks.removal={masks.removal}: one of zero, blur, training_mean is needed"
        )
    for key in ("n_subjects", "n_random"):
        if masks[key] < 1:
            raise ConfigError(f"evaluation.masks.{key}={masks[key]}: at least 1 is needed")

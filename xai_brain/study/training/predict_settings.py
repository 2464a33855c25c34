"""Settings of `xai-brain predict`: new participants' data, and a trained run or a file of weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xai_brain.config.compose import ConfigError, check, compose
from xai_brain.data.preprocessing import read_preparation
from xai_brain.models.networks.kan2020 import is_published
from xai_brain.models.weights import read_weights_file
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.study.explanation.configured_methods import check_references
from xai_brain.study.training.networks import ALL, is_checkpoint, trained_run

FREE = ("run_dir", "name", "networks", "overwrite", "data", "explain", "attribution", "evaluation")
LABELS = ("label", "class_names", "threshold", "bins")  # as at training unless they are given
RAW = ("raw", "skull_stripped", "alignment")  # how new images are brought to MNI152
PUBLISHED_INPUT = ("kan2020_58x70x58", "none")  # grid and scaling
PUBLISHED_CLASSES = ["female", "male"]


def predict_settings(overrides: list[str]) -> DictConfig:
    """Settings of the trained networks with the new participants' data.

    Parameters
    ----------
    overrides : list of str
        ``networks=<run>`` or ``model.weights=<file>``, ``data=...``, ``data.root=...``, ``run_dir=...``.
        Preparation and network are those of training; ``preprocessing.raw=true`` (or ``preprocessing=raw``)
        extracts and aligns the new images first, whatever was needed for the images of training.

    Raises
    ------
    ConfigError
        Neither ``networks`` nor ``model.weights`` is given, or a setting belongs to training.
    """
    composed = compose("predict", overrides, checked=False)
    given = [override.lstrip("+~").split("=")[0].split("@")[0] for override in overrides]
    weights = OmegaConf.select(composed, "model.weights")
    if bool(composed.networks) == bool(weights):
        raise ConfigError(
            "one of networks and model.weights is needed: networks=outputs/demo, the folder of a trained "
            "run, or model.weights=best_model_all, a file of weights"
        )
    cfg = _of_weights(overrides, given) if weights else _of_run(composed, given, overrides)
    for key in ("explain", "evaluation", "attribution"):
        if any(name.split(".")[0] == key for name in given):
            cfg[key] = composed[key]
    fill = "attribution.MeaningfulPerturbation.fill"
    if weights and "MeaningfulPerturbation" in cfg.attribution and fill not in given:
        OmegaConf.update(cfg, fill, "blur")  # the default is made of images of training, which are not known
    cfg.name, cfg.run_dir, cfg.overwrite = composed.name, composed.run_dir, composed.overwrite
    cfg.seeds = [ALL[0]]
    check(cfg)
    check_references(cfg)
    return cfg


def _of_run(composed: DictConfig, given: list[str], overrides: list[str]) -> DictConfig:
    """Settings of a trained run with other data."""
    _refuse_training_settings([key for key in given if not _is_raw(key, overrides)])
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
    _take_raw(cfg, composed, given, str(composed.networks))
    cfg.networks = composed.networks
    return cfg


def _of_weights(overrides: list[str], given: list[str]) -> DictConfig:
    """Settings of the network that a file of weights belongs to."""
    composed = compose("predict", overrides, checked=False)
    path = Path(composed.model.weights).expanduser()
    training = [key for key in given if key.split(".")[0] not in ("model", "preprocessing")]
    _refuse_training_settings(training)
    if is_checkpoint(path):  # of this project: it holds all that it needs
        saved = read_weights_file(path)["hyper_parameters"]
        return _of_checkpoint(composed, given, overrides, path, saved)
    if is_published(path) and str(composed.model.get("_target_", "")).endswith(".Kan2020"):
        if "preprocessing" not in given:
            composed = compose("predict", ["preprocessing=kan2020", *overrides], checked=False)
        if (composed.preprocessing.grid, composed.preprocessing.scaling) != PUBLISHED_INPUT:
            raise ConfigError(
                f"preprocessing: {path} was trained on intensities (scaling=none) of the grid "
                f"{PUBLISHED_INPUT[0]}; leave the setting out, or use preprocessing=kan2020"
            )
        if composed.data.class_names is None:
            composed.data.class_names = PUBLISHED_CLASSES
    elif "preprocessing" not in given:
        raise ConfigError(
            f"model.weights={path}: the file does not say how the images of training were prepared; "
            "give preprocessing=... as at training"
        )
    if composed.data.class_names is None:
        raise ConfigError(
            f"model.weights={path}: the file does not name its classes; give data.class_names=[...] in the "
            "order of the outputs of the network"
        )
    composed.networks, composed.model.weights = str(path), None
    return composed


def _of_checkpoint(
    composed: DictConfig, given: list[str], overrides: list[str], path: Path, saved: dict[str, Any]
) -> DictConfig:
    """Settings that a checkpoint of this project keeps."""
    other = [key for key in given if key.startswith(("model", "preprocessing")) and key != "model.weights"]
    _refuse_training_settings([key for key in other if not _is_raw(key, overrides)])
    if "data.class_names" in given and list(composed.data.class_names) != saved["output_names"]:
        raise ConfigError(
            f"data.class_names={list(composed.data.class_names)}: those of {path} are {saved['output_names']}"
        )
    cfg = composed.copy()
    cfg.data.class_names, cfg.networks = saved["output_names"], str(path)
    OmegaConf.update(cfg, "model", saved["network"], merge=False, force_add=True)
    if not saved["preprocessing"]:
        raise ConfigError(f"model.weights={path}: does not say how the images of training were prepared")
    OmegaConf.update(cfg, "preprocessing", asdict(read_preparation(saved["preprocessing"])), merge=True)
    _take_raw(cfg, composed, given, str(path))
    return cfg


def _refuse_training_settings(given: list[str]) -> None:
    for key in given:
        if key.split(".")[0] not in FREE:
            raise ConfigError(f"{key} cannot be changed by `xai-brain predict`: it belongs to training")


def _is_raw(key: str, overrides: list[str]) -> bool:
    """Whether a setting says how new images are brought to MNI152; the group ``raw`` says only this."""
    if key == "preprocessing":
        return "preprocessing=raw" in overrides
    return key in [f"preprocessing.{name}" for name in RAW]


def _take_raw(cfg: DictConfig, composed: DictConfig, given: list[str], networks: str) -> None:
    """Take from the settings given now how new images are brought to MNI152."""
    aligned_at_training = cfg.preprocessing.raw and cfg.preprocessing.alignment
    for name in RAW:
        if f"preprocessing.{name}" in given or (name == "raw" and "preprocessing" in given):
            cfg.preprocessing[name] = composed.preprocessing[name]
    if aligned_at_training and cfg.preprocessing.alignment != aligned_at_training:
        raise ConfigError(
            f"preprocessing.alignment={cfg.preprocessing.alignment}: the images of training of {networks} "
            f"were aligned with {aligned_at_training}"
        )


def trained_class_names(trained: RunDirectory) -> list[str]:
    """In the order of the network's outputs."""
    columns = read_tsv(trained.predictions).columns
    return [column.removeprefix("prob_") for column in columns if column.startswith("prob_")]

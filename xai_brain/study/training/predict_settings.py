"""Settings of `xai-brain predict`: new participants' data, and a trained run or a file of weights."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from xai_brain.config.checks import check_code, typed
from xai_brain.config.compose import compose
from xai_brain.config.data import read_preprocessing
from xai_brain.config.saved import require_trust
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.models.networks.kan2020 import is_published
from xai_brain.models.weights import read_weights_file
from xai_brain.runs.directory import read_tsv
from xai_brain.study.explanation.configured_methods import check_references
from xai_brain.study.training.networks import ALL, is_checkpoint, trained_run
from xai_brain.task.build import build_task

FREE = (
    *("run_dir", "name", "networks", "overwrite", "trusted_modules", "adapt"),
    *("data", "explain", "attribution", "evaluation", "report"),
)
LABELS = ("label", "class_names", "threshold", "bins")  # those of training unless given
RAW = ("raw", "skull_stripped", "alignment")  # alignment of new images to MNI152
PUBLISHED_INPUT = ("kan2020_58x70x58", "none")  # grid and scaling
PUBLISHED_CLASSES = ["female", "male"]


def predict_settings(overrides: list[str]) -> Config:
    """Settings of the trained networks with the new participants' data.

    Parameters
    ----------
    overrides : list of str
        ``networks=<run>`` or ``model.weights=<file>``, ``data=...``, ``data.root=...``, ``run_dir=...``.
        Preparation and network are those of training; ``preprocessing.raw=true`` (or ``preprocessing=raw``)
        extracts and aligns the new images first, independent of the preprocessing of the training images.

    Raises
    ------
    ConfigError
        Neither ``networks`` nor ``model.weights`` is given, or a setting belongs to training.
    """
    given = [override.lstrip("+~").split("=")[0].split("@")[0] for override in overrides]
    composed = typed(compose("predict", overrides, checked=False))
    weights = composed.model.get("weights")
    if bool(composed.networks) == bool(weights):
        raise ConfigError(
            "one of networks and model.weights is needed: networks=outputs/demo, the folder of a trained "
            "run, or model.weights=best_model_all, a file of weights"
        )
    config = (
        _settings_of_weights(overrides, given) if weights else _settings_of_run(composed, given, overrides)
    )
    changed = {name.split(".")[0] for name in given}
    for key in {"explain", "evaluation", "attribution", "report"} & changed:
        setattr(config, key, getattr(composed, key))
    method = config.attribution.get("MeaningfulPerturbation")
    if weights and method and "attribution.MeaningfulPerturbation.fill" not in given:
        method["fill"] = "blur"  # the default needs training images, which are not known
    config.name, config.run_dir, config.overwrite = composed.name, composed.run_dir, composed.overwrite
    config.seeds, config.adapt = [ALL[0]], composed.adapt
    check_code(config)
    check_references(config)
    return config


def _settings_of_run(composed: Config, given: list[str], overrides: list[str]) -> Config:
    """Settings of a trained run with other data."""
    _refuse_training_settings([key for key in given if not _is_alignment_setting(key, overrides)])
    config, trained = trained_run(composed)
    require_trust(trained.path, config.trusted_modules, composed.trusted_modules)
    config.trusted_modules = composed.trusted_modules
    if config.planted.kind:
        raise ConfigError(
            f"networks={composed.networks}: its classes were planted and do not apply to other participants"
        )
    before, config.data = config.data, composed.data
    for key in LABELS:
        if f"data.{key}" not in given:
            setattr(config.data, key, getattr(before, key))
    if config.data.brain_size_column and "data.brain_size_column" not in given:
        config.data.brain_size_column = None  # needs folds
    if (task := build_task(config.task)).has_classes:
        config.data.class_names = task.names_in(read_tsv(trained.predictions).columns)
    _copy_alignment_settings(config, composed, given, str(composed.networks))
    config.networks = composed.networks
    return config


def _settings_of_weights(overrides: list[str], given: list[str]) -> Config:
    """Settings of the network that a file of weights belongs to."""
    composed = typed(compose("predict", overrides, checked=False))
    path = Path(composed.model["weights"]).expanduser()
    training = [key for key in given if key.split(".")[0] not in ("model", "preprocessing")]
    _refuse_training_settings(training)
    if is_checkpoint(path):  # a checkpoint of this project contains all settings
        saved = read_weights_file(path)["hyper_parameters"]
        return _settings_of_checkpoint(composed, given, overrides, path, saved)
    if is_published(path) and str(composed.model.get("_target_", "")).endswith(".Kan2020"):
        if "preprocessing" not in given:
            composed = typed(compose("predict", ["preprocessing=kan2020", *overrides], checked=False))
        if (composed.preprocessing.grid, composed.preprocessing.scaling) != PUBLISHED_INPUT:
            raise ConfigError(
                f"preprocessing: {path} was trained on intensities (scaling=none) of the grid "
                f"{PUBLISHED_INPUT[0]}; leave the setting out, or use preprocessing=kan2020"
            )
        if composed.data.class_names is None:
            composed.data.class_names = PUBLISHED_CLASSES
    elif "preprocessing" not in given:
        raise ConfigError(
            f"model.weights={path}: the file does not state how the training images were prepared; "
            "give preprocessing=... as at training"
        )
    if not build_task(composed.task).has_classes:
        target = composed.task["_target_"]
        raise ConfigError(f"model.weights={path}: task._target_={target} needs a checkpoint of xai_brain")
    if composed.data.class_names is None:
        raise ConfigError(
            f"model.weights={path}: the file does not name its classes; give data.class_names=[...] in the "
            "order of the outputs of the network"
        )
    composed.networks = str(path)
    composed.model["weights"] = None
    return composed


def _settings_of_checkpoint(
    composed: Config, given: list[str], overrides: list[str], path: Path, saved: dict[str, Any]
) -> Config:
    """Settings that are stored in a checkpoint of this project."""
    other = [key for key in given if key.startswith(("model", "preprocessing")) and key != "model.weights"]
    _refuse_training_settings([key for key in other if not _is_alignment_setting(key, overrides)])
    if "data.class_names" in given and composed.data.class_names != saved["output_names"]:
        raise ConfigError(
            f"data.class_names={composed.data.class_names}: those of {path} are {saved['output_names']}"
        )
    if not saved["preprocessing"]:
        raise ConfigError(f"model.weights={path}: does not state how the training images were prepared")
    config = deepcopy(composed)
    config.networks, config.model, config.task = str(path), saved["network"], saved["task"]
    if build_task(config.task).has_classes:
        config.data.class_names = saved["output_names"]
    config.preprocessing = read_preprocessing(saved["preprocessing"])
    _copy_alignment_settings(config, composed, given, str(path))
    return config


def _refuse_training_settings(given: list[str]) -> None:
    for key in given:
        if key.split(".")[0] not in FREE:
            raise ConfigError(f"{key} cannot be changed by `xai-brain predict`: it belongs to training")


def _is_alignment_setting(key: str, overrides: list[str]) -> bool:
    """Whether a setting determines how new images are aligned to MNI152, as the group ``raw`` does."""
    if key == "preprocessing":
        return "preprocessing=raw" in overrides
    return key in [f"preprocessing.{name}" for name in RAW]


def _copy_alignment_settings(config: Config, composed: Config, given: list[str], networks: str) -> None:
    """Copy the given settings for the alignment of new images to MNI152."""
    aligned_at_training = config.preprocessing.raw and config.preprocessing.alignment
    for name in RAW:
        if f"preprocessing.{name}" in given or (name == "raw" and "preprocessing" in given):
            setattr(config.preprocessing, name, getattr(composed.preprocessing, name))
    if aligned_at_training and config.preprocessing.alignment != aligned_at_training:
        raise ConfigError(
            f"preprocessing.alignment={config.preprocessing.alignment}: the training images of {networks} "
            f"were aligned with {aligned_at_training}"
        )

"""From composed or stored settings to checked dataclasses.

The dataclasses check their own values; here follows what concerns several of them: missing values, names,
and which code the settings may run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xai_brain.config.benchmarks.detection import DetectionConfig
from xai_brain.config.benchmarks.regional import RegionalConfig
from xai_brain.config.data import (
    DataConfig,
    FoldsConfig,
    ImageDataConfig,
    OasisDataConfig,
    PreprocessingConfig,
    SyntheticDataConfig,
)
from xai_brain.config.evaluation import EvaluationConfig
from xai_brain.config.planted_effect import PlantedEffect
from xai_brain.config.schema import Config, ExplainConfig, ReportConfig
from xai_brain.config.setting import ConfigError
from xai_brain.config.training import AugmentationConfig, HarmonizationConfig, TrainerConfig, read_baseline
from xai_brain.config.trust import KINDS, KNOWN_PACKAGES, import_trusted, is_known_kind

TASKS = "xai_brain.task.build"  # belongs to a higher layer, so it is named like a _target_
DATA_SCHEMAS: dict[str, type[DataConfig]] = {
    "synthetic": SyntheticDataConfig,
    "hcp": ImageDataConfig,
    "ixi": ImageDataConfig,
    "oasis": OasisDataConfig,
}
SECTIONS: dict[str, type] = {
    "preprocessing": PreprocessingConfig,
    "planted": PlantedEffect,
    "folds": FoldsConfig,
    "augmentation": AugmentationConfig,
    "trainer": TrainerConfig,
    "explain": ExplainConfig,
    "evaluation": EvaluationConfig,
    "harmonization": HarmonizationConfig,
    "report": ReportConfig,
    "regional": RegionalConfig,
    "detection": DetectionConfig,
}


def read_config(cfg: DictConfig | Config) -> Config:
    """Complete and checked settings.

    Parameters
    ----------
    cfg : omegaconf.DictConfig or Config
        From `xai_brain.compose`; settings that are checked already are returned as they are.

    Raises
    ------
    ConfigError
        One line: a value is missing, not valid or contradicts another, or code that is not trusted would run.
    """
    if isinstance(cfg, Config):
        return cfg
    config = typed(cfg)
    check_code(config)
    return config


def typed(cfg: DictConfig) -> Config:
    """Settings whose values are checked; they may still name code that is not trusted.

    Raises
    ------
    ConfigError
    """
    if missing := sorted(str(key) for key in OmegaConf.missing_keys(cfg)):
        hint = " (choose one with data=synthetic or data=bids data.root=...)" if "data" in missing[0] else ""
        raise ConfigError(f"no value for {', '.join(missing)}{hint}")
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    return config


def structured(settings: Mapping[str, Any]) -> DictConfig:
    """Stored settings with the types of the schema; what is absent has its default.

    Raises
    ------
    ConfigError
        A setting that this version does not know.
    omegaconf.errors.OmegaConfBaseException
        A value of a wrong type.
    """
    known = {each.name for each in fields(Config)}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"{unknown[0]}: not a setting of this version of xai_brain")
    layout = str((settings.get("data") or {}).get("layout"))
    nodes = {name: OmegaConf.structured(schema) for name, schema in SECTIONS.items()}
    nodes["data"] = OmegaConf.structured(DATA_SCHEMAS.get(layout, DataConfig))
    for name, node in nodes.items():
        own = settings.get(name) or {}
        if unknown := sorted(str(key) for key in set(own) - set(node)):
            raise ConfigError(f"{name}.{unknown[0]}: not a setting of this version of xai_brain")
    cfg = OmegaConf.merge(OmegaConf.structured(Config), nodes, dict(settings))
    assert isinstance(cfg, DictConfig)
    return cfg


def editable(config: Config) -> DictConfig:
    """The same settings as an OmegaConf object, whose values can be changed by their dotted names."""
    return structured(asdict(config))


def check_code(config: Config) -> None:
    """Refuse names that are not valid and code that is not trusted; trusted modules are imported.

    Raises
    ------
    ConfigError
    """
    for name, settings in config.baselines.items():
        read_baseline(str(name), settings)
    if unfit := [name for name in config.attribution if not re.fullmatch("[0-9A-Za-z]+", str(name))]:
        raise ConfigError(f"attribution.{unfit[0]}: a name can hold letters and digits only, as in BIDS")
    if unfit := [name for name in config.baselines if not re.fullmatch(r"\w+", str(name), re.ASCII)]:
        raise ConfigError(f"baselines.{unfit[0]}: a name can hold letters, digits and _ only")
    import_trusted(config.trusted_modules)
    _check_targets(asdict(config), config.trusted_modules)
    _check_task(config)


def _check_task(config: Config) -> None:
    try:
        task = import_module(TASKS).build_task(config.task)
    except (ValueError, ImportError) as error:
        raise ConfigError(str(error)) from error
    if config.explain.output not in (None, *task.outputs):
        raise ConfigError(
            f"explain.output={config.explain.output}: one of {', '.join(task.outputs)} is needed"
        )
    if task.has_classes:
        return
    need_classes = {
        "planted.kind": config.planted.kind,
        "baselines": [] if task.reported_as else list(config.baselines),
        "data.brain_size_column": None if task.reported_as else config.data.brain_size_column,
        "data.threshold": config.data.threshold,
        "data.bins": config.data.bins,
        "evaluation.masks.in_run": config.evaluation.masks.in_run,
        "evaluation.first_layer": config.evaluation.first_layer,
        "evaluation.card.metrics": config.evaluation.card.metrics,
    }
    if config.data.layout != "synthetic":  # whose file of settings contains them
        need_classes["data.class_names"] = config.data.class_names
    for key, value in need_classes.items():
        if value:
            raise ConfigError(f"{key}={value}: needs classes; leave it out, or use task=classification")


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

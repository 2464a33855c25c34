"""The settings file of a run: reading it, and whether it was altered."""

from __future__ import annotations

from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from xai_brain.config.compose import (
    AugmentationConfig,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    ExplainConfig,
    FoldsConfig,
    TrainerConfig,
)
from xai_brain.config.planted_effect import PlantedEffect
from xai_brain.data.preprocessing import read_preparation
from xai_brain.task.build import DEFAULT_TASK

HASH_LINE = "# sha256 of the lines below: "


def saved_settings(path: Path) -> dict[str, Any]:
    """Settings that a run keeps; those that came later have their defaults.

    Raises
    ------
    ConfigError
        A setting of the preparation that this version does not know.
    """
    saved = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(saved, dict)
    saved.setdefault("task", {"_target_": DEFAULT_TASK})
    saved.setdefault("networks", None)
    saved.setdefault("shard", None)
    saved.setdefault("imported_methods", [])
    saved.setdefault("baselines", {})
    saved.setdefault("morphometry", None)
    later = {
        "data": DataConfig,
        "planted": PlantedEffect,
        "folds": FoldsConfig,
        "augmentation": AugmentationConfig,
        "trainer": TrainerConfig,
        "explain": ExplainConfig,
        "evaluation": EvaluationConfig,
    }
    for group, schema in later.items():
        saved[group] = {**asdict(schema()), **saved.get(group, {})}
    if not saved["augmentation"].get("max_shift_voxels"):  # became max_shift_mm
        saved["augmentation"].pop("max_shift_voxels", None)
    try:
        saved["preprocessing"] = asdict(read_preparation(saved["preprocessing"]))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; use another run_dir") from error
    return {str(key): value for key, value in saved.items()}


def with_hash(settings: str) -> str:
    """The text of config.yaml: its first line contains the hash of the others."""
    return f"{HASH_LINE}{sha256(settings.encode()).hexdigest()}\n{settings}"


def is_unaltered(text: str) -> bool | None:
    """Whether config.yaml is as it was written; None for a file without a hash."""
    first, _, settings = text.partition("\n")
    return with_hash(settings) == text if first.startswith(HASH_LINE) else None

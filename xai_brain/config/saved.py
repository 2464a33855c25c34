"""The settings file of a run: reading and writing it, and whether it was altered."""

from __future__ import annotations

from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xai_brain.config.checks import structured, typed
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError

HASH_LINE = "# sha256 of the lines below: "
OF_ONE_START = ("run_dir", "overwrite", "shard")  # a run directory does not contain its place
# Settings that trained networks depend on, and those that maps depend on.
TRAINING = ("seeds", "data", "preprocessing", "planted", "folds", "augmentation", "model", "trainer")
EXPLAINING = ("explain.target", "explain.output", "explain.n_reference_volumes")
# Settings that a stage may change.
AFTER_TRAINING = ("explain", "attribution", "baselines", "morphometry", "evaluation", "trusted_modules")
# Settings that do not change results, or whose content is compared instead.
INDIFFERENT = (
    "shard",
    "networks",  # checked by the content of the checkpoints
    "data.root",  # checked by content: the cohort may move
    "data.tables",
    "data.url",
    "data.cache_dir",
    "data.on_error",
    "data.num_workers",
    "data.brain_size_column",
    "trainer.num_workers",
    "trainer.accelerator",
    "trainer.strategy",
)


def saved_settings(path: Path) -> Config:
    """Settings that a run keeps, with the folder of the file as run_dir; no code that they name is run.

    Raises
    ------
    ConfigError
        A setting that this version does not know, or a value that is not valid.
    """
    settings = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: contains no settings; use another run_dir")
    named = {str(key): value for key, value in settings.items()}
    try:
        return typed(structured({**named, "run_dir": str(path.parent)}))
    except (ConfigError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}; use another run_dir") from error


def is_run(path: Path) -> bool:
    """Whether a file contains settings of a run."""
    content = OmegaConf.load(path)
    return isinstance(content, DictConfig) and {"seeds", "folds", "attribution"} <= set(content)


def settings_to_save(config: Config) -> dict[str, Any]:
    """Settings as config.yaml contains them."""
    return {key: value for key, value in asdict(config).items() if key not in OF_ONE_START}


def settings_text(settings: dict[str, Any]) -> str:
    """Text of config.yaml."""
    return with_hash(OmegaConf.to_yaml(OmegaConf.create(settings)))


def with_hash(settings: str) -> str:
    """The text of config.yaml: its first line contains the hash of the others."""
    return f"{HASH_LINE}{sha256(settings.encode()).hexdigest()}\n{settings}"


def is_unaltered(text: str) -> bool | None:
    """Whether config.yaml is as it was written; None for a file without a hash."""
    first, _, settings = text.partition("\n")
    return with_hash(settings) == text if first.startswith(HASH_LINE) else None

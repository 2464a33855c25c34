"""Settings of an existing run: the file, whether it was altered, and changes by a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from xai_brain.config.checks import check_code, editable, structured, typed
from xai_brain.config.compose import compose
from xai_brain.config.inputs import check_paths, require_run
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.text_tables import read_text

HASH_LINE = "# sha256 of the lines below: "
OF_ONE_START = ("run_dir", "overwrite", "shard")  # a run directory does not contain its place
# Settings that trained networks depend on, and those that maps depend on.
TRAINING = ("seeds", "task", "data", "preprocessing", "planted", "folds", "augmentation", "model", "trainer")
EXPLAINING = ("explain.target", "explain.output", "explain.n_reference_volumes")
# Settings that a stage may change.
AFTER_TRAINING = (
    *("explain", "attribution", "baselines", "harmonization", "morphometry", "evaluation", "report"),
    "trusted_modules",
)
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
    settings = OmegaConf.to_container(OmegaConf.create(read_text(path)))
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: contains no settings; use another run_dir")
    named = {str(key): value for key, value in settings.items()}
    try:
        return typed(structured({**named, "run_dir": str(path.parent)}))
    except (ConfigError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}; use another run_dir") from error


def is_run(path: Path) -> bool:
    """Whether a file contains settings of a run."""
    content = OmegaConf.create(read_text(path))
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


def open_settings(run_dir: str | Path, trusted_modules: Sequence[str] = ()) -> Config:
    """Settings of an existing run.

    Parameters
    ----------
    run_dir : str or Path
    trusted_modules : sequence of str, optional
        Packages whose code may run, beside those that are always trusted.

    Raises
    ------
    ConfigError
        The folder contains no run, or the run uses code of a package that is not trusted.
    """
    config = _read(Path(run_dir))
    require_trust(Path(run_dir), config.trusted_modules, trusted_modules)
    config.trusted_modules = sorted({*config.trusted_modules, *trusted_modules})
    check_code(config)
    return config


def stage_settings(command: str, overrides: list[str]) -> Config:
    """Settings of a command on an existing run.

    ``xai-brain explain run_dir=outputs/demo attribution=[grad_cam]`` takes everything from
    outputs/demo/config.yaml and adds a method.

    Parameters
    ----------
    command : str
    overrides : list of str
        As on the command line.

    Raises
    ------
    ConfigError
        The run directory contains no run, a setting belongs to training, or names a file that does not exist.
    """
    config = merged_settings(command, overrides)
    check_code(config)
    return config


def merged_settings(command: str, overrides: list[str]) -> Config:
    """`stage_settings` without the check of the code that they name, which imports it."""
    removed = [text.removeprefix("~attribution.") for text in overrides if text.startswith("~attribution.")]
    overrides = [text for text in overrides if not text.startswith("~attribution.")]
    given = [override.lstrip("+~").split("=")[0].split("@")[0] for override in overrides]
    # values are read from here, the rest from the run; some cohort must be there for data.* to be settings
    cohort = [] if {"data", "experiment"} & set(given) else ["data=synthetic"]
    composed = compose(command, [*cohort, *overrides], checked=False)
    check_paths(composed, given)
    run_dir = Path(composed.run_dir)
    cfg = editable(_read(run_dir))
    saved_trust = list(cfg.trusted_modules)
    for key in given:
        if key in ("run_dir", "name", "experiment"):  # they say which run is meant
            continue
        if key == "baselines":  # added like methods
            cfg.baselines = {**composed.baselines, **cfg.baselines}
        elif key == "attribution":  # chosen methods are added; those that are there keep their settings
            cfg.attribution = {**cfg.attribution, **composed.attribution, **cfg.attribution}
        elif key.split(".")[0] in AFTER_TRAINING or key in INDIFFERENT:
            OmegaConf.update(cfg, key, OmegaConf.select(composed, key), merge=True, force_add=True)
        elif key != "overwrite":
            raise ConfigError(f"{key} cannot be changed by `xai-brain {command}`: it belongs to training")
    for label in removed:
        _remove_method(cfg, run_dir, label)
    cfg.run_dir, cfg.overwrite = composed.run_dir, composed.overwrite
    require_trust(run_dir, saved_trust, composed.trusted_modules)
    return typed(cfg)


def _read(run_dir: Path) -> Config:
    require_run(run_dir)
    return saved_settings(run_dir / "config.yaml")


def require_trust(run_dir: Path, saved: Sequence[str], given: Sequence[str]) -> None:
    """A run may come from anywhere: what it trusts must be trusted by the user, too."""
    if unknown := sorted(set(saved) - set(given)):
        raise ConfigError(
            f"{run_dir / 'config.yaml'}: runs code of {', '.join(unknown)}; if you trust it, add "
            f"trusted_modules=[{','.join(saved)}]"
        )


def _remove_method(cfg: DictConfig, run_dir: Path, label: str) -> None:
    """For ``~attribution.<label>``."""
    saved, maps = run_dir / "config.yaml", run_dir / "attributions"
    if label not in cfg.attribution:
        methods = ", ".join(cfg.attribution)
        raise ConfigError(f"~attribution.{label}: {saved} has no such method; its methods are {methods}")
    if any(maps.rglob(f"*_desc-{label}_attribution.json")):
        raise ConfigError(
            f"~attribution.{label}: {maps} contains maps of {label}; remove the "
            f"files *_desc-{label}_attribution.* first"
        )
    with open_dict(cfg):
        del cfg.attribution[label]

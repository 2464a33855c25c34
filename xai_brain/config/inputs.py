"""Folders and files that settings name: a missing one is reported before heavy imports. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xai_brain.config.setting import ConfigError
from xai_brain.io.paths import IMAGES, TABLES, WEIGHTS, why_no_file

PLAN, RECORD = "sweep.json", "job.json"  # files of a sweep and of each of its jobs
RESULTS = ("run_dir", "data.cache_dir")  # folders that are created


def require_run(run_dir: Path) -> None:
    """Raise an error for a folder without a run.

    Raises
    ------
    ConfigError
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        raise ConfigError(f"{path}: there is no run; start with `xai-brain train` or `xai-brain run`")


def require_sweep(folder: Path) -> None:
    """Raise an error for a folder without a sweep.

    Raises
    ------
    ConfigError
    """
    if not (folder / PLAN).exists() and not any(folder.glob(f"*/{RECORD}")):
        raise ConfigError(f"{folder}: there is no sweep; the folder of its jobs is needed, as outputs/<name>")


def require_folder(setting: str, value: str) -> None:
    """Raise an error for a setting that names no folder.

    Raises
    ------
    ConfigError
    """
    path = Path(value).expanduser()
    if path.is_file():
        raise ConfigError(f"{setting}={value}: is a file; a folder is needed")
    if not path.is_dir():
        raise ConfigError(f"{setting}={value}: there is no such folder")


def check_paths(cfg: DictConfig, only: Collection[str] | None = None) -> None:
    """Raise an error for the first setting that names a folder or file that does not exist.

    Parameters
    ----------
    cfg : omegaconf.DictConfig
        Composed settings, which need not be complete.
    only : collection of str, optional
        Dotted names of the settings that are checked; default: all.

    Raises
    ------
    ConfigError
    """
    for name, value in named_paths(cfg):
        if only is None or name in only:
            _check_path(cfg, name, value)


def named_paths(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    """Dotted names and values of all settings that are paths of inputs."""
    from xai_brain.config.overrides import UNTYPED, UNTYPED_PATHS, text_settings

    for name, text in text_settings().items():
        if not text.is_path or name in RESULTS or OmegaConf.is_missing(cfg, name.partition(".")[0]):
            continue
        value = OmegaConf.select(cfg, name, default=None)
        for each in value if text.is_list and value else [value]:
            if each:
                yield name, str(each)
    for section in UNTYPED:
        if not OmegaConf.is_missing(cfg, section):
            yield from _untyped_paths(OmegaConf.to_container(cfg[section]), section, UNTYPED_PATHS)


def _untyped_paths(node: Any, prefix: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if key in names and isinstance(value, str):
            yield f"{prefix}.{key}", value
        yield from _untyped_paths(value, f"{prefix}.{key}", names)


def _check_path(cfg: DictConfig, name: str, value: str) -> None:
    path = Path(value).expanduser()
    leaf = name.rpartition(".")[2]
    if name == "data.root":
        if cfg.data.layout != "oasis":  # its folder is created by the download
            require_folder(name, value)
    elif name == "data.tables":
        _check_table(cfg, value)
    elif name == "networks":
        if not path.is_file():  # of weights
            require_networks(value)
    elif name == "evaluation.calibration":
        require_report_card(value)
    elif leaf in ("atlas", "labels_img"):
        _check_atlas(name, value)
    elif not path.is_file():
        raise ConfigError(f"{name}={value}: {why_no_file(path, _endings(leaf))}")


def _endings(leaf: str) -> tuple[str, ...]:
    """Endings of the files that a setting can name, by the last part of its name."""
    if leaf == "weights":
        return WEIGHTS
    return IMAGES if leaf == "mask_img" else TABLES


def _check_table(cfg: DictConfig, value: str) -> None:
    from xai_brain.io.tables import table_paths

    root = Path(cfg.data.root or "").expanduser()
    (path,) = table_paths(root, [value])
    for folder in (path, Path(value).expanduser()):
        if folder.is_dir():
            raise ConfigError(f"data.tables={value}: {why_no_file(folder, TABLES)}")
    if not path.is_file():
        raise ConfigError(f"data.tables={value}: there is no such file, neither in data.root={root} nor here")


def require_networks(value: str) -> None:
    """Raise an error if `networks` names no folder of a run.

    Raises
    ------
    ConfigError
    """
    path = Path(value).expanduser() / "config.yaml"
    if not path.exists():
        raise ConfigError(f"networks={value}: {path} does not exist; name the folder of a run")


def require_report_card(value: str) -> None:
    """Raise an error if `evaluation.calibration` names no run with a report card.

    Raises
    ------
    ConfigError
    """
    path = Path(value).expanduser()
    if not (path / "config.yaml").exists() or not (path / "evaluation" / "report_card.tsv").exists():
        raise ConfigError(
            f"evaluation.calibration={value}: has no report card; make one with "
            "xai-brain run experiment=report_card"
        )


def _check_atlas(name: str, value: str) -> None:
    path = Path(value).expanduser()
    if path.is_file():
        return
    from xai_brain.atlas.atlas import FETCHERS

    if value in FETCHERS:
        return
    if path.is_dir():
        raise ConfigError(f"{name}={value}: {why_no_file(path, IMAGES)}")
    raise ConfigError(
        f"{name}={value}: there is no such file; atlases that can be downloaded are {', '.join(FETCHERS)}"
    )

"""How settings are composed, and what is said of those that cannot be.

Files of `conf/` give the values; the dataclasses of `schema` give types and limits, so that a misspelt key
or a wrong value stops before any work. ``compose("run", ["experiment=demo"])`` is what
notebooks and tests use, and what the command line does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from xai_brain.config.checks import DATA_SCHEMAS, SECTIONS, read_config
from xai_brain.config.data import (
    DataConfig,
    ImageDataConfig,
    OasisDataConfig,
    SyntheticDataConfig,
)
from xai_brain.config.overrides import finish, literal
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.extras import install_command

COMMANDS = ("train", "baselines", "predict", "explain", "evaluate", "validate", "threshold", "report", "run")
# names that other software gives to settings
SYNONYMS = {
    **dict.fromkeys(("learning_rate", "rate"), "trainer.lr"),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "max_epoch"), "trainer.max_epochs"),
    **dict.fromkeys(("n_splits", "k", "cv", "num_folds", "k_folds"), "folds.n_folds"),
    **dict.fromkeys(("bs", "batchsize"), "trainer.batch_size"),
    **dict.fromkeys(("gpus", "n_gpus", "num_gpus", "device"), "trainer.devices"),
    **dict.fromkeys(("early_stopping", "early_stopping_patience"), "trainer.patience"),
    **dict.fromkeys(("bids_dir", "data_dir", "dataset", "input", "input_dir", "path"), "data.root"),
    **dict.fromkeys(("participants", "participants_tsv", "csv", "tsv"), "data.tables"),
    **dict.fromkeys(("output_dir", "out_dir", "outdir", "results_dir"), "run_dir"),
    **dict.fromkeys(("random_seed", "seed", "rng"), "seeds"),
    **dict.fromkeys(("method", "methods", "explainers", "attributions"), "attribution"),
    **dict.fromkeys(("network", "architecture", "arch", "backbone"), "model"),
    **dict.fromkeys(("covariates", "nuisance"), "evaluation.group.confounds"),
    **dict.fromkeys(("n_permutations", "permutations"), "evaluation.group.n_perm"),
    **dict.fromkeys(("icv", "tiv", "etiv"), "data.brain_size_column"),
    **dict.fromkeys(("n_jobs", "workers"), "data.num_workers"),
    **dict.fromkeys(("class", "classes"), "data.class_names"),
    **dict.fromkeys(("parcellation",), "evaluation.atlas"),
}
SEVERAL = ("attribution", "baselines")  # groups of which several files are chosen
SHARDED = ("explain", "evaluate", "validate", "run")  # commands of which a shard can be asked


def conf_dir() -> Path:
    """Folder of the configuration files: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def register_schemas() -> None:
    """Register the dataclasses of all settings with Hydra; calling it again changes nothing."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="data", name="schema", node=DataConfig)
    store.store(group="data", name="schema_synthetic", node=SyntheticDataConfig)
    store.store(group="data", name="schema_image", node=ImageDataConfig)
    store.store(group="data", name="schema_oasis", node=OasisDataConfig)
    for group, node in SECTIONS.items():
        store.store(group=group, name="schema", node=node)


def compose(command: str = "run", overrides: list[str] | None = None, *, checked: bool = True) -> DictConfig:
    """Settings of a command, resolved and checked.

    Parameters
    ----------
    command : str, default "run"
        One of `COMMANDS`.
    overrides : list of str, optional
        As on the command line, e.g. ``["experiment=demo", "trainer.max_epochs=2"]``.
    checked : bool, default True
        Whether the settings must be complete, as they must be to run.

    Returns
    -------
    omegaconf.DictConfig

    Raises
    ------
    ConfigError
        One line that names the key and the nearest valid one.

    Examples
    --------
    >>> compose("run", ["experiment=demo"]).name
    'demo'
    """
    register_schemas()
    GlobalHydra.instance().clear()
    overrides = [literal(override) for override in overrides or []]
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            cfg = hydra_compose(command, overrides)
            complete(cfg, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(format_config_error(error, command, overrides)) from error
    if cfg.shard is not None and command not in SHARDED:
        raise ConfigError(f"shard={cfg.shard}: `xai-brain {command}` has none; for {', '.join(SHARDED)} only")
    if checked:
        read_config(cfg)
    return cfg


def complete(cfg: DictConfig, overrides: list[str]) -> None:
    """Prepare composed settings for use: resolve them, drop unchosen methods, expand paths."""
    OmegaConf.resolve(cfg)
    drop_unchosen_methods(cfg, overrides)
    finish(cfg)


def drop_unchosen_methods(cfg: DictConfig, overrides: list[str]) -> None:
    """Forget what an experiment says of methods that are not chosen; what the user says of them stays."""
    said = " ".join(overrides)
    for label in [label for label, method in cfg.attribution.items() if not method.get("_target_")]:
        if f"attribution.{label}" not in said:
            with open_dict(cfg):
                del cfg.attribution[label]


def format_config_error(error: Exception, command: str, overrides: list[str]) -> str:
    """What a user needs of a Hydra error: the key, what is wrong, the nearest valid key."""
    chain: BaseException | None = error
    texts = []
    while chain is not None:
        texts.append(str(chain))
        chain = chain.__cause__
    text = "\n".join(texts)
    if match := re.search(r"(?:Key '([^']+)' is not in struct|Key '([^']+)' not in '([^']+)')", text):
        full = re.search(r"full_key: (\S+)", text)
        key = full.group(1) if full else (match.group(1) or match.group(2))
        # of trainr.lr=1 Hydra names trainr only
        given = (override.split("=")[0].lstrip("+~") for override in overrides)
        key = next((name for name in given if name.startswith(f"{key}.")), key)
        return _no_setting(key, command)
    if match := re.search(r"Could not append to config. An item is already at '([^']+)'", text):
        return f"+{match.group(1)}: there is such a setting; leave out the +"
    if match := re.search(r"Could not (?:override|append to config).*?'([^']+)'", text):
        return _no_setting(match.group(1), command)
    if match := re.search(r"Could not delete from config.*?'([^']+)'", text):
        return f"~{match.group(1)}: there is no such setting{_nearest(match.group(1), known_keys(command))}"
    if match := re.search(r"Could not find 'hydra/(launcher|sweeper)/([^']+)'", text):
        return f"{match.group(1)} {match.group(2)} is not installed: {install_command('sweeps')}"
    if match := re.search(r"Could not (?:find|load) '([^']+)'", text):
        group, _, choice = match.group(1).rpartition("/")
        return _no_choice(group, choice)
    if match := re.search(r"Ambiguous value for argument '(.*)'", text):
        return f"{match.group(1)}: several values need -m (a sweep); a list is written in brackets, [a,b]"
    if match := re.search(r"full_key: (\S+)", text):
        return f"{match.group(1)}: {texts[-1].splitlines()[0]}"
    return texts[0].splitlines()[0]


def _no_choice(group: str, choice: str) -> str:
    choices = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    plain = {name.replace("_", ""): name for name in choices}
    near = difflib.get_close_matches(choice.lower().replace("_", "").replace("-", ""), plain, n=1, cutoff=0.7)
    hint = f"; did you mean {plain[near[0]]}?" if near else ""
    return f"there is no {group}={choice}; one of {', '.join(choices)}{hint}"


def _no_setting(key: str, command: str) -> str:
    if belongs := _unchosen(key):
        return f"{key}: {belongs}"
    group = key.partition(".")[0]
    known = known_keys(command)
    known += [f"{group}.{name}" for _, keys in _keys_of_files(group) for name in sorted(keys)]
    return f"there is no setting {key!r}{_nearest(key, list(dict.fromkeys(known)))}"


def _unchosen(key: str) -> str:
    """To which choice a setting that was not composed belongs; empty if it belongs to none."""
    group, _, rest = key.partition(".")
    files = [path.stem for path, keys in _keys_of_files(group) if rest in keys] if rest else []
    if not files:
        return ""
    if group in SEVERAL:
        label = rest.partition(".")[0]
        what = "method" if group == "attribution" else "baseline"
        name = min(files, key=len)  # the quick variants have longer names
        return f"it belongs to the {what} {label}, which is not chosen; add {name} to {group}=[...]"
    choices = " or ".join(f"{group}={name}" for name in files)
    return f"it belongs to {choices}, which is not chosen"


def _keys_of_files(group: str) -> Iterator[tuple[Path, set[str]]]:
    """Files of a group of choices, such as ``attribution``, with the names of their settings below it."""
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        keys = set(_dotted(content.get(group, content)))
        if group == "data" and path.stem in DATA_SCHEMAS:
            keys |= set(DATA_SCHEMAS[path.stem].__dataclass_fields__)
        yield path, keys


def _dotted(content: Any, prefix: str = "") -> Iterator[str]:
    for key, value in content.items() if isinstance(content, dict) else ():
        if key != "defaults":
            yield f"{prefix}{key}"
            yield from _dotted(value, f"{prefix}{key}.")


def _nearest(key: str, known: list[str]) -> str:
    leaf = key.lower().replace("-", "_").rpartition(".")[2]
    if (meant := SYNONYMS.get(leaf)) is not None and meant != key:
        return f"; did you mean {meant!r}?"
    # arguments of methods and baselines come last: lr is trainer.lr, not that of a mask
    ordered = sorted(known, key=lambda name: not name.startswith(("attribution.", "baselines.")))
    by_leaf = {name.rpartition(".")[2]: name for name in ordered}
    if leaf in by_leaf:
        return f"; did you mean {by_leaf[leaf]!r}?"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    near = near or [by_leaf[leaf] for leaf in difflib.get_close_matches(key.rpartition(".")[2], by_leaf, n=1)]
    return f"; did you mean {near[0]!r}?" if near else "; see `xai-brain settings` for all settings"


def known_keys(command: str) -> list[str]:
    """Dotted names of all settings."""
    cfg = compose(command, ["data=synthetic"], checked=False)
    groups = [folder.name for folder in conf_dir().iterdir() if folder.is_dir()]

    def walk(node: Any, prefix: str) -> list[str]:
        keys = []
        for key in node:
            name = f"{prefix}{key}"
            keys.append(name)
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                keys += walk(child, f"{name}.")
        return keys

    return [*walk(cfg, ""), *groups]

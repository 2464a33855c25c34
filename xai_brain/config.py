"""Structured configuration: what can be set, of which type, and how it is composed.

Files of `conf/` give the values; the dataclasses here give the types, so that a misspelt key or a
wrong type stops before any work. ``compose("run", ["experiment=demo"])`` is what notebooks and tests
use, and what the command line does.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from xai_brain.planted_effect import PlantedEffect, PlantedError, check_planted
from xai_brain.volumes import GRIDS

COMMANDS = ("train", "baselines", "predict", "explain", "evaluate", "report", "run")

# `_target_` runs code: only these packages may be named, unless `trusted_modules` adds others.
TRUSTED_MODULES = ("xai_brain", "torch", "pytorch_lightning", "captum", "monai", "sklearn", "nilearn")


class ConfigError(ValueError):
    """A setting that does not exist, has the wrong type or contradicts another."""


class OnError(Enum):
    """What to do with an input that cannot be used."""

    raise_ = "raise"
    skip = "skip"


@dataclass
class DataConfig:
    """Where the images and labels are."""

    layout: str = MISSING
    root: str | None = None
    label: str | None = "sex"  # null: none is known, for predict
    class_names: list[str] | None = None  # order = class index; sorted when not given
    threshold: float | None = None  # two classes of a number: up to it, above it
    bins: list[float] | None = None  # classes of a number: upper ends of all but the last
    tables: list[str] | None = None  # of people; relative to root. The second and further add columns
    entities: Any = field(  # which of several T1w, e.g. {desc: brain}; any key can be given
        default_factory=lambda: DictConfig({}, flags={"struct": False})
    )
    space: str | None = None
    brain_size_column: str | None = None
    on_error: str = "raise"
    cache_dir: str | None = None  # default: $XAI_BRAIN_CACHE, else ~/.cache/xai_brain
    num_workers: int | None = None  # processes that prepare images; default: one per core


@dataclass
class SyntheticDataConfig(DataConfig):
    """The embedded cohort: MNI152 anatomy with a planted effect."""

    cohort: dict[str, Any] = field(default_factory=dict)


@dataclass
class ImageDataConfig(DataConfig):
    """A cohort whose images are found by their path."""

    image: str | None = None  # hcp: path below an id; ixi: pattern below root


@dataclass
class OasisDataConfig(DataConfig):
    """OASIS-1 through nilearn's fetcher."""

    n_subjects: int | None = None
    dartel: bool = True
    url: str | None = None  # of a mirror


@dataclass
class PreprocessingConfig:
    """From a T1w image to the volume that a network sees."""

    grid: str = "t1w_58x70x58"
    scaling: str = "zscore"  # zscore | percentile | none
    antialias: bool = True
    brain: str = "image"  # image: its brain mask, or where it is not 0; template: for maps without an edge
    brain_median: float | None = None  # with scaling=none: intensities are scaled to this median
    raw: bool = False  # extract brains, correct bias fields and align to MNI152 where it is needed


@dataclass
class FoldsConfig:
    """Who is tested in which fold, by participant; a part of each training set serves for validation."""

    kind: str = "stratified"  # stratified | hold_out | column
    n_folds: int = 5  # of stratified
    n_repeats: int = 1  # of stratified
    test_fraction: float = 0.2  # of hold_out
    column: str | None = None  # of column: one fold per value, e.g. site
    path: str | None = None  # a folds.tsv to take instead
    only: int | None = None  # one fold of them, the others being another job's
    group_column: str | None = None  # kept together, e.g. family_id
    balance_on: list[str] = field(default_factory=list)  # e.g. [age, icv_ml]
    allow_shared: list[str] = field(default_factory=list)  # e.g. [family_id]: may be on both sides
    validation_fraction: float = 0.15
    random_state: int = 0


@dataclass
class AugmentationConfig:
    """Random changes of training volumes (see xai_brain.data.augmentation); all zero is none."""

    max_shift_mm: float = 0.0
    max_rotation_degrees: float = 0.0
    max_scaling: float = 0.0
    elastic_sd_mm: float = 0.0
    elastic_spacing_mm: float = 32.0
    flip_probability: float = 0.0
    intensity_sd: float = 0.0
    gamma_sd: float = 0.0
    bias_field_sd: float = 0.0
    noise_sd: float = 0.0


@dataclass
class TrainerConfig:
    """Optimisation of one fold."""

    max_epochs: int = 10
    batch_size: int = 8
    lr: float = 3e-4
    weight_decay: float = 0.0
    scheduler: str = "one_cycle"  # one_cycle | multistep | constant
    milestones: list[int] = field(default_factory=list)  # epochs, for multistep
    gamma: float = 0.1
    monitor: str = "val/loss"
    mode: str | None = None  # min or max; by default max, but min for losses
    patience: int | None = None
    subtract_mean: bool = False  # the mean training volume of the fold, inside the network
    calibrate: bool = True
    accelerator: str = "auto"
    precision: str = "32-true"
    num_workers: int = 0
    tensorboard: bool = True
    fast_dev_run: bool = False


@dataclass
class ExplainConfig:
    """What is explained, for whom."""

    target: str = "predicted"  # predicted | true | a class name
    output: str | None = None  # logit | logit_difference | probability; default: that of the method
    batch_size: int = 8
    seeds: list[int] | None = None  # default: all that were trained
    n_reference_volumes: int = 64
    output_space: str = "MNI152"  # native: maps of aligned images also on the voxels of the subject's own


@dataclass
class CardConfig:
    """The report card: who judges the maps, and how many subjects are asked about."""

    judges: list[str] = field(default_factory=list)  # of evaluation.report_card.JUDGES; none: no card
    n_removal: int = 10  # subjects: deletion, insertion, infidelity
    n_sanity: int = 6  # subjects: random weights, permuted labels
    n_noise: int = 4  # subjects: noise
    n_cost: int = 1  # subjects: seconds and memory
    n_steps: int = 20  # of deletion and insertion
    removal: str = "training_mean"  # zero | blur | training_mean: what takes the place of voxels
    n_blocks: int = 64  # that are removed for infidelity
    noise_sd: float = 0.1  # of the image's standard deviation in the brain
    n_noise_draws: int = 2


@dataclass
class GroupConfig:
    """The voxel-wise comparison of classes (see xai_brain.analysis.group): in maps, and in the images."""

    n_perm: int = 1000  # permutations; 0 compares nothing
    confounds: list[str] | None = None  # columns; default: age, sex, brain size, site and the fold of maps
    fwhm_mm: float = 0.0  # smoothing of every map and image
    scaling: str = "none"  # of every map, in the brain: none | l2 | rank
    tfce: bool = False
    cluster_p: float | None = None  # uncorrected p that forms clusters, e.g. 0.001
    alpha: float = 0.05  # family-wise, of thresholds and tables
    images: bool = True  # the same test on the prepared images, and how far maps overlap with it


@dataclass
class EvaluationConfig:
    """How maps are compared."""

    top_percents: list[float] = field(default_factory=lambda: [1, 2, 5, 10, 20, 50])
    n_bootstrap: int = 1000
    random_state: int = 0
    card: CardConfig = field(default_factory=CardConfig)
    calibration: str | None = None  # run_dir of a report card of planted effects in the same cohort
    group: GroupConfig = field(default_factory=GroupConfig)
    atlas: str | None = None  # labels image in MNI152, or a name that nilearn can download, e.g. aal
    atlas_table: str | None = None  # names of its labels; default: the table beside the image
    top_regions: int = 5  # of each class, in the table and the figure
    n_perm: int = 10_000  # of the comparison of classes in regions


@dataclass
class Config:
    """All settings of a run."""

    name: str = "run"
    run_dir: str = "outputs/${name}"
    seeds: list[int] = field(default_factory=lambda: [0])
    overwrite: bool = False
    networks: str | None = None  # a run whose networks speak of these people, who were not in it
    trusted_modules: list[str] = field(default_factory=list)
    data: DataConfig = MISSING
    preprocessing: PreprocessingConfig = MISSING
    planted: PlantedEffect = MISSING
    folds: FoldsConfig = MISSING
    augmentation: AugmentationConfig = MISSING
    model: dict[str, Any] = MISSING
    trainer: TrainerConfig = MISSING
    explain: ExplainConfig = MISSING
    attribution: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, Any] = field(default_factory=dict)  # classifiers to compare the networks with
    morphometry: str | None = None  # table of regional volumes or thickness, for baselines on it
    adopted: list[str] = field(default_factory=list)  # methods whose maps others made (xai-brain adopt)
    evaluation: EvaluationConfig = MISSING


def conf_dir() -> Path:
    """Folder of the configuration files: inside an installed package, beside it in a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "conf"


def register_schemas() -> None:
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="data", name="schema", node=DataConfig)
    store.store(group="data", name="schema_synthetic", node=SyntheticDataConfig)
    store.store(group="data", name="schema_image", node=ImageDataConfig)
    store.store(group="data", name="schema_oasis", node=OasisDataConfig)
    for group, node in (
        ("preprocessing", PreprocessingConfig),
        ("planted", PlantedEffect),
        ("folds", FoldsConfig),
        ("augmentation", AugmentationConfig),
        ("trainer", TrainerConfig),
        ("evaluation", EvaluationConfig),
    ):
        store.store(group=group, name="schema", node=node)


def compose(command: str = "run", overrides: list[str] | None = None, *, checked: bool = True) -> DictConfig:
    """Settings of a command, resolved and checked.

    Parameters
    ----------
    command : {"train", "baselines", "predict", "explain", "evaluate", "report", "run"}, default "run"
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
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            cfg = hydra_compose(command, overrides or [])
            OmegaConf.resolve(cfg)
            drop_unchosen_methods(cfg, overrides or [])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(told_in_one_line(error, command, overrides or [])) from error
    if checked:
        check(cfg)
    return cfg


def drop_unchosen_methods(cfg: DictConfig, overrides: list[str]) -> None:
    """Forget what an experiment says of methods that are not chosen; what the user says of them stays."""
    said = " ".join(overrides)
    for label in [label for label, method in cfg.attribution.items() if not method.get("_target_")]:
        if f"attribution.{label}" not in said:
            with open_dict(cfg):
                del cfg.attribution[label]


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
    if cfg.explain.target == "True":  # what YAML makes of explain.target=true
        cfg.explain.target = "true"
    if not cfg.model.get("_target_"):
        raise ConfigError("no value for model._target_: the dotted name of a torch.nn.Module")
    _check_baselines(cfg.baselines)
    for label, method in cfg.attribution.items():
        if not method.get("_target_"):
            raise ConfigError(f"attribution.{label} has no _target_: it is not one of the methods chosen")
    choices = {
        "data.on_error": tuple(choice.value for choice in OnError),
        "folds.kind": ("stratified", "hold_out", "column"),
        "trainer.scheduler": ("one_cycle", "multistep", "constant"),
        "trainer.mode": (None, "min", "max"),
        "explain.output_space": ("MNI152", "native"),
        "explain.output": (None, "logit", "logit_difference", "probability"),
        "preprocessing.scaling": ("zscore", "percentile", "none"),
        "preprocessing.brain": ("image", "template"),
        "evaluation.group.scaling": ("none", "l2", "rank"),
    }
    for key, allowed in choices.items():
        if (value := OmegaConf.select(cfg, key)) not in allowed:
            raise ConfigError(f"{key}={value}: one of {', '.join(str(a) for a in allowed if a)} is needed")
    at_least = {"folds.n_folds": 2, "trainer.max_epochs": 1, "trainer.batch_size": 1, "explain.batch_size": 1}
    at_least |= {"evaluation.n_bootstrap": 1, "folds.n_repeats": 1}
    at_least |= {"evaluation.group.n_perm": 0, "evaluation.group.fwhm_mm": 0}
    at_least |= {"evaluation.top_regions": 1, "evaluation.n_perm": 1}
    at_least |= {f"augmentation.{key}": 0 for key in cfg.augmentation}
    for key, least in at_least.items():
        if (value := OmegaConf.select(cfg, key)) < least:
            raise ConfigError(f"{key}={value}: at least {least} is needed")
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
    if len(set(cfg.seeds)) != len(cfg.seeds) or not len(cfg.seeds):
        raise ConfigError(f"seeds={list(cfg.seeds)}: one or more different numbers are needed")
    try:
        check_planted(PlantedEffect(**cfg.planted))
    except PlantedError as error:
        raise ConfigError(str(error)) from error
    _check_targets(OmegaConf.to_container(cfg), (*TRUSTED_MODULES, *cfg.trusted_modules))


BASELINES = {  # what each kind of baseline needs, and what it may have
    "voxels": ({"steps", "block_voxels"}, {"choices"}),
    "morphometry": ({"steps"}, {"choices"}),
    "slabs": ({"network", "n_slices"}, {"trainer"}),
    "volumes": ({"network"}, {"trainer"}),
}


def _check_baselines(baselines: DictConfig) -> None:
    trainer = {field.name for field in fields(TrainerConfig)}
    for name, settings in baselines.items():
        where = f"baselines.{name!s}"
        features = settings.get("features") if isinstance(settings, DictConfig) else None
        if features not in BASELINES:
            raise ConfigError(f"{where}.features={features}: one of {', '.join(BASELINES)} is needed")
        if name in ("brain_size", "network"):
            raise ConfigError(f"{where}: this name is taken; choose another")
        needed, optional = BASELINES[features]
        if missing := sorted(key for key in needed if not settings.get(key)):
            raise ConfigError(f"no value for {where}.{missing[0]}")
        if unknown := sorted(set(settings) - needed - optional - {"features"}):
            known = ", ".join(sorted(needed | optional))
            raise ConfigError(f"there is no setting {where}.{unknown[0]}; it has features, {known}")
        if unknown := sorted(set(settings.get("trainer") or {}) - trainer):
            raise ConfigError(f"there is no setting {where}.trainer.{unknown[0]}; see conf/trainer")
        for key in ("block_voxels", "n_slices"):
            if key in settings and not (isinstance(settings[key], int) and settings[key] >= 1):
                raise ConfigError(f"{where}.{key}={settings[key]!r}: a whole number from 1 on is needed")
        if "network" in settings and not settings.network.get("_target_"):
            raise ConfigError(f"no value for {where}.network._target_: the dotted name of a torch.nn.Module")


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


def _check_targets(node: Any, trusted: tuple[str, ...], where: str = "") -> None:
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    target = node.get("_target_")
    if target is not None and str(target).split(".")[0] not in trusted:
        raise ConfigError(
            f"{where}._target_={target}: its package is not trusted; "
            f"if it is yours, add trusted_modules=[{str(target).split('.')[0]}]"
        )
    for key, value in node.items():
        _check_targets(value, trusted, f"{where}.{key}".lstrip("."))


def told_in_one_line(error: Exception, command: str, overrides: list[str]) -> str:
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
        return f"there is no setting {key!r}{_nearest(key, known_keys(command))}"
    if match := re.search(r"Could not (?:override|append to config).*?'([^']+)'", text):
        return f"there is no setting {match.group(1)!r}{_nearest(match.group(1), known_keys(command))}"
    if match := re.search(r"Could not find 'hydra/(launcher|sweeper)/([^']+)'", text):
        return f"{match.group(1)} {match.group(2)} is not installed: pip install 'xai-brain[sweeps]'"
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, choice = match.group(1).rpartition("/")
        choices = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
        return f"there is no {group}={choice}; one of {', '.join(choices)}"
    if match := re.search(r"Could not load '([^']+)/([^'/]+)'", text):
        choices = sorted(path.stem for path in (conf_dir() / match.group(1)).glob("*.yaml"))
        return f"there is no {match.group(1)}={match.group(2)}; one of {', '.join(choices)}"
    if match := re.search(r"full_key: (\S+)", text):
        return f"{match.group(1)}: {texts[-1].splitlines()[0]}"
    return texts[0].splitlines()[0]


def _nearest(key: str, known: list[str]) -> str:
    by_leaf = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    near = near or [by_leaf[leaf] for leaf in difflib.get_close_matches(key.rpartition(".")[2], by_leaf, n=1)]
    return f"; did you mean {near[0]!r}?" if near else "; see `xai-brain run --cfg job` for all settings"


def known_keys(command: str) -> list[str]:
    """Dotted names of all settings."""
    cfg = compose(command, ["data=synthetic"])
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

"""What can be set, of which type, with which default. Files of `conf/` give other values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING, DictConfig

from xai_brain.config.planted_effect import PlantedEffect

# Arguments of Lightning's Trainer that other settings or the training itself determine.
OWN_TRAINER_ARGUMENTS = (
    *("max_epochs", "accelerator", "devices", "num_nodes", "strategy", "precision", "fast_dev_run"),
    *("plugins", "sync_batchnorm", "use_distributed_sampler", "callbacks", "logger", "deterministic"),
    *("num_sanity_val_steps", "enable_progress_bar", "enable_model_summary", "log_every_n_steps"),
    *("enable_checkpointing", "default_root_dir", "barebones"),
)

# Roles of settings: ``~`` is expanded in a path, and a label is compared with the text of a table.
PATH, LABEL = {"role": "path"}, {"role": "label"}


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
    root: str | None = field(default=None, metadata=PATH)
    label: str | None = "sex"  # null: none is known, for predict
    # order = class index; sorted when not given
    class_names: list[Any] | None = field(default=None, metadata=LABEL)
    threshold: float | None = None  # two classes of a number: up to it, above it
    bins: list[float] | None = None  # classes of a number: upper ends of all but the last
    # of participants; relative to root. Further tables add columns
    tables: list[str] | None = field(default=None, metadata=PATH)
    entities: Any = field(  # which of several T1w, e.g. {desc: brain}; any key can be given
        default_factory=lambda: DictConfig({}, flags={"struct": False}), metadata=LABEL
    )
    space: str | None = None  # of images whose names do not say it
    orientation: str | None = None  # of files that do not contain it: directions of the voxel axes, e.g. LAS
    space_check: str = "error"  # images that disagree with the MNI152 template: error | warn
    brain_size_column: str | None = None
    on_error: str = "raise"
    # default: $XAI_BRAIN_CACHE, else ~/.cache/xai_brain
    cache_dir: str | None = field(default=None, metadata=PATH)
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
    brain: str = (
        "image"  # image: its brain mask, or what is not background; template: for maps without an edge
    )
    brain_median: float | None = None  # with scaling=none: intensities are scaled to this median
    raw: bool = False  # extract brains, correct bias fields and align to MNI152 where it is needed
    skull_stripped: bool = False  # with raw: images contain only brain, whatever their names are
    alignment: str = "affine"  # with raw: affine | rigid, which keeps brain size


@dataclass
class FoldsConfig:
    """Who is tested in which fold, by participant; a part of each training set serves for validation."""

    kind: str = "stratified"  # stratified | hold_out | column
    n_folds: int = 5  # of stratified
    n_repeats: int = 1  # of stratified
    test_fraction: float = 0.2  # of hold_out
    column: str | None = None  # of column: one fold per value, e.g. site
    path: str | None = field(default=None, metadata=PATH)  # a folds.tsv to take instead
    only: int | None = None  # one fold of them, the others being another job's
    group_column: str | None = None  # kept together, e.g. family_id
    balance_on: list[str] = field(default_factory=list)  # e.g. [age, icv_ml]
    allow_shared: list[str] = field(default_factory=list)  # e.g. [family_id]: may be on both sides
    validation_fraction: float = 0.15
    validation_by_seed: bool = (
        False  # each seed has its own validation part, so that more participants are used on average
    )
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
    # inside the network, voxel by voxel, of the training volumes of the fold: mean (is subtracted) or zscore
    standardize: str | None = None
    calibrate: bool = True
    accelerator: str = "auto"
    devices: int = 1  # GPUs, or processes on CPU, of each machine that train one network together
    num_nodes: int = 1  # machines that train one network together; started with torchrun or srun
    # auto | ddp | ddp_spawn | ddp_fork | ddp_notebook, also with _find_unused_parameters_true
    strategy: str = "auto"
    # further arguments of Lightning's Trainer, e.g. {gradient_clip_val: 1}
    extra: Any = field(default_factory=lambda: DictConfig({}, flags={"struct": False}))
    precision: str = "32-true"
    num_workers: int = 0
    tensorboard: bool = True
    fast_dev_run: bool = False


@dataclass
class ExplainConfig:
    """What is explained, for whom."""

    # predicted | true | a class name; label:true where a class is called like one of the two
    target: Any = field(default="predicted", metadata=LABEL)
    output: str | None = None  # logit | logit_difference | probability; default: that of the method
    batch_size: int = 8
    seeds: list[int] | None = None  # default: all that were trained
    n_reference_volumes: int = 64
    output_space: str = "MNI152"  # native: maps of aligned images also on the voxels of the subject's own


@dataclass
class CardConfig:
    """The report card: its metrics, and of how many participants they are computed."""

    # names of xai_brain.metrics.table.METRICS, or all; none: no card
    metrics: list[str] = field(default_factory=list)
    n_removal: int = 10  # participants: deletion, insertion, infidelity
    n_sanity: int = 6  # participants: random weights, permuted labels
    n_noise: int = 4  # participants: noise
    n_cost: int = 1  # participants: seconds and memory
    n_steps: int = 20  # of deletion and insertion
    removal: str = "training_mean"  # zero | blur | training_mean: what takes the place of voxels
    n_blocks: int = 64  # that are removed for infidelity
    noise_sd: float = 0.1  # of the image's standard deviation in the brain
    n_noise_draws: int = 2


@dataclass
class GroupConfig:
    """The voxel-wise comparison of classes (see xai_brain.statistics.group): in maps, and in the images."""

    n_perm: int = 1000  # permutations; 0 compares nothing
    confounds: list[str] | None = None  # columns; default: age, sex, brain size, site and the fold of maps
    fwhm_mm: float = 0.0  # smoothing of every map and image
    scaling: str = "none"  # of every map, in the brain: none | l2 | rank
    tfce: bool = False
    cluster_p: float | None = None  # uncorrected p that forms clusters, e.g. 0.001
    alpha: float = 0.05  # family-wise, of thresholds and tables
    images: bool = True  # the same test on the prepared images, and how far maps overlap with it


@dataclass
class MaskValidationConfig:
    """Test accuracy with the voxels alone that maps of training subjects rank first (xai-brain validate)."""

    in_run: bool = False  # whether xai-brain run does it too
    methods: list[str] | None = None  # default: those of the run that are no baselines
    # joint and names of classes; default: all
    which: list[Any] | None = field(default=None, metadata=LABEL)
    areas: list[float] = field(default_factory=lambda: [5, 10, 20])  # of a mask, in percent of the brain
    n_subjects: int = 16  # training subjects of each class that are explained in each fold
    n_random: int = 5  # random masks of each size and smoothness
    removal: str = "training_mean"  # zero | blur | training_mean: what takes the place of voxels
    retrain: bool = False  # also networks that are trained again on the masked images


@dataclass
class EvaluationConfig:
    """How maps are compared."""

    top_percents: list[float] = field(default_factory=lambda: [1, 2, 5, 10, 20, 50])
    n_bootstrap: int = 1000
    random_state: int = 0
    card: CardConfig = field(default_factory=CardConfig)
    # run_dir of a report card of planted effects in the same cohort
    calibration: str | None = field(default=None, metadata=PATH)
    group: GroupConfig = field(default_factory=GroupConfig)
    # labels image in MNI152, or a name that nilearn can download, e.g. aal
    atlas: str | None = field(default=None, metadata=PATH)
    # names of its labels; default: the table beside the image
    atlas_table: str | None = field(default=None, metadata=PATH)
    top_regions: int = 5  # of each class, in the table and the figure
    n_perm: int = 10_000  # of the comparison of classes in regions
    variance_scaling: str = "l2"  # of every map, before variance is divided: none | l2 | rank
    first_layer: bool = False  # whether what the first layer makes of the images differs between classes
    masks: MaskValidationConfig = field(default_factory=MaskValidationConfig)


@dataclass
class Config:
    """All settings of a run."""

    name: str = "run"
    run_dir: str = field(default="outputs/${name}", metadata=PATH)
    seeds: list[int] = field(default_factory=lambda: [0])
    overwrite: bool = False
    shard: str | None = None  # 3/8: of units of explain, evaluate, validate the third, and every eighth after
    # a run whose networks predict these participants, who were not in it
    networks: str | None = field(default=None, metadata=PATH)
    trusted_modules: list[str] = field(default_factory=list)
    task: dict[str, Any] = MISSING
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
    # table of regional volumes or thickness, for baselines on it
    morphometry: str | None = field(default=None, metadata=PATH)
    imported_methods: list[str] = field(
        default_factory=list
    )  # methods whose maps others made (xai-brain import-maps)
    evaluation: EvaluationConfig = MISSING

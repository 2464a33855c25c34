"""Settings of training: augmentation, optimisation, Lightning's Trainer, and of baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from xai_brain.config.setting import ConfigError, check_values, free_names, plain_mapping, setting

# Arguments of Lightning's Trainer that other settings or the training itself determine.
OWN_TRAINER_ARGUMENTS = (
    *("max_epochs", "accelerator", "devices", "num_nodes", "strategy", "precision", "fast_dev_run"),
    *("plugins", "sync_batchnorm", "use_distributed_sampler", "callbacks", "logger", "deterministic"),
    *("num_sanity_val_steps", "enable_progress_bar", "enable_model_summary", "log_every_n_steps"),
    *("enable_checkpointing", "default_root_dir", "barebones"),
)
STRATEGIES = ("auto", "ddp", "ddp_spawn", "ddp_fork", "ddp_notebook")
UNUSED_PARAMETERS = "_find_unused_parameters_true"  # may follow the name of a strategy


@dataclass
class AugmentationConfig:
    """Random changes of training volumes (see xai_brain.data.augmentation); all 0: none."""

    max_shift_mm: float = setting(0.0, "largest shift along each axis, mm", at_least=0)
    max_rotation_degrees: float = setting(0.0, "largest rotation about each axis, degrees", at_least=0)
    max_scaling: float = setting(0.0, "largest relative change of size", at_least=0, below=1)
    elastic_sd_mm: float = setting(0.0, "standard deviation of elastic displacements, mm", at_least=0)
    elastic_spacing_mm: float = setting(32.0, "spacing of their control points, mm", at_least=0)
    flip_probability: float = setting(0.0, "of mirroring left and right", at_least=0, at_most=1)
    intensity_sd: float = setting(0.0, "relative change of all intensities", at_least=0)
    gamma_sd: float = setting(0.0, "standard deviation of the logarithm of gamma", at_least=0)
    bias_field_sd: float = setting(0.0, "standard deviation of a smooth factor", at_least=0)
    noise_sd: float = setting(0.0, "noise, in standard deviations of the brain", at_least=0)

    def __post_init__(self) -> None:
        check_values(self, "augmentation")
        if self.elastic_sd_mm > self.elastic_spacing_mm / 8:
            raise ConfigError(
                f"augmentation.elastic_sd_mm={self.elastic_sd_mm}: above an eighth of "
                "elastic_spacing_mm the anatomy would fold over itself"
            )


@dataclass
class TrainerConfig:
    """Training of the network of one fold."""

    max_epochs: int = setting(10, "epochs", at_least=1)
    batch_size: int = setting(8, "volumes per step", at_least=1)
    lr: float = setting(3e-4, "learning rate; of one_cycle the highest")
    weight_decay: float = setting(0.0, "of AdamW")
    scheduler: str = setting(
        "one_cycle", "schedule of the learning rate", choices=("one_cycle", "multistep", "constant")
    )
    milestones: list[int] = setting([], "epochs at which multistep multiplies the rate by gamma")
    gamma: float = setting(0.1, "of multistep")
    monitor: str = setting("val/loss", "metric by which the best epoch is chosen")
    mode: str | None = setting(
        None, "best is min or max; default: max, but min for losses", choices=(None, "min", "max")
    )
    patience: int | None = setting(None, "epochs without improvement before training stops")
    standardize: str | None = setting(
        None,
        "inside the network, voxel by voxel, by the training volumes: mean (is subtracted) or zscore",
        choices=(None, "mean", "zscore"),
    )
    freeze: list[str] = setting([], "modules of the network whose weights are not trained, e.g. [features]")
    class_weights: str | None = setting(
        None,
        "balanced: the loss of a class is weighted by the inverse of its frequency in the training images",
        choices=(None, "balanced"),
    )
    sampling: str | None = setting(
        None, "balanced: every epoch contains equally many images of each class", choices=(None, "balanced")
    )
    calibrate: bool = setting(True, "temperature of the probabilities from the validation part")
    accelerator: str = setting("auto", "auto, cpu, gpu or mps")
    devices: int = setting(
        1, "GPUs, or processes on CPU, of each machine that train one network together", at_least=1
    )
    num_nodes: int = setting(
        1, "machines that train one network together; started with torchrun or srun", at_least=1
    )
    strategy: str = setting("auto", f"{', '.join(STRATEGIES)}, also with {UNUSED_PARAMETERS}")
    extra: Any = field(
        default_factory=free_names,
        metadata={"meaning": "further arguments of Lightning's Trainer, e.g. {gradient_clip_val: 1}"},
    )
    precision: str = setting("32-true", "as of Lightning's Trainer")
    num_workers: int = setting(0, "processes that load volumes")
    tensorboard: bool = setting(True, "log training curves for TensorBoard")
    fast_dev_run: bool = setting(False, "one batch only, to try whether training works")

    def __post_init__(self) -> None:
        check_values(self, "trainer")
        plain_mapping(self, "extra", "trainer", "gradient_clip_val: 1")
        if self.class_weights and self.sampling:
            raise ConfigError(
                f"trainer.class_weights={self.class_weights} and trainer.sampling={self.sampling}: both "
                "balance the classes; use one of them"
            )
        if self.batch_size % (self.devices * self.num_nodes):
            nodes = f" trainer.num_nodes={self.num_nodes}" if self.num_nodes > 1 else ""
            raise ConfigError(
                f"trainer.batch_size={self.batch_size}: cannot be divided evenly over "
                f"trainer.devices={self.devices}{nodes}"
            )
        if self.strategy.removesuffix(UNUSED_PARAMETERS) not in STRATEGIES:
            raise ConfigError(f"trainer.strategy={self.strategy}: one of {', '.join(STRATEGIES)} is needed")
        if taken := [name for name in self.extra if name in OWN_TRAINER_ARGUMENTS]:
            own = f"use trainer.{taken[0]}" if hasattr(self, taken[0]) else "it cannot be changed"
            raise ConfigError(f"trainer.extra.{taken[0]}: xai_brain sets this argument; {own}")


@dataclass
class HarmonizationConfig:
    """Removal of site effects or confounds from the features of baselines, fitted in each training part."""

    method: str | None = setting(
        None,
        "combat: effects of sites (Johnson 2007); residualize: linear effects of confounds",
        choices=(None, "combat", "residualize"),
    )
    site_column: str | None = setting("site", "combat: column of the site")
    covariates: list[str] = setting([], "combat: columns whose effects are preserved; never the target")
    confounds: list[str] = setting([], "residualize: columns whose linear effects are removed")
    unseen_site: str = setting(
        "refuse",
        "combat: a site without training images; standardize: its own mean and variance are used",
        choices=("refuse", "standardize"),
    )

    def __post_init__(self) -> None:
        check_values(self, "harmonization")
        if self.method == "combat" and (self.confounds or not self.site_column):
            raise ConfigError(
                "harmonization.method=combat: needs site_column and no confounds, which residualize has"
            )
        if self.method == "residualize" and (self.covariates or not self.confounds):
            raise ConfigError(
                "harmonization.method=residualize: needs confounds=[...] and no covariates, which combat has"
            )


NEEDED = {  # settings that each kind of features needs, and that it may have
    "voxels": ({"steps", "block_voxels"}, {"choices", "harmonization"}),
    "morphometry": ({"steps"}, {"choices", "harmonization"}),
    "slabs": ({"network", "n_slices"}, {"trainer", "n_seeds"}),
    "volumes": ({"network"}, {"trainer", "n_seeds"}),
}
TRAINER_SETTINGS = {each.name for each in fields(TrainerConfig)} - {"devices", "num_nodes", "strategy"}
TAKEN = ("mean", "brain_size", "network", "chosen_network")  # names of other rows of the comparison


@dataclass
class BaselineConfig:
    """A baseline; see ``conf/baselines``."""

    features: str = setting("voxels", "input of the classifier", choices=tuple(NEEDED))
    steps: list[Any] = setting([], "steps of a scikit-learn pipeline, each with its _target_")
    choices: dict[str, Any] = setting({}, "values of parameters that are chosen within the training part")
    block_voxels: int | None = setting(None, "edge of the blocks that are averaged, voxels", at_least=1)
    network: dict[str, Any] = setting({}, "another network: _target_ and its arguments")
    n_slices: int | None = setting(None, "slices per slab", at_least=1)
    trainer: dict[str, Any] = setting({}, "settings of the trainer that differ from those of the run")
    harmonization: dict[str, Any] = setting({}, "settings of harmonization, with its method")
    n_seeds: int | None = setting(None, "seeds that are trained; default: those of the run", at_least=1)


def read_baseline(name: str, settings: object) -> BaselineConfig:
    """Settings of a baseline that are complete.

    Parameters
    ----------
    name : str
        Key in the settings ``baselines``.
    settings : mapping
        Values by name.

    Raises
    ------
    ConfigError
        A name is taken, or a setting is missing, unknown or has a wrong value.
    """
    where = f"baselines.{name}"
    given = dict(settings) if isinstance(settings, Mapping) else {}
    features = given.get("features")
    if features not in NEEDED:
        raise ConfigError(f"{where}.features={features}: one of {', '.join(NEEDED)} is needed")
    if name in TAKEN or name.endswith("_ensemble"):
        raise ConfigError(f"{where}: this name is taken; choose another")
    needed, optional = NEEDED[features]
    if missing := sorted(key for key in needed if not given.get(key)):
        raise ConfigError(f"no value for {where}.{missing[0]}")
    if unknown := sorted(set(given) - needed - optional - {"features"}):
        known = ", ".join(sorted(needed | optional))
        raise ConfigError(f"there is no setting {where}.{unknown[0]}; it has features, {known}")
    if unknown := sorted(set(given.get("trainer") or {}) - TRAINER_SETTINGS):
        raise ConfigError(f"there is no setting {where}.trainer.{unknown[0]}; see conf/trainer")
    for key in ("block_voxels", "n_slices", "n_seeds"):
        value = given.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"{where}.{key}={value!r}: a whole number from 1 on is needed")
    own = given.get("harmonization") or {}
    if unknown := sorted(set(own) - {each.name for each in fields(HarmonizationConfig)}):
        raise ConfigError(f"there is no setting {where}.harmonization.{unknown[0]}; see conf/harmonization")
    HarmonizationConfig(**own)
    if "network" in given and not given["network"].get("_target_"):
        raise ConfigError(f"no value for {where}.network._target_: the dotted name of a torch.nn.Module")
    baseline = BaselineConfig(**{key: value for key, value in given.items() if value is not None})
    check_values(baseline, where)
    return baseline

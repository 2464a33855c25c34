"""All settings of a run with types, defaults and limits; the files of `conf/` contain other values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from xai_brain.config.benchmarks.detection import DetectionConfig
from xai_brain.config.benchmarks.regional import RegionalConfig
from xai_brain.config.data import DataConfig, FoldsConfig, PreprocessingConfig
from xai_brain.config.evaluation import EvaluationConfig
from xai_brain.config.planted_effect import PlantedEffect, PlantedError, check_planted
from xai_brain.config.setting import ConfigError, check_values, setting
from xai_brain.config.training import AugmentationConfig, HarmonizationConfig, TrainerConfig
from xai_brain.parallel.shards import read_shard

DEFAULT_TASK = "xai_brain.task.classification.Classification"


@dataclass
class ExplainConfig:
    """What is explained, for which participants."""

    target: Any = setting(
        "predicted",
        "predicted, true or a class; label:true where a class is called like one of the two",
        role="label",
    )
    output: str | None = setting(
        None,
        "output that is explained, one of the task; default: that of the method",
    )
    batch_size: int = setting(8, "participants that are explained together", at_least=1)
    seeds: list[int] | None = setting(None, "seeds whose networks are explained; default: all")
    n_reference_volumes: int = setting(64, "training volumes for replacements and baselines")
    output_space: str = setting(
        "MNI152",
        "native: maps of aligned images also on the voxels of the participant's own image",
        choices=("MNI152", "native"),
    )

    def __post_init__(self) -> None:
        check_values(self, "explain")


@dataclass
class ReportConfig:
    """The page with all results."""

    anonymise: bool = setting(
        False, "replace participant identifiers by random numbers, and remove file paths and links"
    )
    surfaces: bool = setting(False, "show mean maps on the cortical surface, too; some seconds for each map")


@dataclass
class Config:
    """All settings of a run."""

    name: str = setting("run", "name of the run")
    run_dir: str = setting("outputs/${name}", "folder of all results", role="path")
    seeds: list[int] = setting([0], "seeds of training")
    overwrite: bool = setting(False, "replace results that were made with other settings")
    shard: str | None = setting(
        None, "3/8: the third of eight parts of the work of explain, evaluate and validate"
    )
    networks: str | None = setting(None, "a run whose networks predict new participants", role="path")
    adapt: str | None = setting(
        None,
        "predict: standardize uses mean and SD of the new images (20 or more) in place of those of training",
        choices=("standardize",),
    )
    trusted_modules: list[str] = setting([], "packages whose code may run")
    task: dict[str, Any] = setting(
        {"_target_": DEFAULT_TASK}, "what the networks learn: a name of conf/task, or a class with _target_"
    )
    data: DataConfig = MISSING
    preprocessing: PreprocessingConfig = MISSING
    planted: PlantedEffect = MISSING
    folds: FoldsConfig = MISSING
    augmentation: AugmentationConfig = MISSING
    model: dict[str, Any] = field(
        default=MISSING, metadata={"meaning": "the network: _target_ and its arguments, see model=<file>"}
    )
    trainer: TrainerConfig = MISSING
    explain: ExplainConfig = MISSING
    attribution: dict[str, Any] = setting({}, "methods by their label, each with its _target_")
    baselines: dict[str, Any] = setting({}, "classifiers that are compared with the networks")
    morphometry: str | None = setting(
        None, "table of regional volumes or thickness, for baselines", role="path"
    )
    imported_methods: list[str] = setting([], "methods whose maps were imported (xai-brain import-maps)")
    evaluation: EvaluationConfig = MISSING
    harmonization: HarmonizationConfig = field(default_factory=HarmonizationConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    regional: RegionalConfig = field(default_factory=RegionalConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)

    @property
    def networks_path(self) -> Path:
        """Folder of the run, or file of weights, that `networks` names."""
        return Path(self.networks or "").expanduser()

    @property
    def morphometry_path(self) -> Path:
        """Table of regional volumes."""
        return Path(self.morphometry or "").expanduser()

    def __post_init__(self) -> None:
        if self.adapt not in (None, "standardize"):
            raise ConfigError(f"adapt={self.adapt}: null or standardize is needed")
        if self.adapt and not (self.networks or self.model.get("weights")):
            raise ConfigError(f"adapt={self.adapt}: is for `xai-brain predict networks=...`; leave it out")
        if self.shard is not None:
            try:
                read_shard(self.shard)
            except ValueError as error:
                raise ConfigError(str(error)) from error
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ConfigError(f"seeds={self.seeds}: one or more different numbers are needed")
        try:
            check_planted(self.planted)
        except PlantedError as error:
            raise ConfigError(str(error)) from error
        if not self.task.get("_target_"):
            raise ConfigError("no value for task._target_: the dotted name of a class of tasks")
        if not self.model.get("_target_"):
            raise ConfigError("no value for model._target_: the dotted name of a torch.nn.Module")
        for label, method in self.attribution.items():
            if not method.get("_target_"):
                raise ConfigError(
                    f"attribution.{label} has no _target_: this method is not chosen; "
                    "add its file of conf/attribution to attribution=[...]"
                )

"""Settings of the evaluation of maps: report card, comparison of groups, masks, regions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from xai_brain.config.setting import ConfigError, check_values, setting

METRICS_TABLE = "xai_brain.metrics.table"  # belongs to a higher layer, so it is named like a _target_
REMOVALS = ("zero", "blur", "training_mean")
MIN_CLUSTER_VOXELS = 5  # also of the list of the viewer


@dataclass
class CardConfig:
    """The report card: its metrics, and the number of participants for which they are computed."""

    metrics: list[str] = setting([], "names of xai_brain.metrics.table.METRICS, or all; none: no report card")
    n_removal: int = setting(10, "participants for deletion, insertion and infidelity", at_least=1)
    n_sanity: int = setting(6, "participants for random weights and permuted labels", at_least=1)
    n_noise: int = setting(4, "participants for sensitivity to noise", at_least=1)
    n_cost: int = setting(1, "participants for seconds and memory", at_least=1)
    n_steps: int = setting(20, "steps of deletion and insertion", at_least=1)
    removal: str = setting(
        "training_mean",
        "replacement of removed voxels in deletion, insertion and infidelity",
        choices=REMOVALS,
    )
    n_blocks: int = setting(64, "blocks that are removed for infidelity", at_least=1)
    noise_sd: float = setting(0.1, "noise, in standard deviations of the image in the brain", above=0)
    n_noise_draws: int = setting(2, "draws of the noise", at_least=1)

    def __post_init__(self) -> None:
        check_values(self, "evaluation.card")
        try:
            import_module(METRICS_TABLE).select_metrics(self.metrics)
        except KeyError as error:
            raise ConfigError(f"evaluation.card.metrics: {error.args[0]}") from error


@dataclass
class GroupConfig:
    """Voxel-wise comparison of classes for maps and images (see xai_brain.statistics.group)."""

    n_perm: int = setting(
        1000,
        "permutations of the voxel-wise comparison of classes; 0: no comparison (regions: evaluation.n_perm)",
        at_least=0,
    )
    confounds: list[str] | None = setting(
        None, "columns; default: age, sex, brain size, site and the fold of the maps"
    )
    fwhm_mm: float = setting(0.0, "smoothing of every map and image, mm", at_least=0)
    scaling: str = setting("none", "scaling of every map in the brain", choices=("none", "l2", "rank"))
    tfce: bool = setting(False, "threshold-free cluster enhancement")
    cluster_p: float | None = setting(None, "uncorrected p that forms clusters, e.g. 0.001", above=0, below=1)
    alpha: float = setting(0.05, "family-wise error rate of thresholds and tables", above=0, below=1)
    min_cluster_voxels: int = setting(
        MIN_CLUSTER_VOXELS, "smaller clusters are neither listed nor outlined", at_least=1
    )
    images: bool = setting(True, "the same test on the prepared images, and the overlap of maps with it")

    def __post_init__(self) -> None:
        check_values(self, "evaluation.group")
        if self.n_perm > 0 and (self.n_perm + 1) * self.alpha < 1:
            least = math.ceil(1 / self.alpha) - 1
            raise ConfigError(
                f"evaluation.group.n_perm={self.n_perm}: with fewer than {least} permutations no p can reach "
                f"evaluation.group.alpha={self.alpha}"
            )


@dataclass
class MaskValidationConfig:
    """Test accuracy on images that contain only the top-ranked voxels (xai-brain validate)."""

    in_run: bool = setting(False, "whether xai-brain run includes this stage")
    methods: list[str] | None = setting(
        None, "names of maps, such as [GradCAM]; default: methods of the run that are not baselines"
    )
    which: list[Any] | None = setting(None, "joint and names of classes; default: all", role="label")
    areas: list[float] = setting([5, 10, 20], "size of a mask, percent of the brain", above=0, below=100)
    n_subjects: int = setting(
        16, "training participants per class that are explained in each fold", at_least=1
    )
    n_random: int = setting(5, "random masks of each size and smoothness", at_least=1)
    removal: str = setting("training_mean", "replacement of the voxels that a mask removes", choices=REMOVALS)
    retrain: bool = setting(False, "also train networks again on the masked images")

    def __post_init__(self) -> None:
        check_values(self, "evaluation.masks")
        if not self.areas or len(set(self.areas)) != len(self.areas):
            raise ConfigError(f"evaluation.masks.areas={self.areas}: one or more different sizes are needed")


@dataclass
class ThresholdConfig:
    """Corrected thresholds of maps (xai-brain threshold): networks of permuted labels, or randomised ones."""

    n_perm: int = setting(
        39, "permutations of the labels, or networks with randomised parameters", at_least=1
    )
    alpha: float = setting(0.05, "family-wise error rate", above=0, below=1)
    n_participants: int = setting(20, "participants who are explained by each network", at_least=1)
    blocks: list[str] = setting(
        [], "columns within whose values labels are permuted, e.g. site; numbers: within quarters"
    )
    cluster_forming: float = setting(
        2.0, "|map| that forms clusters, in units of its root mean square in the brain", above=0
    )
    statistic: str = setting(
        "max", "of a map: largest voxel, or extent or mass of clusters", choices=("max", "extent", "mass")
    )
    methods: list[str] | None = setting(
        None,
        "names of maps, such as [GradCAM], while attribution=[grad_cam] takes names of files; "
        "default: all methods of the run",
    )

    def __post_init__(self) -> None:
        check_values(self, "evaluation.threshold")
        if (self.n_perm + 1) * self.alpha < 1 - 1e-9:
            least = math.ceil(1 / self.alpha - 1e-9) - 1
            raise ConfigError(
                f"evaluation.threshold.n_perm={self.n_perm}: fewer than {least} permutations cannot control "
                f"evaluation.threshold.alpha={self.alpha}"
            )


@dataclass
class EvaluationConfig:
    """Comparison of maps with each other, between classes and with the truth."""

    top_percents: list[float] = setting(
        [1, 2, 5, 10, 20, 50],
        "highest voxels of which the overlap is computed, percent",
        above=0,
        at_most=100,
    )
    n_bootstrap: int = setting(1000, "draws of the confidence intervals", at_least=1)
    random_state: int = setting(0, "random state of bootstrap and permutations")
    card: CardConfig = field(default_factory=CardConfig)
    calibration: str | None = setting(
        None, "run_dir of a report card of planted effects in the same cohort", role="path"
    )
    group: GroupConfig = field(default_factory=GroupConfig)
    atlas: str | None = setting(
        None, "labels image in MNI152, or a name that nilearn can download, e.g. aal", role="path"
    )
    atlas_table: str | None = setting(
        None, "names of the labels of the atlas; default: the table beside the image", role="path"
    )
    top_regions: int = setting(5, "regions of each class in the table and the figure", at_least=1)
    n_perm: int = setting(
        10_000,
        "permutations of the comparison of classes in regions of the atlas (voxels: evaluation.group.n_perm)",
        at_least=1,
    )
    variance_scaling: str = setting(
        "l2", "scaling of every map before variance is divided", choices=("none", "l2", "rank")
    )
    subgroups: list[str] | None = setting(
        None, "columns of participants for the performance by subgroup; default: sex, age, site; []: none"
    )
    confound_score: bool = setting(
        False, "how well age, sex, site and brain size can be read from the last layer of the networks"
    )
    first_layer: bool = setting(False, "compare the outputs of the first layer between classes")
    masks: MaskValidationConfig = field(default_factory=MaskValidationConfig)
    threshold: ThresholdConfig = field(default_factory=ThresholdConfig)

    def __post_init__(self) -> None:
        check_values(self, "evaluation")
        if self.atlas_table and not self.atlas:
            raise ConfigError(
                "no value for evaluation.atlas: the labels image that evaluation.atlas_table names"
            )

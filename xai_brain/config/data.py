"""Settings of the cohort: images and labels, preparation, folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from xai_brain.config.setting import ConfigError, check_values, free_names, plain_mapping, setting
from xai_brain.io.nifti import GRIDS
from xai_brain.io.orientation import validate_orientation


@dataclass
class DataConfig:
    """Source of the images and labels."""

    layout: str = field(default=MISSING, metadata={"meaning": "kind of cohort, chosen with data=<file>"})
    root: str | None = setting(None, "folder of the images", role="path")
    label: str | None = setting("sex", "column of the classes; null: none is known, for predict")
    class_names: list[Any] | None = setting(
        None, "classes in the order of their index; default: sorted", role="label"
    )
    threshold: float | None = setting(None, "two classes of a number: up to it, above it")
    bins: list[float] | None = setting(None, "classes of a number: upper ends of all but the last")
    tables: list[str] | None = setting(
        None, "tables of participants, relative to root; further tables add columns", role="path"
    )
    participants: list[str] | None = setting(
        None, "participants that are used, e.g. [sub-01,sub-02]; default: all", role="label"
    )
    entities: Any = field(
        default_factory=free_names,
        metadata={"role": "label", "meaning": "which of several T1w images, e.g. {desc: brain}"},
    )
    space: str | None = setting(None, "space of images whose names do not state it")
    orientation: str | None = setting(
        None, "directions of the voxel axes of files that do not contain them, e.g. LAS"
    )
    space_check: str = setting(
        "error", "images that disagree with the MNI152 template", choices=("error", "warn")
    )
    brain_size_column: str | None = setting(None, "column of brain size, for a baseline and matching")
    on_error: str = setting("raise", "inputs that cannot be used", choices=("raise", "skip"))
    cache_dir: str | None = setting(
        None, "prepared images; default: $XAI_BRAIN_CACHE, else ~/.cache/xai_brain", role="path"
    )
    num_workers: int | None = setting(
        None, "processes that prepare images; default: one per core", at_least=1
    )

    @property
    def folder(self) -> Path:
        """Folder of the images."""
        return Path(self.root or "").expanduser()

    def __post_init__(self) -> None:
        check_values(self, "data")
        plain_mapping(self, "entities", "data", "desc: brain")
        if self.layout != "synthetic" and not self.root:
            raise ConfigError("no value for data.root: the folder of the images, data.root=/path/to/it")
        if self.orientation is not None:
            try:
                validate_orientation(self.orientation)
            except ValueError as error:
                raise ConfigError(f"data.{error}") from error


@dataclass
class SyntheticDataConfig(DataConfig):
    """The embedded cohort: MNI152 anatomy with a planted effect."""

    cohort: dict[str, Any] = setting({}, "arguments of xai_brain.data.planted.SyntheticSettings")


@dataclass
class ImageDataConfig(DataConfig):
    """A cohort whose images are found by their path."""

    image: str | None = setting(None, "hcp: path below an id; ixi: pattern below root")


@dataclass
class OasisDataConfig(DataConfig):
    """OASIS-1 through nilearn's fetcher."""

    n_subjects: int | None = setting(None, "participants that are downloaded; default: all", at_least=1)
    dartel: bool = setting(True, "maps of the DARTEL normalisation")
    url: str | None = setting(None, "address of a mirror")


@dataclass(unsafe_hash=True)
class PreprocessingConfig:
    """Preprocessing of T1w images to the volumes that are the inputs of a network.

    Parameters
    ----------
    grid : str, default "t1w_58x70x58"
        Name of a grid in `xai_brain.io.nifti.GRIDS`.
    scaling : {"zscore", "percentile", "quantile", "none"}, default "zscore"
        ``zscore``: mean 0 and standard deviation 1 inside the brain. ``percentile``: 0 at the 1st and 1
        at the 99th percentile of the brain; values beyond are clipped. ``quantile``: the 1st to 99th
        percentiles of the brain become those of the standard normal distribution, so that all images have
        one histogram; values beyond are clipped. ``none``: values of the file.
        Outside the brain it is always 0.
    antialias : bool, default True
    brain : {"image", "template"}, default "image"
        Source of the brain mask. ``image``: the mask of the image, or its voxels that are not background (a
        constant, usually 0; see `xai_brain.data.raw.brain_masks`). ``template``: the brain of the MNI152
        template, for maps without a defined border such as grey-matter density.
    brain_median : float, optional
        With ``scaling="none"``: intensities are multiplied such that the median in the brain is this number.
    raw : bool, default False
        Images as acquired: brains are extracted, bias fields are corrected, and images that are not in MNI152
        according to their name or ``data.space`` are aligned to it (see `xai_brain.data.raw.images`).
    skull_stripped : bool, default False
        With `raw`: the images contain only brain, so that nothing is extracted. Otherwise this is assumed
        only for images with a brain mask and for files named ``desc-brain``.
    alignment : {"affine", "rigid"}, default "affine"
        With `raw`: ``affine`` removes differences in brain size, ``rigid`` keeps them. Without it: how the
        images were aligned; after rigid alignment brains need not have the template's size.
    """

    grid: str = setting("t1w_58x70x58", "grid of the volumes", choices=tuple(GRIDS))
    scaling: str = setting(
        "zscore",
        "intensities in the brain; zscore: mean 0 and standard deviation 1; percentile: 0 at the 1st and 1 "
        "at the 99th percentile; quantile: the same histogram for all images; none: unchanged",
        choices=("zscore", "percentile", "quantile", "none"),
    )
    antialias: bool = setting(True, "smoothing before downsampling")
    brain: str = setting(
        "image",
        "brain mask; image: its own, or what is not background; template: for maps without an edge",
        choices=("image", "template"),
    )
    brain_median: float | None = setting(
        None, "with scaling=none: intensities are scaled to this median", above=0
    )
    raw: bool = setting(False, "extract brains, correct bias fields and align to MNI152 where needed")
    skull_stripped: bool = setting(False, "with raw: images contain only brain, whatever their names are")
    alignment: str = setting(
        "affine", "with raw: affine, or rigid, which keeps brain size", choices=("affine", "rigid")
    )

    def __post_init__(self) -> None:
        check_values(self, "preprocessing")
        if self.brain_median is not None and self.scaling != "none":
            raise ConfigError(
                f"preprocessing.brain_median={self.brain_median}: "
                "a positive number with scaling=none is needed"
            )


def read_preprocessing(settings: Mapping[str, Any]) -> PreprocessingConfig:
    """Settings of preparation as a checkpoint stores them.

    Raises
    ------
    ConfigError
        A setting that this version does not know.
    """
    if unknown := sorted(set(settings) - {each.name for each in fields(PreprocessingConfig)}):
        raise ConfigError(f"preprocessing.{unknown[0]}: not a setting of this version of xai_brain")
    return PreprocessingConfig(**settings)


@dataclass
class FoldsConfig:
    """Division of participants into folds; a part of each training set is used for validation."""

    kind: str = setting(
        "stratified", "how participants are divided", choices=("stratified", "hold_out", "column")
    )
    n_folds: int = setting(5, "of stratified", at_least=2)
    n_repeats: int = setting(1, "of stratified: repeats with new divisions", at_least=1)
    test_fraction: float = setting(0.2, "of hold_out", above=0, below=1)
    column: str | None = setting(None, "of column: one fold per value, e.g. site")
    path: str | None = setting(None, "a folds.tsv that is used instead", role="path")
    only: int | None = setting(None, "one fold; the others are trained by other jobs")
    group_column: str | None = setting(None, "participants that stay together, e.g. family_id")
    balance_on: list[str] = setting([], "columns that are balanced between folds, e.g. [age, icv_ml]")
    allow_shared: list[str] = setting([], "columns that both sides of a fold may share, e.g. [family_id]")
    validation_fraction: float = setting(0.15, "of the training part", above=0, below=1)
    validation_by_seed: bool = setting(
        False, "each seed has its own validation part, so that more participants are used on average"
    )
    random_state: int = setting(0, "random state of the division")

    def __post_init__(self) -> None:
        check_values(self, "folds")
        if self.kind == "column" and not self.column:
            raise ConfigError(
                "no value for folds.column: the column of participants.tsv whose values are folds"
            )
        if self.n_repeats > 1 and self.kind != "stratified":
            raise ConfigError(f"folds.n_repeats={self.n_repeats}: only folds.kind=stratified is repeated")

"""Images that are given to `xai_brain.explain`: their names, channels, preparation and grids."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from xai_brain.config.build import build_settings, choices_of, valid_choice
from xai_brain.config.data import PreprocessingConfig
from xai_brain.config.setting import ConfigError
from xai_brain.data.preprocessing import preprocess_t1w
from xai_brain.data.raw.heads import in_native
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import (
    Grid,
    ImageError,
    get_grid,
    load_img,
    parse_entities,
    resample_to_grid,
    same_grid,
)
from xai_brain.io.nifti_header import refuse_unknown_orientation
from xai_brain.study.cohort import Cohort

Image = str | Path | nib.Nifti1Image
Preprocess = str | PreprocessingConfig | Callable[..., Any] | None


@dataclass(frozen=True)
class GivenImage:
    """The image of one participant, in one or several channels; files are read when they are needed."""

    participant_id: str
    session_id: str
    channels: tuple[Image, ...]
    label: str | None = None
    target: int = -1
    prepared: tuple[str, str, str] | None = None  # volume and brain mask of a cohort, and its grid

    @property
    def path(self) -> str:
        """File of the first channel, or what stands for it in messages."""
        first = self.channels[0]
        return str(first) if isinstance(first, str | Path) else f"image of {self.participant_id}"

    @cached_property
    def files(self) -> list[Path]:
        """Files of the channels, absolute; empty for images in memory."""
        given = [Path(channel) for channel in self.channels if isinstance(channel, str | Path)]
        return [file.expanduser().absolute() for file in given]

    @cached_property
    def source_hash(self) -> str:
        """Hash of the files; empty for images in memory."""
        return " ".join(file_hash(file) for file in self.files)


@dataclass(frozen=True)
class ReadyImage:
    """A prepared image: the input of the network, and how its maps reach the grid of the image."""

    given: GivenImage
    volume: torch.Tensor  # (C, X, Y, Z) float32
    voxel_size_mm: tuple[float, float, float]
    affine: np.ndarray  # of the volume, (4, 4)
    shown: tuple[nib.Nifti1Image, ...]  # the channels on the grid of the maps; the first if not all are known
    to_own_grid: Callable[[np.ndarray], np.ndarray]  # of a map (X, Y, Z)


def given_images(
    images: Any,
    affine: np.ndarray | None = None,
    participant_ids: Sequence[str] | None = None,
    preprocess: Preprocess = None,
) -> list[GivenImage]:
    """Images with the names of their participants.

    Parameters
    ----------
    images : sequence, ndarray or Cohort
        See `xai_brain.explain`.
    affine : ndarray of shape (4, 4), optional
        Of images that are arrays.
    participant_ids : sequence of str, optional
    preprocess : str, PreprocessingConfig, callable or None
        A function prepares the files of a `Cohort` that is not prepared.

    Raises
    ------
    ConfigError
        There is no image, an array has no affine, or two images have one name.
    """
    if isinstance(images, Cohort):
        return _of_cohort(images, callable(preprocess))
    if isinstance(images, str | Path | nib.Nifti1Image):
        raise ConfigError("images: a list is needed, also for one image: images=[...]")
    if isinstance(images, np.ndarray | torch.Tensor):
        images = [_channels_of_array(volume, affine) for volume in np.asarray(images, np.float32)]
    each = [tuple(one) if isinstance(one, list | tuple) else (one,) for one in images]
    if not each:
        raise ConfigError("images: there is no image")
    if len({len(channels) for channels in each}) > 1:
        raise ConfigError("images: all participants need the same number of channels")
    if wrong := [one for channels in each for one in channels if not isinstance(one, Image)]:
        raise ConfigError(
            f"images: a {type(wrong[0]).__name__} is no image; give paths, NIfTI objects or one array"
        )
    if participant_ids is not None and len(participant_ids) != len(each):
        raise ConfigError(f"participant_ids: {len(participant_ids)} names for {len(each)} images")
    names = [_named(channels[0], n) for n, channels in enumerate(each, 1)]
    if participant_ids is not None:
        names = [(f"sub-{_letters(name.removeprefix('sub-'))}", "") for name in participant_ids]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"images: {names.count(repeated[0])} images have the name {' '.join(repeated[0]).strip()}; give "
            "participant_ids=[...]"
        )
    return [GivenImage(*name, channels) for name, channels in zip(names, each, strict=True)]


def _of_cohort(cohort: Cohort, files: bool) -> list[GivenImage]:
    files = files and cohort.grid is None
    if not files:
        cohort.settings()  # raises an error for a cohort that is not prepared
    return [
        GivenImage(
            row["participant_id"],
            row["session_id"],
            (row["t1w_path"],),
            None if row["target"] < 0 else str(row["label"]),
            int(row["target"]),
            None if files else (row["volume_path"], row["volume_mask_path"], str(cohort.grid)),
        )
        for row in cohort.table.to_dict("records")
    ]


def _channels_of_array(volume: np.ndarray, affine: np.ndarray | None) -> list[nib.Nifti1Image]:
    if affine is None:
        raise ConfigError("images: an array has no position in space; give affine= (voxel to RAS+ mm)")
    if np.shape(affine) != (4, 4):
        raise ConfigError(
            f"affine: a matrix of shape (4, 4), voxel to RAS+ mm, is needed, not {np.shape(affine)}"
        )
    channels = volume[None] if volume.ndim == 3 else volume
    if channels.ndim != 4:
        raise ConfigError(
            f"images: an array of shape (N, X, Y, Z) or (N, C, X, Y, Z) is needed, not (N, *{volume.shape})"
        )
    return [nib.Nifti1Image(channel, np.asarray(affine, float)) for channel in channels]


def _named(image: Image, n: int) -> tuple[str, str]:
    """Names of participant and session: the entities of a file name, else the name itself."""
    if not isinstance(image, str | Path):
        return f"sub-{n:04d}", ""
    entities = parse_entities(image)
    session = f"ses-{_letters(entities['ses'])}" if entities.get("ses") else ""
    return f"sub-{_letters(entities.get('sub') or Path(image).name.split('.')[0])}", session


def _letters(name: str) -> str:
    """A name that BIDS allows: letters and digits only."""
    return re.sub(r"[^A-Za-z0-9]", "", name) or "image"


def preparation(preprocess: Preprocess, space: str, orientation: str | None) -> Callable[..., ReadyImage]:
    """Function that reads and prepares a `GivenImage`.

    Parameters
    ----------
    preprocess : str, PreprocessingConfig, callable or None
        See `xai_brain.explain`.
    space : str
        Name of the space of the images.
    orientation : str, optional
        For files that state none.
    """
    if isinstance(preprocess, str):
        valid_choice("preprocessing", preprocess, choices_of("preprocessing"))
        preprocess = build_settings({"data": "synthetic", "preprocessing": preprocess}, {}).preprocessing

    def prepare(given: GivenImage) -> ReadyImage:
        if given.prepared is not None:
            return _prepared(given)
        channels = [_read(channel, given, orientation) for channel in given.channels]
        for channel in channels[1:]:
            if not same_grid(channel, channels[0]):
                raise ImageError(
                    given.path,
                    f"the channels of {given.participant_id} have different grids; resample them to one grid",
                )
        if isinstance(preprocess, PreprocessingConfig):
            return _by_settings(given, channels, preprocess, space)
        return _by_function(given, channels, preprocess)

    return prepare


def _read(image: Image, given: GivenImage, orientation: str | None) -> nib.Nifti1Image:
    if isinstance(image, str | Path):
        return load_img(Path(image).expanduser(), orientation)
    refuse_unknown_orientation(image, given.path)
    data = np.asanyarray(image.dataobj).astype(np.float32)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise ImageError(
            given.path, f"has shape {data.shape}: 3-D images are needed, several channels as a list of them"
        )
    return nib.Nifti1Image(data, image.affine)


def _prepared(given: GivenImage) -> ReadyImage:
    assert given.prepared is not None
    volume, grid = np.load(given.prepared[0]), get_grid(given.prepared[2])
    mask = np.load(given.prepared[1])
    return _ready(given, [volume], [nib.Nifti1Image(np.where(mask, volume, volume.min()), grid.affine)], grid)


def _by_settings(
    given: GivenImage, channels: list[nib.Nifti1Image], settings: PreprocessingConfig, space: str
) -> ReadyImage:
    if len(channels) > 1:
        raise ConfigError(
            "preprocess: the project's preprocessing prepares one T1-weighted image; give a function for "
            "several channels"
        )
    known = None if space == "T1w" else space
    ready = preprocess_t1w(channels[0], settings, space=known, path=given.path)
    grid, own = get_grid(settings.grid), _grid_of(channels[0])
    matrix = ready.mni_to_native

    def back(values: np.ndarray) -> np.ndarray:
        img = nib.Nifti1Image(values, grid.affine)
        return resample_to_grid(img, own) if matrix is None else in_native(img, matrix, own)

    return _ready(given, [ready.volume], channels, grid, back)


def _by_function(
    given: GivenImage, channels: list[nib.Nifti1Image], function: Callable[..., Any] | None
) -> ReadyImage:
    own = _grid_of(channels[0])
    if function is None:
        return _ready(given, [np.asanyarray(channel.dataobj) for channel in channels], channels, own)
    result = function(channels[0] if len(channels) == 1 else channels)
    parts = list(result) if isinstance(result, list | tuple) else [result]
    if all(isinstance(part, nib.Nifti1Image) for part in parts):
        grid = _grid_of(parts[0])
        if not all(same_grid(part, parts[0]) for part in parts):
            raise ConfigError(f"preprocess: the channels of {given.participant_id} have different grids")
        volumes = [np.asanyarray(part.dataobj, np.float32) for part in parts]
        same = same_grid(parts[0], own)
        back = None if same else lambda values: resample_to_grid(nib.Nifti1Image(values, grid.affine), own)
        return _ready(given, volumes, channels, grid, back)
    array = np.asarray(parts[0] if len(parts) == 1 else np.stack([np.asarray(part) for part in parts]))
    volumes = [array] if array.ndim == 3 else list(array) if array.ndim == 4 else []
    if not volumes or volumes[0].shape != own.shape:
        raise ConfigError(
            f"preprocess returned shape {array.shape} for {given.participant_id}, whose image has shape "
            f"{own.shape}: the position of its voxels is unknown; return a NIfTI image with its affine, or "
            "an array (X, Y, Z) or (C, X, Y, Z) on the grid of the image"
        )
    return _ready(given, volumes, channels, own)


def _grid_of(img: nib.Nifti1Image) -> Grid:
    x, y, z = img.shape[:3]
    return Grid("own", (x, y, z), img.affine)


def _ready(
    given: GivenImage,
    volumes: list[np.ndarray],
    images: Sequence[nib.Nifti1Image],
    grid: Grid,
    back: Callable[[np.ndarray], np.ndarray] | None = None,
) -> ReadyImage:
    volume = np.stack([np.asarray(each, np.float32) for each in volumes])
    if not np.isfinite(volume).all():
        raise ImageError(given.path, "its prepared volume holds NaN or infinite values; fill them first")
    x, y, z = grid.spacing_mm.tolist()
    shown = tuple(images) if len(images) == len(volumes) else (images[0],)
    return ReadyImage(
        given, torch.from_numpy(volume), (x, y, z), grid.affine, shown, back or (lambda values: values)
    )

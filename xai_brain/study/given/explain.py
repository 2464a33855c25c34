"""Explain a network that was trained elsewhere: images in, maps out."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from xai_brain.attribution.model_state import preserved
from xai_brain.attribution.network_outputs import AdaptedNetwork, SegmentationTarget
from xai_brain.config.setting import ConfigError
from xai_brain.parallel.threads import start_writing
from xai_brain.study.given.batches import PredictedBatch, inputs_of, prepared_batches
from xai_brain.study.given.built_methods import GivenMethods
from xai_brain.study.given.folder import GivenRun, method_record
from xai_brain.study.given.images import Preprocess, ReadyImage, given_images, preparation
from xai_brain.study.given.network_check import (
    checked_kind,
    output_names,
    warn_of_raw_intensities,
)
from xai_brain.study.given.randomized import Explanation, GivenNetworks
from xai_brain.study.given.reference import make_reference
from xai_brain.study.given.spaces import space_of
from xai_brain.study.given.targets import Target
from xai_brain.study.maps.maps import Maps
from xai_brain.study.methods import Method, foreign_packages, method_settings


def explain(
    network: nn.Module,
    images: Any,
    methods: Sequence[Method] | Mapping[str, Mapping[str, Any]],
    target: Target = "predicted",
    *,
    outputs: str | None = None,
    output: str | None = None,
    output_key: str | int | None = None,
    class_names: Sequence[str] | None = None,
    preprocess: Preprocess = None,
    reference: Any = None,
    fill: str | None = None,
    affine: np.ndarray | None = None,
    orientation: str | None = None,
    channel_names: Sequence[str] | None = None,
    participant_ids: Sequence[str] | None = None,
    space: str | None = None,
    batch_size: int = 8,
    folder: str | Path | None = None,
) -> Maps:
    """Explain the decisions of any network on any images.

    The network is used in evaluation mode, on its device and in its precision, and is left unchanged.

    Parameters
    ----------
    network : torch.nn.Module
        Receives volumes (N, C, X, Y, Z).
    images : sequence of images, ndarray or Cohort
        An image is a path, a NIfTI object, or for several channels a list of them. An array has the shape
        (N, X, Y, Z) or (N, C, X, Y, Z) and needs `affine`. The volumes of a prepared `Cohort` are used as
        they are; the files of one that is not prepared need a function as `preprocess`.
    methods : sequence of str, type or functools.partial
        As in `Study.explain`: ``"GradCAM"``, ``xai_brain.GradCAM``,
        ``partial(xai_brain.MeaningfulPerturbation, fill="blur")``. Also the settings of a run, a mapping of
        the name of each method to its settings.
    target : int, str, sequence of these or SegmentationTarget, default "predicted"
        Class or output that is explained, by its index or name: one for all images or one for each.
        ``predicted`` is the class that the network predicts for each image.
    outputs : {"classes", "probabilities", "one_logit", "labels", "numbers"}, optional
        Meaning of what the network returns: logits or probabilities of exclusive classes, the logit of class
        1 against class 0, the logits of labels that may occur together, or numbers such as an age. Default:
        classes or probabilities for a network that returns two values or more.
    output : str, optional
        What is explained: ``logit``, ``logit_difference``, ``probability`` or ``value``, as far as the
        outputs have it; default: that of each method.
    output_key : str or int, optional
        Part of a tuple, dictionary or dataclass that the network returns.
    class_names : sequence of str, optional
        Names of the outputs; default: their indices.
    preprocess : str, PreprocessingConfig, callable or None
        What happens to an image before the network: a name of ``conf/preprocessing``, such as ``t1w_2mm``
        (images in MNI152), settings, or a function of the NIfTI image (of a list of them for several
        channels) that returns NIfTI images, or an array on the grid of the image. None: voxels as they are.
    reference : Reference, Cohort or (images, labels), optional
        Images with labels, prepared in the same way, for methods that use a reference.
    fill : str, optional
        Replacement of tissue for methods with a ``fill``. Meaningful Perturbation needs it without a
        reference.
    affine : ndarray of shape (4, 4), optional
        Voxel to RAS+ mm, for arrays.
    orientation : str, optional
        Directions of the voxel axes, such as ``LAS``, for files that do not state them.
    channel_names : sequence of str, optional
        Default: ``channel1``, ...
    participant_ids : sequence of str, optional
        Default: the entity ``sub`` of the file names, else the names of the files.
    space : str, optional
        Space of the images: ``T1w`` for the space of each participant, or an MNI152 space. Default: the
        entity ``space`` of the file names, MNI152 for a `Cohort`, else ``T1w``.
    batch_size : int, default 8
        Volumes that are explained together.
    folder : str or Path, optional
        Where the maps are stored; default: a temporary folder, which is removed with the `Maps`.

    Returns
    -------
    Maps
        On the grid of each image (for a `Cohort`, on its grid). With several channels, the map of a method is
        the sum over the channels, and ``maps.img(..., channel="T1")`` is that of one.

    Raises
    ------
    ConfigError, ImageError, AttributionError
        One line that states what was expected and what to do.

    Examples
    --------
    >>> maps = explain(network, ["sub-01_T1w.nii.gz"], ["GradCAM"], target=1)  # doctest: +SKIP
    >>> maps.img("sub-01", "GradCAM")  # doctest: +SKIP
    """
    if not isinstance(network, nn.Module):
        raise ConfigError(f"network: a {type(network).__name__} is no torch.nn.Module")
    given = given_images(images, affine, participant_ids, preprocess)
    settings = method_settings(methods)
    space = space_of(given, space)
    prepare = preparation(preprocess, space, orientation)
    segmentation = target if isinstance(target, SegmentationTarget) else None
    adapted = AdaptedNetwork(network, output_key, segmentation)
    names = list(class_names or ())
    with preserved(adapted):
        of_training = make_reference(reference, prepare, names)
        first = prepare(given[0])
        warn_of_raw_intensities(first, preprocess)
        kind = checked_kind(adapted, first, outputs, segmentation)
        names = names or output_names(adapted, kind, first)
        built = GivenMethods(settings, adapted, kind, output, of_training, fill)
        channels = _channel_names(channel_names, first)
        with _folder(folder) as (path, keep):
            run = GivenRun(path, space, channels, given)
            rows: list[dict[str, Any]] = []
            size, start = 1 if segmentation else batch_size, time.monotonic()
            for batch in prepared_batches(given, prepare, size, "explain"):
                rows += _explain_batch(batch, built, target, names, run)
            seconds = (time.monotonic() - start) / len(given)
            run.finish(built.settings, pd.DataFrame(rows), sorted(foreign_packages(settings)))
            explanation = Explanation(built, given, prepare, target, names, size, seconds)
            return keep(Maps(path).with_reference(partial(GivenNetworks, explanation)))


@contextmanager
def _folder(given: str | Path | None) -> Iterator[tuple[Path, Callable[[Maps], Maps]]]:
    """The folder of the maps; a temporary one is removed with its maps, or after an error."""
    if given is not None:
        yield Path(given).expanduser(), lambda maps: maps
        return
    path = Path(tempfile.mkdtemp(prefix="xai_brain_"))
    kept = []

    def keep(maps: Maps) -> Maps:
        weakref.finalize(maps, shutil.rmtree, path, ignore_errors=True)
        kept.append(path)
        return maps

    try:
        yield path, keep
    finally:
        if not kept:
            shutil.rmtree(path, ignore_errors=True)


def _explain_batch(
    batch: list[ReadyImage], built: GivenMethods, target: Target, names: list[str], run: GivenRun
) -> list[dict[str, Any]]:
    """Write the images and maps of volumes of one shape; returns their rows of predictions.tsv."""
    adapted, kind, first = built.adapted, built.kind, len(run.images)
    if adapted.segmentation is not None:
        adapted.region = None
        with torch.no_grad():
            adapted.region = adapted.segmentation.region_of(adapted(inputs_of(adapted, batch)))
    predicted = PredictedBatch.of(batch, built, target, names, first)
    indices, values = predicted.indices, predicted.values
    run.images += [one.given for one in batch]
    waiting = [start_writing(run.write_image, batch)]
    for label in built.settings:
        found = predicted.maps(built, label)
        about = method_record(label, found.info, built.parameters(label), found.output)
        per_channel = found.info.per_channel
        about |= {"CheckpointSHA256": built.network_hash, "Network": type(adapted.network).__name__}

        def write(
            each: tuple[ReadyImage, torch.Tensor, Any, int, torch.Tensor],
            about: Any = about,
            per_channel: bool = per_channel,
        ) -> None:
            one, of_image, detail, index, value = each
            record = {"Target": index, "TargetName": names[index], **({"Details": detail} if detail else {})}
            if kind.has_classes:
                record["TargetProbability"] = float(value[index])
            run.write_maps(one, about["Method"], of_image, {**about, **record}, per_channel)

        waiting.append(
            start_writing(write, zip(batch, found.maps, found.details, indices.tolist(), values, strict=True))
        )
    for wait in waiting:
        wait()
    prefix = "prob_" if kind.has_classes else "value_"
    return [
        {
            "participant_id": one.given.participant_id,
            "session_id": one.given.session_id,
            "seed": 0,
            "target": one.given.target,
            **{f"{prefix}{name}": float(v) for name, v in zip(names, value, strict=True)},
        }
        for one, value in zip(batch, values, strict=True)
    ]


def _channel_names(given: Sequence[str] | None, first: ReadyImage) -> list[str]:
    n = len(first.volume)
    names = [f"channel{k}" for k in range(1, n + 1)] if given is None else [str(name) for name in given]
    if len(names) != n or len({*names}) != n or not all(n.isascii() and n.isalnum() for n in names):
        raise ConfigError(
            f"channel_names={names}: {n} different names of letters and digits are needed, one per channel"
        )
    return names

"""Reference volumes of a network that was trained elsewhere, from images with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from xai_brain.attribution.reference import Reference
from xai_brain.config.setting import ConfigError
from xai_brain.study.cohort import Cohort
from xai_brain.study.given.images import GivenImage, ReadyImage, given_images
from xai_brain.task.labels import class_named

N_KEPT = 64  # volumes that stay in memory, for methods that use single volumes


def make_reference(
    reference: Any, prepare: Callable[[GivenImage], ReadyImage], class_names: Sequence[str]
) -> Reference | None:
    """Statistics of reference images.

    Parameters
    ----------
    reference : Reference, Cohort, tuple of (images, labels) or None
        Labels are indices of the classes, or their names.
    prepare : function
        See `xai_brain.study.given.images.preparation`.
    class_names : sequence of str

    Raises
    ------
    ConfigError
        There are no labels, fewer than two classes, or the volumes have different grids.
    """
    if reference is None or isinstance(reference, Reference):
        return reference
    if isinstance(reference, Cohort):
        images = [one for one in given_images(reference) if one.target >= 0]
        targets = [one.target for one in images]
    else:
        if not (isinstance(reference, tuple) and len(reference) == 2):
            raise ConfigError("reference: a pair (images, labels) is needed, or a Cohort with labels")
        images = given_images(reference[0], participant_ids=_numbered(reference[0]))
        targets = [_index(label, class_names) for label in reference[1]]
        if len(targets) != len(images):
            raise ConfigError(f"reference: {len(targets)} labels for {len(images)} images")
    if len(set(targets)) < 2 or set(targets) != set(range(max(targets) + 1)):
        raise ConfigError(
            f"reference: images of every class are needed; there are images of {sorted(set(targets))}"
        )
    return _statistics([(prepare(image), target) for image, target in zip(images, targets, strict=True)])


def _numbered(images: Any) -> list[str] | None:
    """Reference images need no names of their own."""
    return [f"sub-{n:04d}" for n in range(1, len(images) + 1)] if hasattr(images, "__len__") else None


def _index(label: Any, class_names: Sequence[str]) -> int:
    if isinstance(label, str):
        named = class_named(label, class_names)
        if named not in class_names:
            known = f" (now {', '.join(class_names)})" if class_names else ""
            raise ConfigError(
                f"reference: there is no class {label!r}; give the names of all classes, class_names=[...]"
                f"{known}, or their numbers"
            )
        return list(class_names).index(named)
    return int(label)


def _statistics(ready: list[tuple[ReadyImage, int]]) -> Reference:
    first = ready[0][0]
    shapes = {tuple(one.volume.shape) for one, _ in ready}
    if len(shapes) > 1 or len({one.voxel_size_mm for one, _ in ready}) > 1:
        raise ConfigError(
            f"reference: its volumes have different shapes ({', '.join(map(str, sorted(shapes)))}) or voxel "
            "sizes; give preprocess= so that all are on one grid"
        )
    targets = torch.tensor([target for _, target in ready])
    volumes = torch.stack([one.volume for one, _ in ready])
    classes = [volumes[targets == k].double() for k in range(int(targets.max()) + 1)]
    kept = np.linspace(0, len(ready) - 1, min(len(ready), N_KEPT)).round().astype(int)
    return Reference(
        class_means=torch.stack([each.mean(0) for each in classes]).float(),
        volumes=volumes[kept],
        targets=targets[kept],
        brain_mask=(volumes != 0).flatten(0, 1).any(0),
        voxel_size_mm=first.voxel_size_mm,
        class_variances=torch.stack([each.var(0, correction=int(len(each) > 1)) for each in classes]).float(),
        class_counts=torch.tensor([len(each) for each in classes]),
    )

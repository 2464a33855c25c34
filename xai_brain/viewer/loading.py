"""Reading the images of an entry. Images that cannot be read result in messages, not in exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.io.nifti import Grid, ImageError, load_img, resample_to_grid, same_grid
from xai_brain.io.nifti_header import refuse_unknown_orientation
from xai_brain.viewer.catalogue import Image, Images, RunCatalogue
from xai_brain.viewer.layers import Layer, brain_of
from xai_brain.viewer.scene import Scene

N_FOR_COMMON = 12  # participants whose limits determine the common scale


def load_scene(
    images: Images, labels_img: nib.Nifti1Image | None = None, lut: pd.DataFrame | None = None
) -> Scene | list[str]:
    """Read the images of one entry; images that cannot be read result in messages.

    Returns
    -------
    Scene, or list of str (messages) if there is nothing to show
    """
    messages: list[str] = []
    read_one = partial(_read, orientation=images.orientation)
    with ThreadPoolExecutor(4) as pool:  # decompression releases the lock of Python
        behind = [pool.submit(read_one, image, "background") for image in images.background]
        waiting = {name: pool.submit(read_one, image, name) for name, image in images.maps.items()}
        truth_read = pool.submit(read_one, images.truth, "truth") if images.truth is not None else None
    backgrounds = [read for future in behind if not isinstance(read := future.result(), str)]
    messages += [text for future in behind if isinstance(text := future.result(), str)][:1]
    maps: dict[str, nib.Nifti1Image] = {}
    for name, future in waiting.items():
        read = future.result()
        if isinstance(read, str):
            messages.append(read)
        else:
            maps[name] = read
    if not backgrounds:
        if not maps:
            return messages or ["there is nothing to show"]
        first = next(iter(maps.values()))
        backgrounds = [nib.Nifti1Image(np.zeros(first.shape, np.float32), first.affine)]
        messages.append("there is no background image: maps are shown on black")
    original = _mean(backgrounds)
    background = nib.as_closest_canonical(original)
    brain = brain_of(np.asanyarray(background.dataobj))
    if (tilt := float(np.rad2deg(nib.affines.obliquity(background.affine).max()))) > 1:
        messages.append(f"the image is tilted by {tilt:.0f}°: planes follow its voxels, mm are true")
    with ThreadPoolExecutor(4) as pool:
        read_maps = partial(_layer, background=background, brain=brain, corrected=images.corrected)
        made = list(pool.map(lambda name: read_maps(name, maps[name]), maps))
    messages += [text for _, text in made if text]
    truth = None
    if truth_read is not None:
        read = truth_read.result()
        if isinstance(read, str):
            messages.append(read)
        else:
            data = np.nan_to_num(_on_grid(read, background))
            truth = data > data.max(initial=0) / 2
    labels = None
    if labels_img is not None:
        labels = np.rint(np.nan_to_num(_on_grid(labels_img, background))).astype(np.int32)
    regions = {} if lut is None else {int(i): str(n) for i, n in zip(lut["index"], lut["name"], strict=True)}
    layers = {layer.name: layer for layer, _ in made}
    return Scene(
        images.title,
        background,
        original,
        layers,
        truth,
        labels,
        regions,
        messages,
        explained=images.explained,
        sidecars=images.sidecars,
    )


def common_limits(catalogue: RunCatalogue, channel: str = "") -> dict[str, float]:
    """Median over some participants of the limit of the colour scale, by method; of one channel or of all."""
    subjects = [entry for entry in catalogue.entries if not entry.group]
    step = max(len(subjects) // N_FOR_COMMON, 1)
    found: dict[str, list[float]] = {}
    for entry in subjects[::step][:N_FOR_COMMON]:
        scene = load_scene(catalogue.images_of(entry, channel))
        for layer in scene.layers.values() if isinstance(scene, Scene) else ():
            found.setdefault(layer.name, []).append(layer.limit)
    return {name: float(np.median(limits)) for name, limits in found.items()}


def _read(image: Image, name: str, orientation: str | None = None) -> nib.Nifti1Image | str:
    """A 3-D image, or the reason why it cannot be read."""
    try:
        if isinstance(image, str | Path):
            return load_img(image, orientation)
        refuse_unknown_orientation(image, name)
        data = np.asanyarray(image.dataobj).astype(np.float32)
        while data.ndim > 3 and data.shape[-1] == 1:
            data = data[..., 0]
        if data.ndim != 3:
            return f"{name}: has shape {data.shape}; a single 3-D volume is needed"
        return nib.Nifti1Image(data, image.affine)
    except ImageError as error:
        where = "" if error.path == name else f"{Path(error.path).name}: "
        return f"{name}: {where}{error.reason}"
    except Exception as error:  # image objects of other packages can raise any error
        return f"{name}: cannot be read ({type(error).__name__}: {error})"


def _mean(images: list[nib.Nifti1Image]) -> nib.Nifti1Image:
    alike = [img for img in images if same_grid(img, images[0])]
    return nib.Nifti1Image(
        np.mean([np.asanyarray(img.dataobj) for img in alike], axis=0, dtype=np.float32), images[0].affine
    )


def _on_grid(img: nib.Nifti1Image, background: nib.Nifti1Image) -> np.ndarray:
    """Values at the voxels of the background: unchanged on the same grid, otherwise nearest neighbours."""
    canonical = nib.as_closest_canonical(img)
    if same_grid(canonical, background):
        return np.asanyarray(canonical.dataobj)
    x, y, z = background.shape
    return resample_to_grid(img, Grid("shown", (x, y, z), background.affine), order=0)


def _layer(
    name: str,
    img: nib.Nifti1Image,
    background: nib.Nifti1Image,
    brain: np.ndarray,
    corrected: Mapping[str, float],
) -> tuple[Layer, str]:
    message = ""
    if not same_grid(nib.as_closest_canonical(img), background):
        message = f"{name}: is on another grid than the image; drawn at the nearest voxels, read from its own"
    shown = _on_grid(img, background)
    if n_bad := int((~np.isfinite(np.asanyarray(img.dataobj))).sum()):
        message = f"{name}: {n_bad} voxels hold no number"
        shown = np.nan_to_num(shown, posinf=0, neginf=0)
    layer = Layer(name, img, shown, np.sort(np.abs(shown[brain])), corrected.get(name))
    if layer.maximum == 0:
        outside = np.nan_to_num(np.asanyarray(img.dataobj)).any()
        message = f"{name}: lies outside of the image" if outside else f"{name}: the map is empty"
    return layer, message

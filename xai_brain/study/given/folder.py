"""Folder of the maps of `xai_brain.explain`: a run directory without training."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch

from xai_brain.attribution.protocol import MethodInfo
from xai_brain.config.build import build_settings
from xai_brain.config.saved import settings_text, settings_to_save
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash, write_atomic
from xai_brain.io.nifti import save_img
from xai_brain.parallel.progress import log
from xai_brain.runs.derivatives import bids_uri, map_record, write_map_datasets
from xai_brain.runs.directory import RunDirectory, of_channel, sidecar, write_json, write_tsv
from xai_brain.runs.provenance import provenance, versions
from xai_brain.study.given.images import GivenImage, ReadyImage
from xai_brain.study.run_images import scale_to_uint8

SOURCES = "images"  # name of the folder of the given images in BIDS URIs


class GivenRun:
    """The folder that `xai_brain.explain` writes.

    Parameters
    ----------
    folder : Path
        Empty, or not there.
    space : str
        Space of the images, part of file names.
    channel_names : sequence of str
        Of the inputs; with several, there is one map for each and their sum.
    images : sequence of GivenImage
        All images, whose files the sidecars of the maps name.
    """

    def __init__(self, folder: Path, space: str, channel_names: Sequence[str], images: Sequence[GivenImage]):
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"folder={folder}: is not empty; give another folder")
        self.run = RunDirectory(folder)
        self.run.__dict__["_space"] = space
        self.space, self.channel_names = space, list(channel_names)
        files = [file for image in images for file in image.files]
        self.source_folder = Path(os.path.commonpath([file.parent for file in files])) if files else None
        self.images: list[GivenImage] = []
        self.empty: list[str] = []  # methods, once for every map that is 0 everywhere

    def write_image(self, ready: ReadyImage) -> None:
        """Write the image of each channel for display, uint8, on the grid of its maps."""
        ids = (ready.given.participant_id, ready.given.session_id)
        for k, img in enumerate(ready.shown):
            path = self.run.channel_image(*ids, self.channel_names[k]) if k else self.run.image(*ids)
            self._write_image(img, path)

    def _write_image(self, img: nib.Nifti1Image, path: Path) -> None:
        data = np.asanyarray(img.dataobj, np.float32)
        data = np.nan_to_num(data, posinf=0, neginf=0)
        background = np.median(np.concatenate([data[[0, -1]].ravel(), data[:, [0, -1]].ravel()]))
        inside = data != background
        if not inside.any():
            inside[:] = True
        save_img(scale_to_uint8(data, inside), img.affine, path, space=self.space)

    def write_maps(
        self,
        ready: ReadyImage,
        label: str,
        maps: torch.Tensor,
        about: Mapping[str, Any],
        per_channel: bool,
    ) -> None:
        """Write the map of a method, on the grid of the image; of several channels the sum and one each.

        Parameters
        ----------
        ready : ReadyImage
        label : str
            Name of the method.
        maps : Tensor of shape (C, X, Y, Z)
        about : mapping
            Content of the sidecar.
        per_channel : bool
            Whether the channels have maps of their own, see `MethodInfo`; if not, and if all are equal, this
            one map is written.
        """
        values, own = map_of_channels(maps, per_channel)
        named = {label: values}
        channels = {label: self.channel_names}
        if own:
            for channel, part in zip(self.channel_names, maps, strict=True):
                named[of_channel(label, channel)] = part
                channels[of_channel(label, channel)] = [channel]
        for name, values in named.items():
            ids = (ready.given.participant_id, ready.given.session_id)
            path = self.run.attribution(*ids, name, 0)
            on_own_grid = ready.to_own_grid(values.numpy()).astype(np.float32)
            save_img(on_own_grid, ready.shown[0].affine, path, space=self.space)
            is_empty = not on_own_grid.any()
            if is_empty and name == label:
                self.empty.append(label)
            is_sum = {"ValueMeaning": f"sum over channels; of each: {about['ValueMeaning']}"}
            description = f"Attribution map of {about['TargetName']} by {name}"
            record = {
                **map_record(self.space, self._sources(ready.given), description),
                **about,
                **(is_sum if own and name == label else {}),
                "ParticipantId": ready.given.participant_id,
                "MapSHA256": file_hash(path),
                "InputSHA256": ready.given.source_hash,
                "Channels": channels[name],
                "ChannelMaps": self.channel_names if own and name == label else [],
                "Empty": is_empty,
                "Versions": versions(),
            }
            write_json(record, sidecar(path))

    def _sources(self, image: GivenImage) -> list[str]:
        """BIDS URIs of the files of an image; none for an image in memory."""
        if self.source_folder is None:
            return []
        return [bids_uri(SOURCES, file.relative_to(self.source_folder)) for file in image.files]

    def finish(
        self, methods: Mapping[str, Any], predictions: pd.DataFrame, trusted_modules: Sequence[str]
    ) -> None:
        """Write the tables and settings, after which the folder can be opened."""
        for label, n in Counter(self.empty).items():
            log(
                f"explain: {n} of {len(self.images)} maps of {label} are empty (0 everywhere): no "
                "replacement changes the output, or it has no gradient, as a probability of nearly 1; "
                "explain another output, such as logit_difference, or give another fill or reference images"
            )
        rows = [
            {
                "participant_id": image.participant_id,
                "session_id": image.session_id,
                "label": image.label,
                "target": image.target,
                "t1w_path": image.path,
                **{f"channel{k}_path": str(file) for k, file in enumerate(image.files[1:], 2)},
                "sha256": image.source_hash,
            }
            for image in self.images
        ]
        write_tsv(pd.DataFrame(rows), self.run.participants)
        write_tsv(predictions, self.run.predictions)
        write_map_datasets(self.run, {SOURCES: self.source_folder} if self.source_folder else {})
        values = {"attribution": dict(methods), "trusted_modules": list(trusted_modules)}
        values["data.root"] = str(self.run.path / "images")
        config = build_settings({"data": "table"}, {**values, "run_dir": str(self.run.path)})
        inputs = {image.path: image.source_hash for image in self.images}
        tables = {self.run.participants.name: file_hash(self.run.participants)}
        write_json({**provenance([0], inputs), "tables_sha256": tables}, self.run.provenance)
        text = settings_text(settings_to_save(config))
        write_atomic(self.run.config, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def map_of_channels(maps: torch.Tensor, per_channel: bool) -> tuple[torch.Tensor, bool]:
    """The map of a method, (X, Y, Z), from its maps (C, X, Y, Z), and whether it is a sum over channels."""
    own = len(maps) > 1 and (per_channel or any(not torch.equal(part, maps[0]) for part in maps))
    return maps.sum(0) if own else maps[0], own


def method_record(label: str, info: MethodInfo, parameters: Mapping[str, Any], output: str) -> dict[str, Any]:
    """Fields of the sidecar of a map that describe its method."""
    return {
        "Method": label,
        "Kind": "baseline" if info.is_baseline else "method",
        "Parameters": dict(parameters),
        "Output": output,
        "ValueMeaning": info.value_meaning,
        "MultipliesByInputs": info.multiplies_by_inputs,
        "Citation": info.citation,
    }

"""Masks of one method and network, and the files of their validation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.io.nifti import load_img
from xai_brain.metrics.masks import mask_smoothness, random_mask, top_k_mask, voxels_of
from xai_brain.runs.directory import RunDirectory, read_tsv
from xai_brain.runs.manifest import is_up_to_date
from xai_brain.runs.seeds import network_name
from xai_brain.study.evaluation.regions import atlas_files
from xai_brain.study.participants import class_names
from xai_brain.study.training.networks import Network

JOINT = "joint"
KEPT = ("mask", "complement")


@dataclass(frozen=True)
class Masked:
    """One mask."""

    mask: str  # joint, or the name of a class
    area_percent: float
    control: str  # map, random or regions
    draw: int  # number of the random mask, else 0
    voxels: np.ndarray  # (X, Y, Z) bool

    def kept_voxels(self, kept: str) -> np.ndarray:
        """Voxels that are not replaced, (X, Y, Z) bool."""
        return self.voxels if kept == "mask" else ~self.voxels

    def table(
        self, images: pd.DataFrame, kept: str, predicted: pd.DataFrame, retrained: bool
    ) -> pd.DataFrame:
        """Rows of mask_predictions.tsv: images with their predictions."""
        about = {"mask": self.mask, "area_percent": self.area_percent, "kept": kept}
        about |= {"control": self.control, "retrained": retrained, "draw": self.draw}
        columns = ["participant_id", "session_id", "seed", "fold", "target"]
        return pd.concat([images[columns].assign(**about).reset_index(drop=True), predicted], axis=1)


@dataclass(frozen=True)
class MaskUnit:
    """A method and the network of one fold and seed.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    network : Network
    label : str
        Method.
    """

    config: Config
    run: RunDirectory
    network: Network
    label: str

    @property
    def path(self) -> Path:
        """Table of the predictions for all masked images; its manifest has the suffix .json."""
        name = f"desc-{self.label}_{network_name(self.network.seed, self.network.fold)}.tsv"
        return self.run.path / "evaluation" / "masks" / name

    @property
    def record(self) -> Path:
        return self.path.with_suffix(".json")

    def order(self, mask: str, control: str = "map") -> Path:
        """Image of the rank of each voxel in a map: 1 for the highest value."""
        what = mask if control == "map" else f"{mask}-{control}"
        return self.path.with_name(f"{self.path.stem}_mask-{what}_place.nii.gz")

    @property
    def inputs_hash(self) -> str:
        """Hash that changes with the network, the method or the settings of the masks."""
        other = ("in_run", "methods", "retrain")
        masks = {
            key: value for key, value in asdict(self.config.evaluation.masks).items() if key not in other
        }
        explain = {
            key: getattr(self.config.explain, key) for key in ("target", "output", "n_reference_volumes")
        }
        parts = [self.network.sha256, str(masks), str(explain), str(self.config.evaluation.random_state)]
        parts += [str(self.config.attribution[self.label])]
        parts += [str(self.config.evaluation.atlas), str(atlas_files(self.config))]
        return sha256(" ".join(parts).encode()).hexdigest()

    def is_done(self) -> bool:
        """Whether the files exist and were made with this network and these settings."""
        return self.path.exists() and is_up_to_date(self.record, self.inputs_hash)

    def orders(self) -> dict[tuple[str, str], np.ndarray]:
        """The saved ranks by mask and control; none if all maps were empty."""
        names = class_names(read_tsv(self.run.participants))
        paths = {(mask, "map"): self.order(mask) for mask in (JOINT, *names)}
        paths[JOINT, "regions"] = self.order(JOINT, "regions")
        return {key: np.asanyarray(load_img(path).dataobj) for key, path in paths.items() if path.exists()}

    def masks(self) -> list[Masked]:
        """Masks of all areas, and their controls; random ones are as smooth as the joint mask."""
        settings, network = self.config.evaluation.masks, self.network
        if not (orders := self.orders()):
            return []
        brain = orders[JOINT, "map"] > 0
        found = []
        for number, area in enumerate(settings.areas):
            n_voxels = voxels_of(area, brain)
            for (mask, control), order in orders.items():
                if (
                    mask in (settings.which or [mask]) and n_voxels <= order.max()
                ):  # else the regions are exhausted
                    found.append(Masked(mask, area, control, 0, top_k_mask(order, n_voxels)))
            sigma = mask_smoothness(top_k_mask(orders[JOINT, "map"], n_voxels), brain)
            for draw in range(settings.n_random):
                seed = [self.config.evaluation.random_state, network.seed, network.fold, number, draw]
                found.append(Masked(JOINT, area, "random", draw, random_mask(brain, n_voxels, sigma, seed)))
        return found

    def retraining_jobs(self) -> list[tuple[Masked, str, Path]]:
        """Masks, the part that is kept, and the file of predictions of the network retrained on it.

        Only the first random mask of each area is used; each fold has another one. Files are named by
        content, so that no network is trained twice for the same mask.
        """
        found = []
        about = f"{self.network.sha256} {self.config.evaluation.masks.removal} "
        for masked in self.masks():
            for kept in KEPT if masked.draw == 0 else ():
                content = about.encode() + np.packbits(masked.kept_voxels(kept)).tobytes()
                name = f"{sha256(content).hexdigest()[:24]}.tsv"
                found.append((masked, kept, self.path.parent / "retrained" / name))
        return found

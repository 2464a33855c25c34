"""An effect that is planted into the volumes of a cohort: its regions, its size, and the changed volumes."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.planted_effect import PlantedEffect, PlantedError, difference_of_means
from xai_brain.data.planted.changes import Deformation, SoftRegion, soft_region
from xai_brain.data.planted.lesions import lesion_shares
from xai_brain.data.planted.placement import Place, place_of, sphere, world_mm
from xai_brain.data.planted.smooth_fields import smooth_fields
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import Grid

ALGORITHM = 1  # to be increased when the same settings give other images
SITE_MM = 70.0  # distance of the control points of the fields of a site
PLACES = ("mask_img", "labels_img", "table", "region", "further_centers_mm")  # identified by their depths
DRAWN = ["target", "strength", "distractor", "confound", "site", "seed"]


class Planting:
    """Quantities that are the same for all participants of a cohort."""

    def __init__(self, settings: PlantedEffect, grid: Grid, cohort: pd.DataFrame, draws: pd.DataFrame):
        self.settings, self.grid, self.draws = settings, grid, draws
        further = [sphere(center, settings.radius_mm) for center in settings.further_centers_mm]
        self.places = [place_of(settings), *further]
        self.n_places = len(self.places)  # of the effect; those of distractor and confound follow
        if settings.distractor_center_mm is not None:
            radius = self.places[0].equivalent_radius_mm
            self.places.append(sphere(settings.distractor_center_mm, radius))
        make = self._deformation if settings.deforms else self._region
        self.effects = [make(place) for place in self.places]
        self.confound: SoftRegion | None = None
        if settings.confound_center_mm is not None:
            confound_place = sphere(settings.confound_center_mm, settings.confound_radius_mm)
            self.places.append(confound_place)
            self.confound = soft_region(confound_place, grid, None)
        self.site_fields = self._site_fields()
        self._check_zones()
        self._estimate(cohort)
        self.inputs = self._inputs()

    def _deformation(self, place: Place) -> Deformation:
        return Deformation(place, self.grid, self.settings)

    def _region(self, place: Place) -> SoftRegion:
        return soft_region(place, self.grid, self.settings.edge_mm)

    def _site_fields(self) -> list[np.ndarray]:
        """A factor and an offset per site, (2, X, Y, Z) of unit variance."""
        n_sites, seed = self.settings.n_sites, self.settings.random_state
        if n_sites == 1:
            return []
        rngs = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(k,))) for k in range(n_sites)]
        return [smooth_fields(rng, self.grid, SITE_MM, 2) for rng in rngs]

    def _check_zones(self) -> None:
        names = ["center_mm, the effect"] + ["further_centers_mm"] * (self.n_places - 1)
        names += ["distractor_center_mm"] if len(self.effects) > self.n_places else []
        names += ["confound_center_mm"] if self.confound else []
        zones = [effect.zone for effect in self.effects] + ([self.confound.zone] if self.confound else [])
        for name, zone in zip(names, zones, strict=True):
            if not zone.any():
                raise PlantedError(f"planted.{name}: lies outside the grid of the prepared volumes")
        for k, (name, zone) in enumerate(zip(names, zones, strict=True)):
            if any((zone & other).any() for other in zones[: min(k, self.n_places)]):
                raise PlantedError(f"planted.{name}: overlaps the effect with its edges; move it away")

    def _estimate(self, cohort: pd.DataFrame) -> None:
        """Mean changes for the requested effect sizes, from the variation of the region means."""
        settings = self.settings
        self.deltas = [settings.size] * len(self.effects)
        self.confound_sd = self.suppression_sd = 0.0
        regions = [effect for effect in self.effects if isinstance(effect, SoftRegion) and settings.by_d]
        regions += [self.confound] if self.confound else []
        if settings.suppression and not settings.by_d:
            assert isinstance(self.effects[0], SoftRegion)
            regions.insert(0, self.effects[0])
        if not regions:
            return
        means = []
        for row in cohort.to_dict("records"):
            volume, brain_mask = self._source(row)
            self._require_brain(row, brain_mask)
            means.append([region.mean(volume, brain_mask) for region in regions])
        by_participant = pd.DataFrame(means).groupby(cohort["participant_id"].to_numpy()).mean()
        sds = by_participant.std(ddof=1).to_numpy(copy=True)
        if not (sds > 0).all():
            raise PlantedError(
                "planted.size: the mean of the region is the same in all participants and d is not defined; "
                "use planted.absolute=true"
            )
        if self.confound:
            self.confound_sd = float(settings.confound_size * sds[-1])
        if settings.suppression:
            self.suppression_sd = float(settings.suppression * sds[0])
            by_participant[0] += self.suppression_sd * self.draws["confound"].loc[by_participant.index]
            sds[0] = by_participant[0].std(ddof=1)
        if settings.by_d:
            self.deltas = [
                difference_of_means(settings.size, float(sd), settings.variation)
                for sd in sds[: len(self.effects)]
            ]

    def _inputs(self) -> dict[str, Any]:
        """Values on which the planted volumes depend, in addition to source and random values."""
        world = world_mm(self.grid)
        depths = [sha256(place.depth_mm(world).tobytes()).hexdigest() for place in self.places]
        settings = {name: value for name, value in asdict(self.settings).items() if name not in PLACES}
        found = {"deltas": self.deltas, "confound": self.confound_sd, "suppression": self.suppression_sd}
        return {"algorithm": ALGORITHM, "depths": depths, "settings": settings, **found}

    def key(self, row: dict[str, Any]) -> str:
        """Name of the planted volume of a row in the cache."""
        drawn = self.draws.loc[row["participant_id"], DRAWN].to_dict()
        sources = [file_hash(row["volume_path"]), file_hash(row["volume_mask_path"])]
        text = json.dumps([self.inputs, sources, drawn], sort_keys=True)
        return sha256(text.encode()).hexdigest()[:32]

    def planted(self, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Planted volume (float32) and mask of the effect (bool) of a row."""
        volume, brain_mask = self._source(row)
        self._require_brain(row, brain_mask)
        drawn = self.draws.loc[row["participant_id"]]
        if self.confound and self.confound_sd:
            volume = self.confound.changed(volume, brain_mask, self.confound_sd * drawn["confound"])
        if self.suppression_sd:
            region = self.effects[0]
            assert isinstance(region, SoftRegion)
            volume = region.changed(volume, brain_mask, self.suppression_sd * drawn["confound"])
        truth = np.logical_or.reduce([effect.zone for effect in self.effects[: self.n_places]]) & brain_mask
        found = np.zeros_like(truth)
        for k, effect in enumerate(self.effects):
            strength = drawn["strength" if k < self.n_places else "distractor"]
            if not strength:
                continue
            if isinstance(effect, Deformation):
                volume = effect.changed(volume, brain_mask, strength, self.settings.size)
            elif self.settings.kind == "intensity":
                volume = effect.changed(volume, brain_mask, self.deltas[k] * strength)
            else:
                volume, lesions = self._with_lesions(volume, brain_mask, k, strength, int(drawn["seed"]))
                found |= lesions & (k < self.n_places)
        return volume.astype(np.float32), found if found.any() else truth

    def _with_lesions(
        self, volume: np.ndarray, brain_mask: np.ndarray, k: int, strength: float, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        settings = self.settings
        shares = lesion_shares(
            self.places[k],
            self.grid,
            self.effects[k].zone & brain_mask,
            settings.lesion_volume_ml * strength,
            settings.lesion_count,
            settings.lesion_compactness,
            np.random.default_rng([seed, k]),
        )
        unit = 1.0 if settings.absolute else float(volume[brain_mask].std(dtype=np.float64))
        return volume + settings.size * unit * shares, shares > 0

    def _source(self, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The prepared volume with the effect of its site, float64, and its brain mask."""
        volume, brain_mask = np.load(row["volume_path"]).astype(np.float64), np.load(row["volume_mask_path"])
        if volume.shape != self.grid.shape:
            raise PlantedError(
                f"{row['volume_path']}: has the shape {volume.shape}, the grid {self.grid.name} has "
                f"{self.grid.shape}; give the grid of the prepared volumes"
            )
        if self.site_fields:
            factor, offset = self.site_fields[int(self.draws.at[row["participant_id"], "site"])]
            sd = volume[brain_mask].std()
            changed = volume * (1 + self.settings.site_gain_sd * factor)
            changed += self.settings.site_offset_sd * sd * offset
            volume = np.where(brain_mask, changed, volume)
        return volume, brain_mask

    def _require_brain(self, row: dict[str, Any], brain_mask: np.ndarray) -> None:
        zones = [effect.zone for effect in self.effects] + ([self.confound.zone] if self.confound else [])
        if not all((zone & brain_mask).any() for zone in zones):
            raise PlantedError(
                f"planted: the location lies outside the brain of {row['participant_id']} "
                f"({row['t1w_path']}); move it, or exclude the participant"
            )

"""Planting an effect at a known location into the prepared images of any cohort.

    cohort = prepare_cohort(load_participants("bids", root), PreprocessingConfig())
    cohort = plant(cohort, PlantedEffect("atrophy", size=20, center_mm=[-28, -20, -16]), grid)

Classes are random and independent of all other properties of the participants; one of them has the effect.
The classes therefore differ only at the effect, or at distractors, confounds and sites that were also
planted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.planted_effect import PlantedEffect, PlantedError, check_planted, difference_of_means
from xai_brain.data.cache import default_cache_dir, locks
from xai_brain.data.planted.changes import Deformation, SoftRegion, soft_region
from xai_brain.data.planted.draws import CLASS_NAMES, draw
from xai_brain.data.planted.lesions import lesion_shares
from xai_brain.data.planted.placement import Place, place_of, sphere, world_mm
from xai_brain.data.planted.smooth_fields import smooth_fields
from xai_brain.io.atomic import file_hash, remove_partial_files, write_atomic
from xai_brain.io.nifti import Grid, save_img
from xai_brain.parallel.locks import run_shared

ALGORITHM = 1  # to be increased when the same settings give other images
SITE_MM = 70.0  # distance of the control points of the fields of a site
PATHS = ("mask_img", "labels_img", "table", "region")  # identified by their region
DRAWN = ["target", "strength", "distractor", "confound", "site", "seed"]


def plant(
    cohort: pd.DataFrame,
    settings: PlantedEffect,
    grid: Grid,
    *,
    cache_dir: str | Path | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> pd.DataFrame:
    """Assign random classes to a prepared cohort and plant an effect into one of them.

    Parameters
    ----------
    cohort : pandas.DataFrame
        From `prepare_cohort`, one row per image. All images of a participant get the same draws.
    settings : PlantedEffect
    grid : Grid
        Grid of the prepared volumes.
    cache_dir : str or Path, optional
        Default: ``$XAI_BRAIN_CACHE``, else ``~/.cache/xai_brain``; planted volumes are stored in ``planted``.
        Existing volumes are not computed again.
    progress : function that wraps an iterable
        It receives only images that are not in the cache.

    Returns
    -------
    pandas.DataFrame
        The cohort with ``volume_path`` of the planted volume (0 outside the brain mask, unchanged outside the
        truth unless a distractor, a confound or sites are planted), ``truth_path`` of a NIfTI mask of the
        true location (for lesions that of the participant, or the region in the class without lesions),
        ``label`` and ``target`` (0 without, 1 with effect), ``sha256`` extended by the effect,
        ``source_volume_path``, ``planted_strength`` and, if planted, ``planted_distractor``,
        ``planted_confound`` and ``site``.

    Raises
    ------
    PlantedError
        The effect cannot be planted into this cohort.

    Notes
    -----
    Intensity: the mean of the region changes by delta times the strength of the participant. Delta is
    computed from d and the standard deviation of the mean of the region over all participants, so that d is a
    population value; in a sample of n participants, random differences change the measured d by about 2 /
    sqrt(n).
    """
    check_planted(settings)
    if settings.kind is None:
        raise PlantedError(
            "planted.kind: no effect is chosen; set it to atrophy, expansion, intensity or lesion"
        )
    draws = draw(cohort["participant_id"], settings)
    planting = _Planting(settings, grid, cohort, draws)
    folder = (Path(cache_dir).expanduser() if cache_dir else default_cache_dir()) / "planted"
    rows = cohort.to_dict("records")
    keys = [planting.key(row) for row in rows]
    paths = [(folder / f"{key}_volume.npy", folder / f"{key}_truth.nii.gz") for key in keys]
    missing = [i for i, (volume, truth) in enumerate(paths) if not (volume.exists() and truth.exists())]

    def make(i: int) -> None:
        volume, truth = planting.planted(rows[i])
        save_img(truth, grid.affine, paths[i][1])
        _save_volume(volume, paths[i][0])

    if missing:
        remove_partial_files(folder)
    units = {keys[i]: i for i in missing}
    run_shared(
        locks(folder.parent),
        units,
        done=lambda i: paths[i][0].exists() and paths[i][1].exists(),
        do=make,
        progress=progress,
    )

    own = draws.loc[cohort["participant_id"]].reset_index(drop=True)
    table = cohort.reset_index(drop=True)
    table["source_volume_path"] = table["volume_path"]
    table["volume_path"] = [str(volume) for volume, _ in paths]
    table["truth_path"] = [str(truth) for _, truth in paths]
    table["sha256"] = [f"{content}+{key}" for content, key in zip(table["sha256"], keys, strict=True)]
    table["target"] = own["target"]
    table["label"] = [CLASS_NAMES[target] for target in own["target"]]
    table["planted_strength"] = own["strength"].round(4)
    if settings.distractor_center_mm is not None:
        table["planted_distractor"] = own["distractor"].round(4)
    if settings.confound_center_mm is not None:
        table["planted_confound"] = own["confound"].round(4)
    if settings.n_sites > 1:
        table["site"] = [f"site-{site + 1}" for site in own["site"]]
    return table


def _save_volume(volume: np.ndarray, path: Path) -> None:
    write_atomic(path, lambda temporary: np.save(temporary, volume))


class _Planting:
    """Quantities that are the same for all participants of a cohort."""

    def __init__(self, settings: PlantedEffect, grid: Grid, cohort: pd.DataFrame, draws: pd.DataFrame):
        self.settings, self.grid, self.draws = settings, grid, draws
        self.places = [place_of(settings)]
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
        names = ["center_mm, the effect"]
        names += ["distractor_center_mm"] if len(self.effects) > 1 else []
        names += ["confound_center_mm"] if self.confound else []
        zones = [effect.zone for effect in self.effects] + ([self.confound.zone] if self.confound else [])
        for name, zone in zip(names, zones, strict=True):
            if not zone.any():
                raise PlantedError(f"planted.{name}: lies outside the grid of the prepared volumes")
        for name, zone in zip(names[1:], zones[1:], strict=True):
            if (zone & zones[0]).any():
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
        settings = {name: value for name, value in asdict(self.settings).items() if name not in PATHS}
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
        truth = self.effects[0].zone & brain_mask
        for k, strength in enumerate([drawn["strength"], drawn["distractor"]][: len(self.effects)]):
            if not strength:
                continue
            effect = self.effects[k]
            if isinstance(effect, Deformation):
                volume = effect.changed(volume, brain_mask, strength, self.settings.size)
            elif self.settings.kind == "intensity":
                volume = effect.changed(volume, brain_mask, self.deltas[k] * strength)
            else:
                volume, lesions = self._with_lesions(volume, brain_mask, k, drawn)
                truth = lesions if k == 0 else truth
        return volume.astype(np.float32), truth

    def _with_lesions(
        self, volume: np.ndarray, brain_mask: np.ndarray, k: int, drawn: pd.Series
    ) -> tuple[np.ndarray, np.ndarray]:
        settings = self.settings
        strength = drawn["distractor"] if k else drawn["strength"]
        shares = lesion_shares(
            self.places[k],
            self.grid,
            self.effects[k].zone & brain_mask,
            settings.lesion_volume_ml * strength,
            settings.lesion_count,
            settings.lesion_compactness,
            np.random.default_rng([int(drawn["seed"]), k]),
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

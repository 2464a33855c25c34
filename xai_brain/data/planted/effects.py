"""Planting an effect at a known location into the prepared images of any cohort.

    cohort = prepare_cohort(load_participants("bids", root), PreprocessingConfig())
    cohort = plant(cohort, PlantedEffect("atrophy", size=20, center_mm=[-28, -20, -16]), grid)

Classes are random and independent of all other properties of the participants; one of them has the effect.
The classes therefore differ only at the effect, or at distractors, confounds and sites that were also
planted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.planted_effect import PlantedEffect, PlantedError, check_planted
from xai_brain.data.cache import default_cache_dir, locks
from xai_brain.data.planted.draws import CLASS_NAMES, draw
from xai_brain.data.planted.planting import Planting
from xai_brain.io.atomic import remove_partial_files, write_atomic
from xai_brain.io.nifti import Grid, save_img
from xai_brain.parallel.locks import run_shared


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
    planting = Planting(settings, grid, cohort, draws)
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

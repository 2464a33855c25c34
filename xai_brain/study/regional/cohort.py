"""Cohort of a regional benchmark: prepared images and one target per region, as a BIDS folder.

The folder serves all networks: the same images and the same division, with a column for each region.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from xai_brain.atlas.atlas import Atlas, load_atlas
from xai_brain.atlas.bilateral import labels_of_regions, numbered_regions, regions_with_rest
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.folds.tables import NEVER_TESTED
from xai_brain.data.planted.doses import IntensityDoses, VolumeDoses, independent_doses, region_means
from xai_brain.io.atomic import partial_prefix
from xai_brain.io.nifti import Grid, bids_name, get_grid, save_img
from xai_brain.io.problems import DataError, Problems, named
from xai_brain.parallel.locks import run_exclusive
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import SPACE, RunDirectory, read_json, write_json, write_tsv
from xai_brain.statistics.continuous.residuals import residuals_of_others
from xai_brain.study.participants import find_participants, prepare_images
from xai_brain.study.training.folds import folds_of

KEPT = ("age", "sex", "site")  # columns of the table of participants
DIVISION = "division"  # column: the fold in which a participant is tested, or train
Change = Callable[[np.ndarray, np.ndarray, dict[str, float]], np.ndarray]


def column_of(region: str) -> str:
    """Name of the column and of the folder of a region."""
    return re.sub(r"\W+", "_", region).strip("_")


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of a benchmark on the grid of the volumes.

    Parameters
    ----------
    atlas : Atlas
    chosen : dict of str to tuple of int
        Labels of the regions whose measures are learned.
    compared : dict of str to tuple of int
        These regions, followed by all others of the atlas.
    numbered : int ndarray of shape (X, Y, Z)
        Number of the region, in the order of `compared`, from 1.
    """

    atlas: Atlas
    chosen: dict[str, tuple[int, ...]]
    compared: dict[str, tuple[int, ...]]
    numbered: np.ndarray

    @property
    def masks(self) -> dict[str, np.ndarray]:
        return {region: self.numbered == number for number, region in enumerate(self.chosen, 1)}

    def sides(self) -> dict[str, list[np.ndarray]]:
        """Masks of the labels of each region, on the voxels of the atlas."""
        labels = np.asanyarray(self.atlas.labels_img.dataobj)
        return {region: [labels == index for index in own] for region, own in self.chosen.items()}


def read_regions(config: Config) -> Regions:
    """Regions of the settings.

    Raises
    ------
    AtlasError, ConfigError
        A region does not exist, is named like another, or has no voxel of the grid.
    """
    regional, grid = config.regional, get_grid(config.preprocessing.grid)
    atlas = load_atlas(str(regional.atlas), regional.atlas_table)
    chosen = labels_of_regions(atlas, regional.regions)
    if len({column_of(region).lower() for region in chosen}) < len(chosen):
        raise ConfigError(f"regional.regions={regional.regions}: two names differ only in punctuation")
    compared = regions_with_rest(atlas, chosen)
    regions = Regions(atlas, chosen, compared, numbered_regions(atlas, compared, grid))
    for region, mask in regions.masks.items():
        if not mask.any():
            raise ConfigError(
                f"regional.regions: {region} has no voxel of the grid {grid.name}; leave it out, or use a "
                "finer preprocessing.grid"
            )
    return regions


def make_cohort(config: Config, run: RunDirectory, regions: Regions) -> Path:
    """Write the folder of images and targets, unless it exists.

    Returns
    -------
    Path
        ``<run_dir>/cohort``: participants.tsv with one column per region and the column ``division``, and
        image and brain mask of each participant on the grid of the settings.

    Raises
    ------
    ConfigError
        The folder was made with other settings or images, and ``overwrite`` is not set.
    """
    folder = run.path / "cohort"
    table = _prepared(config)
    content = _content(config, table, regions)
    if _made_from(folder) not in (None, content):
        if not config.overwrite:
            raise ConfigError(
                f"{folder} was made with other settings or images (regional, preprocessing, folds, data); "
                "use another run_dir, or overwrite=true"
            )
        for other in (folder, run.path / "regions"):
            shutil.rmtree(other, ignore_errors=True)
    run_exclusive(
        run.locks, "cohort", lambda: _write(config, run, table, regions, content), lambda: folder.exists()
    )
    return folder


def _prepared(config: Config) -> pd.DataFrame:
    """Prepared images, one per participant."""
    problems = Problems(config.data.on_error)
    participants = find_participants(config, problems)
    first = participants.drop_duplicates("participant_id").reset_index(drop=True)
    if n_more := len(participants) - len(first):
        log(f"regional benchmark: {n_more} further images of the same participants are not used")
    if config.regional.columns is not None:
        first = _with_measures(first, [str(column) for column in config.regional.columns])
    table = prepare_images(config, first, problems)
    return table.sort_values("participant_id", ignore_index=True)


def _with_measures(participants: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Participants with a number in each column."""
    if missing := [column for column in columns if column not in participants]:
        listed = ", ".join(name for name in participants if not str(name).endswith("_path"))
        raise ConfigError(f"regional.columns={missing[0]}: not in participants.tsv (its columns: {listed})")
    measures = participants[columns].apply(pd.to_numeric, errors="coerce")
    wrong = (measures.isna() & participants[columns].notna()).any(axis=1)
    if wrong.any():
        ids = participants.loc[wrong, "participant_id"].tolist()
        raise DataError(f"regional.columns: {named(ids)} have values that are no numbers; correct the table")
    complete = measures.notna().all(axis=1)
    if n_without := int((~complete).sum()):
        log(f"regional benchmark: {n_without} participants without a value of each measure are left out")
    return participants.assign(**measures)[complete].reset_index(drop=True)


def _content(config: Config, table: pd.DataFrame, regions: Regions) -> dict[str, object]:
    """Values on which images, targets and division depend."""
    regional = {k: v for k, v in asdict(config.regional).items() if k not in ("atlas", "atlas_table")}
    images = sha256("".join(table["participant_id"] + table["sha256"]).encode()).hexdigest()
    content: dict[str, object] = {
        "Regional": regional,
        "Regions": sha256(regions.numbered.tobytes()).hexdigest(),
        "Preprocessing": asdict(config.preprocessing),
        "Folds": asdict(config.folds),
        "Images": images,
    }
    if config.regional.columns is not None:
        measures = table[[str(column) for column in config.regional.columns]]
        content["Measures"] = sha256(measures.to_csv(index=False).encode()).hexdigest()
    return content


def _made_from(folder: Path) -> dict[str, object] | None:
    description = folder / "dataset_description.json"
    return read_json(description)["RegionalBenchmark"] if description.exists() else None


def _write(
    config: Config, run: RunDirectory, table: pd.DataFrame, regions: Regions, content: dict[str, object]
) -> None:
    grid = get_grid(config.preprocessing.grid)
    folds = folds_of(config, table.assign(target=np.arange(len(table), dtype=float)))
    division = folds.set_index("participant_id")["fold"].loc[table["participant_id"]].to_numpy()
    targets, change = _targets(config, table, regions, grid, division)
    targets.columns = [column_of(region) for region in targets]
    written = pd.concat(
        [
            table[["participant_id", *(name for name in KEPT if name in table)]],
            pd.Series(division, name=DIVISION).replace({NEVER_TESTED: "train"}),
            targets.reset_index(drop=True).round(6),
        ],
        axis=1,
    )
    with tempfile.TemporaryDirectory(dir=run.path, prefix=partial_prefix()) as made:
        root = Path(made) / "cohort"
        rows = list(zip(table.itertuples(), targets.to_dict("records"), strict=True))
        for row, values in track(rows, "write the images of all regions", unit="images"):
            volume, brain = np.load(row.volume_path), np.load(row.volume_mask_path)
            by_region = dict(zip(regions.chosen, values.values(), strict=True))
            for voxels, suffix in ((change(volume, brain, by_region), "T1w"), (brain, "mask")):
                name = bids_name(row.participant_id, space=SPACE, desc="brain", suffix=suffix)
                path = root / row.participant_id / "anat" / f"{name}.nii.gz"
                save_img(voxels, grid.affine, path, space=SPACE)
        write_tsv(written, root / "participants.tsv")
        about: dict[str, object] = {
            "Name": "Images and targets of a regional benchmark",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "xai-brain"}],
            "RegionalBenchmark": content,
        }
        write_json(about, root / "dataset_description.json")
        os.rename(root, run.path / "cohort")


def _targets(
    config: Config, table: pd.DataFrame, regions: Regions, grid: Grid, division: np.ndarray
) -> tuple[pd.DataFrame, Change]:
    """Target of each region, and the function that changes a volume by the targets of a participant."""
    regional, names = config.regional, list(regions.chosen)
    if regional.columns is not None:
        measures = table[[str(column) for column in regional.columns]].set_axis(names, axis=1)
        if not (division == NEVER_TESTED).any():
            raise ConfigError(
                "regional.columns: the residuals are fitted to participants that are never tested; use "
                "folds=hold_out"
            )
        try:
            residuals = residuals_of_others(measures, division == NEVER_TESTED)
        except ValueError as error:
            raise ConfigError(f"regional.columns: {error}") from error
        return residuals, lambda volume, brain, targets: volume
    doses = independent_doses(table["participant_id"].tolist(), names, regional.random_state)
    if regional.kind == "volume":
        strongest, affine = float(doses.abs().to_numpy().max()), regions.atlas.labels_img.affine
        volumes = VolumeDoses(regions.sides(), affine, regions.masks, grid, regional.size, strongest)
        return doses, volumes.changed
    means = region_means(table["volume_path"], table["volume_mask_path"], regions.masks)
    sds = means.std(ddof=1).to_dict()
    return doses, IntensityDoses(regions.masks, regional.size, sds).changed

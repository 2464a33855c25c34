"""Regional benchmark: one network per region, maps of its test participants, and their scores."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from xai_brain.config.benchmarks.regional import RegionalConfig
from xai_brain.config.data import DataConfig, PreprocessingConfig
from xai_brain.config.saved import settings_to_save
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.nifti import get_grid, load_img
from xai_brain.metrics.regional.scores import RegionalTruth
from xai_brain.metrics.regional.summary import summarise
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, write_tsv
from xai_brain.study.benchmarks.units import (
    ScoreFunction,
    Scores,
    check_benchmark,
    kinds_of,
    make_units,
    map_scores,
    open_folder,
    record_results,
    save_settings,
)
from xai_brain.study.regional.cohort import DIVISION, Regions, column_of, make_cohort, read_regions
from xai_brain.task.build import build_task

WHAT = "regional benchmark"


def regional_run(config: Config) -> RunDirectory:
    """Train the missing networks, make the missing maps and write tables, figure and page.

    Parameters
    ----------
    config : Config
        With ``regional.regions``, from `xai_brain.compose`.

    Returns
    -------
    RunDirectory
        With cohort/, regions/<Region>/ (a run of its own for each region), siegel.tsv, siegel.png and
        report.html.
    """
    if build_task(config.task).reported_as != "number":
        raise ConfigError(
            f"task._target_={config.task['_target_']}: a regional benchmark needs task=regression"
        )
    check_benchmark(config, WHAT, "region")
    run = open_folder(config)
    regions = read_regions(config)
    folder = make_cohort(config, run, regions)
    save_settings(config, run)
    scores, networks = [], []
    units = {region: region_settings(config, folder, region) for region in regions.chosen}
    for number, (region, own) in enumerate(make_units(units, WHAT, "region", maps=True), 1):
        found = map_scores(own, "regional_scores", {"Region": number}, _scores(own, regions, number))
        scores.append(found.assign(region=region))
        networks.append({"region": region, **_network_score(RunDirectory(Path(own.run_dir)), region)})
    table = summarise(
        pd.concat(scores, ignore_index=True),
        pd.DataFrame(networks),
        n_bootstrap=config.evaluation.n_bootstrap,
        random_state=config.evaluation.random_state,
    )
    write_tsv(table, run.path / "siegel.tsv")
    from xai_brain.reporting.benchmarks.regional import write_page

    write_page(run.path, table, settings_to_save(config), kinds_of(config))
    record_results(run, units)
    log(f"regional benchmark: {run.path / 'siegel.tsv'}, {run.report}")
    return run


def region_settings(config: Config, folder: Path, region: str) -> Config:
    """Settings of the run of one region: a regression on the images of the benchmark."""
    column, data = column_of(region), config.data
    return dataclasses.replace(
        config,
        name=column,
        run_dir=str(Path(config.run_dir) / "regions" / column),
        data=DataConfig(
            layout="bids",
            root=str(folder),
            label=column,
            cache_dir=data.cache_dir,
            num_workers=data.num_workers,
            space_check="warn",  # checked when the images were prepared
        ),
        preprocessing=PreprocessingConfig(grid=config.preprocessing.grid, scaling="none"),
        folds=dataclasses.replace(
            config.folds, kind="column", column=DIVISION, path=None, only=None, n_repeats=1, balance_on=[]
        ),
        attribution=copy.deepcopy(config.attribution),
        evaluation=copy.deepcopy(config.evaluation),
        regional=RegionalConfig(),
    )


def _scores(config: Config, regions: Regions, number: int) -> Callable[[], ScoreFunction]:
    """The function that scores the maps of a region."""

    def prepare() -> ScoreFunction:
        truth = RegionalTruth(regions.numbered, number, get_grid(config.preprocessing.grid).affine)
        tested = read_tsv(RunDirectory(Path(config.run_dir)).predictions)["participant_id"].unique()
        brains = {one: load_img(_mask_path(Path(str(config.data.root)), one)) for one in tested}

        def scores(participant_id: str, session_id: str, values: np.ndarray) -> Scores:
            brain = np.asanyarray(brains[participant_id].dataobj) > 0
            chance = truth.chance(brain)
            return {metric: (value, chance[metric]) for metric, value in truth.scores(values, brain).items()}

        return scores

    return prepare


def _mask_path(folder: Path, participant_id: str) -> Path:
    return next((folder / participant_id / "anat").glob("*_desc-brain_mask.nii.gz"))


def _network_score(run: RunDirectory, region: str) -> dict[str, float]:
    """Pearson's r of the test predictions with its interval, NaN if all are equal; and their number."""
    metrics, key = read_json(run.metrics), "test/pearson_r_pooled"
    if key not in metrics:
        log(f"regional benchmark: all predictions of {region} are equal; nothing was learned")
    names = {"mean": key, "ci_low": f"{key}_ci_low", "ci_high": f"{key}_ci_high"}
    n = read_tsv(run.predictions)["participant_id"].nunique()
    return {**{name: metrics.get(key, float("nan")) for name, key in names.items()}, "n": n}

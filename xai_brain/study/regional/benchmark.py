"""Regional benchmark: one network per region, maps of its test participants, and their scores."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.data import DataConfig, PreprocessingConfig
from xai_brain.config.evaluation import RegionalConfig
from xai_brain.config.saved import settings_text, settings_to_save
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import remove_partial_files, write_atomic
from xai_brain.io.nifti import get_grid, load_img
from xai_brain.metrics.regional.scores import RegionalTruth
from xai_brain.metrics.regional.summary import summarise
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import (
    RunDirectory,
    first_repeat,
    read_json,
    read_tsv,
    sidecar,
    write_tsv,
)
from xai_brain.runs.manifest import is_intact, write_manifest
from xai_brain.study.explanation.missing_maps import check_methods, explain_run
from xai_brain.study.regional.cohort import DIVISION, Regions, column_of, make_cohort, read_regions
from xai_brain.study.settings import stage
from xai_brain.study.settings_conflicts import refuse_foreign_folder
from xai_brain.study.training.cross_validation import train_run
from xai_brain.task.build import build_task


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
    _check(config)
    run = RunDirectory(Path(config.run_dir))
    refuse_foreign_folder(config, run)
    remove_partial_files(run.path)
    regions = read_regions(config)
    folder = make_cohort(config, run, regions)
    text = settings_text(settings_to_save(config))
    write_atomic(run.config, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    scores, networks = [], []
    for number, region in enumerate(regions.chosen, 1):
        log(f"regional benchmark: {region}, region {number}/{len(regions.chosen)}")
        own = region_settings(config, folder, region)
        stage(train_run)(own)
        stage(explain_run)(own)
        found = _scores_of_region(own, regions, number)
        scores.append(found.assign(region=region))
        networks.append({"region": region, **_network_score(RunDirectory(Path(own.run_dir)), region)})
    table = summarise(
        pd.concat(scores, ignore_index=True),
        pd.DataFrame(networks),
        n_bootstrap=config.evaluation.n_bootstrap,
        random_state=config.evaluation.random_state,
    )
    write_tsv(table, run.path / "siegel.tsv")
    from xai_brain.reporting.regional.page import write_page

    write_page(run.path, table, settings_to_save(config), kinds_of(config))
    log(f"regional benchmark: {run.path / 'siegel.tsv'}, {run.report}")
    return run


def _check(config: Config) -> None:
    if build_task(config.task).reported_as != "number":
        raise ConfigError(
            f"task._target_={config.task['_target_']}: a regional benchmark needs task=regression"
        )
    if config.shard:
        raise ConfigError(
            f"shard={config.shard}: a regional benchmark is not divided; start it several times"
        )
    if len(config.seeds) > 1:
        raise ConfigError(
            f"seeds={config.seeds}: a regional benchmark trains one network per region; give one"
        )
    if not config.attribution:
        raise ConfigError("attribution={}: a regional benchmark compares methods; give some")
    check_methods(config)


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


def _scores_of_region(config: Config, regions: Regions, number: int) -> pd.DataFrame:
    """Scores of every map of a region: participant_id, method, metric, value, chance."""
    run, grid = RunDirectory(Path(config.run_dir)), get_grid(config.preprocessing.grid)
    rows = first_repeat(read_tsv(run.predictions))
    labels = list(config.attribution)
    paths = {
        (row.participant_id, label): run.attribution(row.participant_id, row.session_id, label, row.seed)
        for row in rows.itertuples()
        for label in labels
    }
    done = run.evaluation("regional_scores")
    hashes = [read_json(sidecar(path))["MapSHA256"] for path in paths.values()]
    inputs = {
        "Maps": hashes,
        "Methods": labels,
        "Region": number,
        "Participants": rows["participant_id"].tolist(),
    }
    manifest = done.with_suffix(".json")
    if is_intact(manifest, inputs):
        return read_tsv(done)
    truth = RegionalTruth(regions.numbered, number, grid.affine)
    brains = {
        participant_id: load_img(_mask_path(Path(str(config.data.root)), participant_id))
        for participant_id in rows["participant_id"].unique()
    }
    found: list[dict[str, Any]] = []
    for (participant_id, label), path in track(list(paths.items()), "regional scores", unit="maps"):
        brain = np.asanyarray(brains[participant_id].dataobj) > 0
        chance = truth.chance(brain)
        values = truth.scores(np.asanyarray(load_img(path).dataobj), brain)
        of_map = {"participant_id": participant_id, "method": label}
        found += [
            {**of_map, "metric": metric, "value": value, "chance": chance[metric]}
            for metric, value in values.items()
        ]
    table = pd.DataFrame(found)
    write_tsv(table, done)
    write_manifest(manifest, inputs, [done])
    return read_tsv(done)


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


def kinds_of(config: Config) -> dict[str, str]:
    """Kind of each method: baseline (uses no network) or method."""
    from hydra.utils import instantiate

    from xai_brain.attribution.protocol import method_info

    return {
        label: "baseline" if method_info(instantiate(settings)).is_baseline else "method"
        for label, settings in config.attribution.items()
    }

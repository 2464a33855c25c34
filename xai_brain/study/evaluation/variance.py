"""Shares of the variance of maps due to the participant and to the network: evaluation/variance.tsv."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import RunDirectory, update_metrics, write_tsv
from xai_brain.runs.group_maps import find_group_maps, write_group_map
from xai_brain.statistics.group import BRAIN_SHARE, scale
from xai_brain.statistics.map_rows import MapRows
from xai_brain.statistics.variance import COMPONENTS, variance_shares
from xai_brain.study.run_images import brain_share, map_values

MODEL_SHARE = ("variance-model", "share")  # what and statistic of its group map


def evaluate_variance(config: Config, run: RunDirectory, maps: pd.DataFrame) -> None:
    """Estimate the variance components of the maps of every method; two seeds or more are needed.

    Parameters
    ----------
    config : Config
        ``evaluation.variance_scaling`` is applied to every map, in the brain.
    run : RunDirectory
    maps : pandas.DataFrame
        From `xai_brain.study.evaluation.found_maps.find_maps`.
    """
    run.evaluation("variance").unlink(missing_ok=True)
    quantity, statistic = MODEL_SHARE
    for each in find_group_maps(run, quantities=[quantity], statistic=statistic):
        each.remove()
    tables = []
    if why := _reason_not_estimated(config, maps):
        log(f"evaluate: the share of variance due to the network cannot be estimated: {why}")
    else:
        share, affine = brain_share(run, maps)
        if not (brain := share >= BRAIN_SHARE).any():
            raise ConfigError(f"no voxel lies in {BRAIN_SHARE:.0%} of the brains of {run.path / 'images'}")
        for method, rows in maps.groupby("method", sort=False):
            tables.append(_variance_of_method(config, run, str(method), rows, brain, affine))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if len(table):
        write_tsv(table, run.evaluation("variance"))
        table = table.dropna(subset=["share"])
    shares = {f"variance/{row.method}/{row.component}": float(row.share) for row in table.itertuples()}
    update_metrics(run, shares, replace=("variance/",))


def _reason_not_estimated(config: Config, maps: pd.DataFrame) -> str | None:
    if config.networks:
        return "maps of new participants are means over networks"
    if maps["seed"].nunique() < 2:
        return "there is only one seed; train and explain more, for example seeds=[0,1,2]"
    return None


def _variance_of_method(
    config: Config, run: RunDirectory, method: str, maps: pd.DataFrame, brain: np.ndarray, affine: np.ndarray
) -> pd.DataFrame:
    scaling, seeds = config.evaluation.variance_scaling, sorted(maps["seed"].unique())
    # sessions of a participant are averaged
    paths = maps.groupby(["participant_id", "seed"], sort=False)["path"].agg(list)
    participants = maps.drop_duplicates("participant_id").set_index("participant_id")["fold"]
    values = MapRows(len(participants) * len(seeds), int(brain.sum()), run.path / "group")
    of_fold: dict[int, list[int]] = {}  # number of each complete participant
    for number, participant_id in enumerate(
        track(list(participants.index), f"variance, {method}", "participants")
    ):
        complete = True
        for i, seed in enumerate(seeds):
            inside = [map_values(path)[brain] for path in paths.get((participant_id, seed), [])]
            scaled = [scale(one.astype(np.float64), scaling) for one in inside if one.any()]
            complete &= bool(scaled)
            if scaled:
                values[number * len(seeds) + i] = np.mean(scaled, axis=0)
        if complete:
            of_fold.setdefault(participants[participant_id], []).append(number)
    folds = [
        np.array(numbers)[:, None] * len(seeds) + np.arange(len(seeds))
        for _, numbers in sorted(of_fold.items())
        if len(numbers) > 1
    ]
    n_subjects = sum(map(len, folds))
    if not folds or len(seeds) < 2:
        log(f"evaluate: {method}: too few participants have maps from two seeds to estimate variances")
        return pd.DataFrame()
    found = variance_shares(values, folds, config.evaluation.n_bootstrap, config.evaluation.random_state)
    about = {
        "n_subjects": n_subjects,
        "n_models": len(seeds) * len(folds),
        "n_seeds": len(seeds),
        "n_folds": len(folds),
        "n_left_out": len(participants) - n_subjects,
        "scaling": scaling,
    }
    table = pd.DataFrame(
        {
            "method": method,
            "component": COMPONENTS,
            "share": found.share,
            "ci_low": found.interval[0],
            "ci_high": found.interval[1],
            "variance": np.maximum(found.variance, 0),
            "set_to_0": found.variance < 0,
            "negative_voxels": found.negative,
            **about,
        }
    )
    _log(method, table, len(participants) - n_subjects)
    _save(run, method, found.model_share, brain, affine, about)
    return table


def _log(method: str, table: pd.DataFrame, n_left_out: int) -> None:
    if table["share"].isna().any():
        log(f"evaluate: {method}: the maps of all participants and seeds of a fold are the same")
        return
    shares = ", ".join(f"{row.component} {row.share:.0%}" for row in table.itertuples())
    log(f"evaluate: {method}: shares of the variance of maps over the brain: {shares}")
    for row in table[table["set_to_0"]].itertuples():
        log(f"evaluate: {method}: the variance of the {row.component} is estimated below 0; it is set to 0")
    if n_left_out:
        why = "a map is missing or empty, or the fold has no other participant"
        log(f"evaluate: {method}: {n_left_out} participants excluded: {why}")


def _save(
    run: RunDirectory,
    method: str,
    share: np.ndarray,
    brain: np.ndarray,
    affine: np.ndarray,
    about: dict[str, Any],
) -> None:
    volume = np.zeros(brain.shape, np.float32)
    volume[brain] = share
    content = {
        "Description": "share of the variance of the maps that is due to the model, in [0, 1]",
        "Estimator": "two-way analysis of variance of participants by seeds without replication, inside each "
        "fold; negative components are set to 0",
        "Brain": f"voxels in at least {BRAIN_SHARE:.0%} of the participants' brains",
        "SubjectScaling": about["scaling"],
        "NumberOfSubjects": about["n_subjects"],
        "NumberOfModels": about["n_models"],
        "NumberOfSeeds": about["n_seeds"],
        "NumberOfFolds": about["n_folds"],
    }
    write_group_map(run, method, *MODEL_SHARE, volume, affine, content)

"""Detection benchmark: networks that learn planted effects of several kinds, places and sizes.

A cell is a network, a kind of effect, its places and its size. Each cell is a run of its own in
``cells/``, with networks trained on permuted labels of the same images as the null of each method. Maps are
ranked and not saved.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.config.benchmarks.detection import Cell, DetectionConfig
from xai_brain.config.saved import EXPLAINING, TRAINING, saved_settings, settings_to_save
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.metrics.cells.summary import cell_table, method_table
from xai_brain.metrics.detection import detection_curve
from xai_brain.parallel.progress import log
from xai_brain.runs.directory import RunDirectory, read_tsv, write_json, write_tsv
from xai_brain.runs.provenance import git_commit, versions
from xai_brain.study.benchmarks.units import (
    check_benchmark,
    kinds_of,
    make_units,
    open_folder,
    record_results,
    save_settings,
)
from xai_brain.study.detection.ranks import ranks_of_cell
from xai_brain.study.settings_conflicts import refuse_or_overwrite, settings_differences
from xai_brain.task.build import build_task

WHAT = "detection benchmark"
OF_CELLS = ("detection.networks", "detection.effects", "detection.places")


def detection_run(config: Config) -> RunDirectory:
    """Train the missing networks of all cells, rank the maps and write tables, figures and page.

    Parameters
    ----------
    config : Config
        With ``detection.cells``, from `xai_brain.compose`.

    Returns
    -------
    RunDirectory
        With cells/<cell>/ (a run of its own for each cell), detection.tsv and .json, cells.tsv, methods.tsv,
        detection_auroc.png, detection_methods.png and report.html.
    """
    if not build_task(config.task).has_classes or config.planted.kind:
        raise ConfigError(
            "detection: needs task=classification and planted=none; the effects are those of its cells"
        )
    check_benchmark(config, WHAT, "cell")
    run = open_folder(config)
    _refuse_conflicts(config, run)
    save_settings(config, run)
    cells = {cell.name: cell for cell in config.detection.all_cells()}
    units = {name: cell_settings(config, cell) for name, cell in cells.items()}
    tables: list[pd.DataFrame] = []
    for name, own in make_units(units, WHAT, "cell", maps=False):
        tables.append(_cell_table(own, cells[name], kinds_of(own), config.detection))
        table = pd.concat(tables, ignore_index=True)
        write_tsv(table, run.path / "detection.tsv")  # the cells so far
    write_json(_provenance(config, units), run.path / "detection.json")
    write_tsv(cell_table(table), run.path / "cells.tsv")
    write_tsv(method_table(table), run.path / "methods.tsv")
    from xai_brain.reporting.benchmarks.detection import write_page

    write_page(run.path, table, settings_to_save(config))
    record_results(run, units)
    log(f"{WHAT}: {run.path / 'detection.tsv'}, {run.report}")
    return run


def _refuse_conflicts(config: Config, run: RunDirectory) -> None:
    """Refuse other settings of the cells that exist; cells and methods may be added."""
    if not run.config.exists():
        return
    old, new = settings_to_save(saved_settings(run.config)), settings_to_save(config)
    if differences := settings_differences(old, new, (*TRAINING, *EXPLAINING, *OF_CELLS)):
        refuse_or_overwrite(config, run, differences)


def _provenance(config: Config, units: Mapping[str, Config]) -> dict[str, Any]:
    """Origin of detection.tsv: code, settings that name no folder, and numbers of participants."""
    first = RunDirectory(Path(next(iter(units.values())).run_dir))
    return {
        "Experiment": config.name,
        "GitCommit": git_commit(),
        "Versions": versions(),
        "Grid": config.preprocessing.grid,
        "Participants": int(read_tsv(first.participants)["participant_id"].nunique()),
        "Tested": int(read_tsv(first.predictions)["participant_id"].nunique()),
        "PermutedNetworks": {name: config.detection.n_perm_of(name) for name in config.detection.networks},
        "PermutedParticipants": config.detection.n_participants,
    }


def cell_settings(config: Config, cell: Cell) -> Config:
    """Settings of the run of one cell."""
    network = config.detection.networks[cell.network] or {}
    model = dict(network.get("model", {}))
    return dataclasses.replace(
        config,
        name=cell.name,
        run_dir=str(Path(config.run_dir) / "cells" / cell.name),
        model=model if "_target_" in model else {**config.model, **model},
        trainer=dataclasses.replace(config.trainer, **network.get("trainer", {})),
        planted=config.detection.planted(cell),
        attribution=copy.deepcopy(config.attribution),
        evaluation=copy.deepcopy(config.evaluation),
        explain=copy.deepcopy(config.explain),
        detection=DetectionConfig(),
    )


def _cell_table(config: Config, cell: Cell, kinds: dict[str, str], settings: DetectionConfig) -> pd.DataFrame:
    """Rows of the network and of all methods of a cell."""
    n_perm = settings.n_perm_of(cell.network)
    found = ranks_of_cell(config, kinds, n_perm, settings.n_participants)
    evaluation = config.evaluation
    curve = detection_curve(
        found.assign(place=cell.places, unit=cell.effect, size=cell.size, job=cell.name),
        evaluation.n_bootstrap,
        evaluation.random_state,
    )
    about = {"cell": cell.name, "network": cell.network, "effect": cell.effect}
    about |= {"planted_kind": str(config.planted.kind), "places": cell.places}
    of_null = found[found["what"] == "null"].groupby("method")["value"].mean()
    curve = curve.assign(**about, null_mean=curve["method"].map(of_null), n_perm=n_perm)
    order = ["size", "method", "kind", "value", "ci_low", "ci_high", "chance", "null_mean", "null", "blind"]
    return curve[[*about, *order, "found", "n_subjects", "n_perm"]]

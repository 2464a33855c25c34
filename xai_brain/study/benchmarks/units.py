"""What benchmarks of many networks share: one run for each unit, such as a region, and scores of its maps.

A unit that was interrupted continues with the networks and maps that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.saved import settings_text, settings_to_save
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import remove_partial_files, write_atomic
from xai_brain.io.nifti import load_img
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import RunDirectory, first_repeat, read_json, read_tsv, sidecar, write_tsv
from xai_brain.runs.manifest import is_intact, write_manifest
from xai_brain.study.explanation.missing_maps import check_methods, explain_run
from xai_brain.study.settings import stage
from xai_brain.study.settings_conflicts import refuse_foreign_folder
from xai_brain.study.training.cross_validation import train_run

RESULTS = "results.json"  # hashes of the tables, figures and page of a benchmark
Scores = Mapping[str, tuple[float, float]]  # value and chance level by the name of a metric
ScoreFunction = Callable[[str, str, np.ndarray], Scores]  # of participant_id, session_id and a map


def check_benchmark(config: Config, what: str, unit: str) -> None:
    """Refuse settings that a benchmark cannot use.

    Parameters
    ----------
    config : Config
    what : str
        Name for messages, such as ``"regional benchmark"``.
    unit : str
        What has one network, such as ``"region"``.

    Raises
    ------
    ConfigError
    """
    if config.shard:
        raise ConfigError(f"shard={config.shard}: a {what} is not divided; start it several times")
    if len(config.seeds) > 1:
        raise ConfigError(f"seeds={config.seeds}: a {what} trains one network per {unit}; give one")
    if not config.attribution:
        raise ConfigError(f"attribution={{}}: a {what} compares methods; give some")
    check_methods(config)


def open_folder(config: Config) -> RunDirectory:
    """The folder of a benchmark, without files of interrupted processes."""
    run = RunDirectory(Path(config.run_dir))
    refuse_foreign_folder(config, run)
    remove_partial_files(run.path)
    return run


def save_settings(config: Config, run: RunDirectory) -> None:
    """Write config.yaml of a benchmark."""
    text = settings_text(settings_to_save(config))
    write_atomic(run.config, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def make_units(
    units: Mapping[str, Config], what: str, unit: str, *, maps: bool
) -> Iterator[tuple[str, Config]]:
    """Train the network of each unit and make its maps; yields the unit when they exist.

    Parameters
    ----------
    units : mapping of name to Config
        Settings of the run of each unit.
    what, unit : str
        As for `check_benchmark`.
    maps : bool
        Whether maps are saved; otherwise `xai-brain explain` on the run of a unit can make them.
    """
    for number, (name, own) in enumerate(units.items(), 1):
        log(f"{what}: {name}, {unit} {number}/{len(units)}")
        stage(train_run)(own)
        if maps:
            stage(explain_run)(own)
        yield name, own


def record_results(run: RunDirectory, units: Mapping[str, Config]) -> None:
    """Write the hash of every table, figure and page of a benchmark, which `xai-brain verify` checks."""
    made = (path for pattern in ("*.tsv", "*.png", "*.html") for path in sorted(run.path.glob(pattern)))
    write_manifest(run.path / RESULTS, list(units), made)


def map_scores(
    config: Config,
    name: str,
    inputs: Mapping[str, Any],
    prepare: Callable[[], ScoreFunction],
) -> pd.DataFrame:
    """Scores of every map of a unit; existing ones are read if they belong to the same maps.

    Parameters
    ----------
    config : Config
        Settings of the unit.
    name : str
        Of the table in evaluation/.
    inputs : mapping
        What the scores depend on besides the maps.
    prepare : function
        Returns the function that scores a map; called only if scores are missing.

    Returns
    -------
    pandas.DataFrame
        participant_id, method, metric, value, chance.
    """
    run = RunDirectory(Path(config.run_dir))
    rows, labels = first_repeat(read_tsv(run.predictions)), list(config.attribution)
    paths = {
        (row.participant_id, row.session_id, label): run.attribution(
            row.participant_id, row.session_id, label, row.seed
        )
        for row in rows.itertuples()
        for label in labels
    }
    hashes = [read_json(sidecar(path))["MapSHA256"] for path in paths.values()]
    of = {"Maps": hashes, "Methods": labels, "Participants": rows["participant_id"].tolist(), **inputs}
    return kept_table(run.evaluation(name), of, lambda: _scored(paths, prepare(), name.replace("_", " ")))


def _scored(paths: Mapping[tuple[str, str, str], Path], scores: ScoreFunction, what: str) -> pd.DataFrame:
    found: list[dict[str, Any]] = []
    for (participant_id, session_id, label), path in track(list(paths.items()), what, unit="maps"):
        of_map = scores(participant_id, session_id, np.asanyarray(load_img(path).dataobj))
        found += [
            {
                "participant_id": participant_id,
                "method": label,
                "metric": metric,
                "value": value,
                "chance": chance,
            }
            for metric, (value, chance) in of_map.items()
        ]
    return pd.DataFrame(found)


def kept_table(path: Path, inputs: Mapping[str, Any], make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table that was made from these inputs; it is made again if they differ."""
    manifest = path.with_suffix(".json")
    if not is_intact(manifest, inputs):
        write_tsv(make(), path)
        write_manifest(manifest, inputs, [path])
    return read_tsv(path)


def kinds_of(config: Config) -> dict[str, str]:
    """Kind of each method: baseline (uses no network) or method."""
    from hydra.utils import instantiate

    from xai_brain.attribution.protocol import method_info

    return {
        label: "baseline" if method_info(instantiate(settings)).is_baseline else "method"
        for label, settings in config.attribution.items()
    }

"""The report card of a run: evaluation/report_card.tsv, and metrics.tsv with a row per participant."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.inputs import require_report_card
from xai_brain.config.saved import saved_settings
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.io.atomic import file_hash
from xai_brain.metrics.comparison.stability import reseed_stability
from xai_brain.metrics.report_card import report_card
from xai_brain.metrics.table import METRICS, missing_requirements, select_metrics
from xai_brain.parallel.progress import log, track
from xai_brain.parallel.threads import in_threads
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv, sidecar, write_tsv
from xai_brain.study.evaluation.metrics import compute_metrics
from xai_brain.study.run_images import brain_of, map_values

MIN_SHARED = 0.8  # share of the images of a run that a card of another run must contain


def write_card(
    config: Config, run: RunDirectory, maps: pd.DataFrame, localizations: list[dict[str, Any]]
) -> None:
    """Compute all metrics of the settings; without metrics nothing is written.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    maps : pandas.DataFrame
        From `find_maps`.
    localizations : list of dict
        Rows of evaluation/localization.tsv.
    """
    for name in ("report_card", "metrics"):
        run.evaluation(name).unlink(missing_ok=True)
    if not (selected := select_metrics(config.evaluation.card.metrics)):
        return
    kinds = {
        method: read_json(sidecar(rows["path"].iloc[0])).get("Kind", "method")
        for method, rows in maps.groupby("method", sort=False)
    }
    tables = [
        pd.DataFrame(
            row
            for row in localizations
            if row["metric"] in selected and METRICS[row["metric"]].is_localization
        )
    ]
    if "reseed_stability" in selected:
        tables.append(pd.DataFrame(_reseeded(run, maps)))
    tables.append(compute_metrics(config, run, maps)[0])
    tables = [table for table in tables if not table.empty]
    if not tables:
        log(f"report card: no metric applies to this run ({_reasons(config, selected, [])})")
        return
    rows = pd.concat(tables, ignore_index=True)
    rows["kind"] = rows["method"].map(kinds)
    card = report_card(
        rows,
        config.evaluation.n_bootstrap,
        config.evaluation.random_state,
        progress=partial(track, description="report card, bootstrap", unit="means", brief=True),
    )
    write_tsv(rows, run.evaluation("metrics"))
    write_tsv(card, run.evaluation("report_card"))
    if absent := [name for name in selected if name not in set(card["metric"])]:
        reasons = _reasons(config, absent, list(card["metric"]))
        log(f"report card: no values of {', '.join(absent)} ({reasons})")


def calibration_hash(config: Config) -> str | None:
    """Hash of the report card of ``evaluation.calibration``."""
    if not config.evaluation.calibration:
        return None
    path = RunDirectory(Path(config.evaluation.calibration).expanduser()).evaluation("report_card")
    return file_hash(path) if path.exists() else None


def check_calibration(config: Config, run: RunDirectory) -> None:
    """Refuse a report card that does not apply to this run, before its settings are changed.

    Raises
    ------
    ConfigError
        There is no card, no effect was planted, or the images, the preprocessing or the network differ.
    """
    if not config.evaluation.calibration:
        return
    other = RunDirectory(Path(config.evaluation.calibration).expanduser())
    where = f"evaluation.calibration={other.path}"
    require_report_card(str(other.path))
    theirs = saved_settings(other.config)
    if not theirs.planted.kind:
        raise ConfigError(f"{where}: no effect was planted there, so the true location is not known")
    for group, there, here in (
        ("preprocessing", theirs.preprocessing, config.preprocessing),
        ("model", theirs.model, config.model),
    ):
        if there != here:
            raise ConfigError(
                f"{where}: has another {group}, so its report card does not apply to this run; make a report "
                f"card with the {group} settings of this run"
            )
    images = set(read_tsv(other.participants)["sha256"].str.partition("+")[0])
    ours = read_tsv(run.participants)["sha256"].str.partition("+")[0]
    if (share := float(ours.isin(images).mean())) < MIN_SHARED:
        raise ConfigError(
            f"{where}: contains {share:.0%} of the images of this run; plant into the same cohort"
        )


def write_calibration(config: Config, run: RunDirectory) -> None:
    """Copy the report card of planted effects in the same cohort to evaluation/calibration.tsv."""
    if not config.evaluation.calibration:
        run.evaluation("calibration").unlink(missing_ok=True)
        return
    other = RunDirectory(Path(config.evaluation.calibration).expanduser())
    theirs = saved_settings(other.config)
    planted = theirs.planted
    text = f"{planted.kind}, size {planted.size:g}"
    card = read_tsv(other.evaluation("report_card"))
    shared = set(card["method"]) & set(config.attribution) & set(theirs.attribution)
    if differ := sorted(name for name in shared if theirs.attribution[name] != config.attribution[name]):
        log(
            f"evaluate: evaluation.calibration={other.path} used other settings of {', '.join(differ)}; "
            f"these methods are not calibrated; give both runs the same attribution.{differ[0]}"
        )
    write_tsv(card[~card["method"].isin(differ)].assign(planted=text), run.evaluation("calibration"))


def _reasons(config: Config, absent: list[str], computed: list[str]) -> str:
    if config.networks:
        return "maps of new participants are means over networks; these metrics need a single network"
    return missing_requirements(absent, computed)


def _reseeded(run: RunDirectory, maps: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Similarity between the maps of each participant from networks of different seeds."""

    def compare(rows: pd.DataFrame) -> dict[str, Any]:
        first = rows.iloc[0]
        brain = brain_of(run, first["participant_id"], first["session_id"])
        arrays = np.stack([map_values(path) for path in rows["path"]])
        about = {key: first[key] for key in ("participant_id", "session_id", "fold", "method")}
        value = reseed_stability(arrays, brain)["spearman"]
        return {**about, "seed": "all", "metric": "reseed_stability", "value": value, "chance": 0.0}

    groups = [rows for _, rows in maps.groupby(["participant_id", "session_id", "method"], sort=False)]
    yield from in_threads(compare, [rows for rows in groups if len(rows) > 1], "compare seeds", "maps", len)

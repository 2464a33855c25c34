"""The maps of a run with information from their sidecars and predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.runs.contents import RunContents
from xai_brain.runs.directory import RunDirectory, read_json
from xai_brain.task.build import build_task

EVERYONE = "all"  # in place of a class, where the target is a number


def find_maps(config: Config, run: RunDirectory) -> list[dict[str, Any]]:
    """All maps of the methods of a run; rows as from `xai_brain.runs.contents.RunContents.map_rows`.

    Where the target is a number, all participants have the label `EVERYONE`.

    Raises
    ------
    ConfigError
        There are no maps, or no predictions that they could explain.
    """
    if not run.predictions.exists() and not config.imported_methods:
        first = "predict" if config.networks else "train"
        raise ConfigError(f"{run.predictions}: does not exist; run `xai-brain {first}` first")
    found = list(RunContents(run).map_rows([*config.attribution, *config.imported_methods]))
    if not found:
        raise ConfigError(f"{run.path / 'attributions'}: there are no maps; run `xai-brain explain` first")
    if not build_task(config.task).has_classes:
        found = [{**row, "label": EVERYONE} for row in found]
    return found


def map_states(maps: list[dict[str, Any]]) -> list[str]:
    """Method, file name, seed and state of every map; they change with the maps."""
    return sorted(f"{m['method']} {m['path'].name} {m['seed']} {m['file_state']}" for m in maps)


def are_evaluated(config: Config, run: RunDirectory) -> bool:
    """Whether the tables and the comparisons of classes were made from the maps that exist now."""
    states = map_states(find_maps(config, run))
    manifests = [run.path / "evaluation" / name for name in ("inputs.json", "groups.json")]
    return all(path.exists() and read_json(path)["Of"].get("maps") == states for path in manifests)


def metrics_of_tables(summary: pd.DataFrame, localizations: list[dict[str, Any]]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for row in summary[summary["table"] == "localization"].itertuples():
        name = f"localization/{row.method}/{row.metric}"
        metrics |= {name: row.mean, f"{name}_ci_low": row.ci_low, f"{name}_ci_high": row.ci_high}
    if localizations:
        by_chance = [row["chance"] for row in localizations if row["metric"] == "rra"]
        metrics["localization/chance"] = float(np.mean(by_chance))
    return metrics

"""The maps of a run with what their sidecars and predictions say of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.runs.directory import (
    RunDirectory,
    first_repeat,
    read_tsv,
    sidecar,
)
from xai_brain.study.run_images import SPACE


def find_maps(config: Config, run: RunDirectory) -> list[dict[str, Any]]:
    """All maps of the run's methods with their participant, class and fold."""
    if run.predictions.exists():
        rows = first_repeat(read_tsv(run.predictions))
    elif config.imported_methods:  # maps of others, without a network
        rows = read_tsv(run.participants).assign(seed=config.seeds[0], fold=0)
    else:
        first = "predict" if config.networks else "train"
        raise ConfigError(f"{run.predictions}: does not exist; run `xai-brain {first}` first")
    participants = read_tsv(run.participants)
    labels = participants.set_index(["participant_id", "session_id"])["label"].to_dict()
    found = []
    for row in rows.itertuples():
        for method in [*config.attribution, *config.imported_methods]:
            path = run.attribution(
                row.participant_id, row.session_id, SPACE, method, row.seed, list(config.seeds)
            )
            if not path.exists() or not sidecar(path).exists():
                continue
            about = {"participant_id": row.participant_id, "session_id": row.session_id, "seed": row.seed}
            about |= {"fold": row.fold, "label": labels[row.participant_id, row.session_id]}
            found.append(
                {
                    **about,
                    "method": method,
                    "path": path,
                    "file_state": f"{path.stat().st_size} {path.stat().st_mtime_ns}",
                }
            )
    if not found:
        raise ConfigError(f"{run.path / 'attributions'}: there are no maps; run `xai-brain explain` first")
    return found


def metrics_of_tables(summary: pd.DataFrame, localizations: list[dict[str, Any]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for row in summary[summary["table"] == "localization"].itertuples():
        name = f"localization/{row.method}/{row.metric}"
        figures |= {name: row.mean, f"{name}_ci_low": row.ci_low, f"{name}_ci_high": row.ci_high}
    if localizations:
        by_chance = [row["chance"] for row in localizations if row["metric"] == "rra"]
        figures["localization/chance"] = float(np.mean(by_chance))
    return figures

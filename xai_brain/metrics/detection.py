"""Which planted effects a method finds, by size and location: a power analysis for maps.

An effect is found when the interval of the method's relevance rank (rra) lies above chance (or above the
permutation null of the method, if it was computed: the highest of its permuted networks, each with its
interval) and above the intervals of all baselines that do not use the labels.
`xai_brain.metrics.report_card.verdicts` uses the same rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from xai_brain.io.text_tables import read_text
from xai_brain.metrics.report_card import T_MAP
from xai_brain.parallel.progress import ShowProgress
from xai_brain.runs.directory import RunDirectory, read_json, read_tsv
from xai_brain.statistics.bootstrap import bootstrap_mean
from xai_brain.statistics.classification import classification_metrics

NETWORK = "(the network)"
NULL = "permutation_null"
WHERE = ["place", "unit", "size"]


def place_and_size(planted: Mapping[str, Any]) -> dict[str, Any] | None:
    """Location and size of an effect; None when nothing is planted.

    Parameters
    ----------
    planted : dict
        Fields of `xai_brain.config.planted_effect.PlantedEffect`.

    Returns
    -------
    dict
        place, unit, size (absolute value, so that larger effects are easier to find; the unit states the
        direction).
    """
    kind, size = planted.get("kind"), float(planted.get("size", 0))
    if kind is None:
        return None
    if planted.get("region") is not None:
        place = str(planted["region"])
    elif planted.get("mask_img"):
        place = mask_name(planted["mask_img"])
    else:
        place = f"({', '.join(f'{x:g}' for x in planted['center_mm'])}) mm"
        if n_further := len(planted.get("further_centers_mm") or []):
            place += f" and {n_further} more"
    if kind in ("atrophy", "expansion"):
        unit = f"{kind}, % of volume"
    else:
        of = (
            "intensity units"
            if planted.get("absolute")
            else "Cohen's d"
            if kind == "intensity"
            else "brain SD"
        )
        unit = f"{'darker ' if size < 0 else ''}{kind}, {of}"
    return {"place": place, "unit": unit, "size": abs(size)}


def mask_name(mask_img: str) -> str:
    """File name of the mask of an effect, without its ending."""
    return Path(mask_img).name.removesuffix(".gz").removesuffix(".nii")


def found_effects(folder: Path, about: str = "") -> pd.DataFrame | None:
    """Relevance ranks of all maps of one job, null values and predictions.

    Parameters
    ----------
    folder : Path
        Run directory with evaluation/localization.tsv.
    about : str
        Other settings that differ between jobs, which are appended to the place.

    Returns
    -------
    pandas.DataFrame or None
        place, unit, size, job, method, kind, what (rra, null or prediction), participant_id, value, chance;
        for predictions also target and fold. None for a run without planted effect.
    """
    run = RunDirectory(folder)
    if not (run.config.exists() and run.evaluation("localization").exists()):
        return None
    planted = OmegaConf.select(OmegaConf.create(read_text(run.config)), "planted")
    where = place_and_size(planted) if planted else None
    if where is None:
        return None
    where["place"] += f"; {about}" if about else ""
    table = read_tsv(run.evaluation("localization"))
    parts = [table[table["metric"] == "rra"].assign(what="rra")]
    if run.evaluation("metrics").exists():
        values = read_tsv(run.evaluation("metrics"))
        parts.append(values[values["metric"] == NULL].assign(what="null"))
    found = pd.concat(parts, ignore_index=True)
    found["kind"] = found["method"].map(_kinds(run, found["method"].unique()))
    found = pd.concat([found, predictions_of(run)], ignore_index=True)
    columns = ["method", "kind", "what", "participant_id", "value", "chance", "target", "fold", "seed"]
    return found.reindex(columns=columns).assign(**where, job=folder.name)


def _kinds(run: RunDirectory, methods: Iterable[str]) -> dict[str, str]:
    """Whether each method is a method or a baseline, as stated beside its maps."""
    kinds = {}
    for method in methods:
        path = next((run.path / "attributions").rglob(f"*_desc-{method}_attribution.json"), None)
        kinds[method] = read_json(path).get("Kind", "method") if path else "method"
    return kinds


def predictions_of(run: RunDirectory) -> pd.DataFrame:
    """Out-of-fold probabilities of the second of two classes."""
    if not run.predictions.exists():
        return pd.DataFrame()
    table = read_tsv(run.predictions)
    classes = [name for name in table if str(name).startswith("prob_")]
    if len(classes) != 2:
        return pd.DataFrame()
    about = table[["participant_id", "seed", "fold", "target"]]
    return about.assign(
        method=NETWORK, kind="network", what="prediction", value=table[classes[1]], chance=0.5
    )


def detection_curve(
    found: pd.DataFrame,
    n_bootstrap: int = 1000,
    random_state: int = 0,
    progress: ShowProgress = iter,
) -> pd.DataFrame:
    """Relevance rank of every method by place and size, with intervals over participants.

    Parameters
    ----------
    found : pandas.DataFrame
        Rows of `found_effects` of all jobs; those of one participant (seeds, jobs) are averaged first. Null
        values of several permutations have a column ``permutation``.
    n_bootstrap, random_state : int
    progress : function that wraps the list of places and sizes

    Returns
    -------
    pandas.DataFrame
        place, unit, size, method, kind, value, ci_low, ci_high, chance, null (the level to exceed: chance,
        or the upper bound of the permutation null if that is higher), blind (upper bound of the best
        baseline that does not use the labels; NaN without one), found, n_subjects, n_jobs. The rows of
        kind ``network`` contain the test AUROC, because maps cannot show an effect that the network ignores.
    """
    rows: list[dict[str, Any]] = []
    for where, part in progress(list(found.groupby(WHERE, sort=True))):
        about = dict(zip(WHERE, where, strict=True))
        here = []
        maps = part[part["kind"] != "network"]
        for (method, kind), own in maps.groupby(["method", "kind"], sort=False):
            row = _estimate(own[own["what"] == "rra"], n_bootstrap, random_state)
            null = _null(own[own["what"] == "null"], n_bootstrap, random_state)
            here.append(
                {**about, "method": method, "kind": kind, **row, "null": np.nanmax([row["chance"], null])}
            )
        for row in here:
            others = [
                other["ci_high"]
                for other in here
                if other["kind"] == "baseline" and other["method"] not in (T_MAP, row["method"])
            ]
            row["blind"] = max(others, default=np.nan)
            row["found"] = bool(row["ci_low"] > np.nanmax([row["null"], row["blind"]]))
        network = _network(part[part["kind"] == "network"], n_bootstrap)
        rows += [*here, *({**about, **row} for row in network)]
    columns = [*WHERE, "method", "kind", "value", "ci_low", "ci_high", "chance", "null", "blind", "found"]
    return pd.DataFrame(rows, columns=[*columns, "n_subjects", "n_jobs"])


def _null(rows: pd.DataFrame, n_bootstrap: int, random_state: int) -> float:
    """Highest upper bound over the permuted networks; NaN without any."""
    networks = [part for _, part in rows.groupby("permutation")] if "permutation" in rows else [rows]
    bounds = [_estimate(part, n_bootstrap, random_state)["ci_high"] for part in networks]
    return max(bounds, default=np.nan)


def _estimate(rows: pd.DataFrame, n_bootstrap: int, random_state: int) -> dict[str, float]:
    subjects = rows.groupby("participant_id")[["value", "chance"]].mean()
    mean, low, high = bootstrap_mean(subjects["value"].to_numpy(), n_bootstrap, random_state)
    counts = {"n_subjects": len(subjects), "n_jobs": rows["job"].nunique()}
    chance = float(subjects["chance"].mean()) if len(subjects) else np.nan
    return {"value": mean, "ci_low": low, "ci_high": high, "chance": chance, **counts}


def _network(rows: pd.DataFrame, n_bootstrap: int) -> list[dict[str, Any]]:
    """Test AUROC over all jobs of a size and place that test the same participants; each job is a seed."""
    participants = rows.groupby(["job", "seed"])["participant_id"].agg(lambda ids: tuple(sorted(ids)))
    if rows.empty or participants.nunique() > 1:
        return []
    seeds = rows.groupby(["job", "seed"]).ngroup()
    predictions = pd.DataFrame(
        {
            "participant_id": rows["participant_id"],
            "seed": seeds,
            "fold": rows["fold"].astype(int),
            "target": rows["target"].astype(int),
            "prob_0": 1 - rows["value"],
            "prob_1": rows["value"],
        }
    )
    figures = classification_metrics(predictions, "test", n_bootstrap)
    low = figures["test/auroc_ci_low"]
    return [
        {
            "method": NETWORK,
            "kind": "network",
            "value": figures["test/auroc"],
            "ci_low": low,
            "ci_high": figures["test/auroc_ci_high"],
            "chance": 0.5,
            "null": 0.5,
            "blind": np.nan,
            "found": bool(low > 0.5),
            "n_subjects": rows["participant_id"].nunique(),
            "n_jobs": rows["job"].nunique(),
        }
    ]


def smallest_effects(curve: pd.DataFrame) -> pd.DataFrame:
    """The smallest size such that a method finds the effect at this and all larger tested sizes.

    A size that is found while a larger one is not may be a chance result and does not count.

    Parameters
    ----------
    curve : pandas.DataFrame
        From `detection_curve`.

    Returns
    -------
    pandas.DataFrame
        method, kind, place, unit, smallest (NaN: none of those tested), largest_tested, n_sizes; methods
        that find the smallest effects first.
    """
    rows = []
    for (place, unit, method, kind), part in curve.groupby(["place", "unit", "method", "kind"], sort=False):
        part = part[part["size"] > 0].sort_values("size", ascending=False)
        if part.empty:
            continue
        always = part["found"].astype(bool).cummin()
        sizes = part.loc[always, "size"]
        about = {"method": method, "kind": kind, "place": place, "unit": unit}
        about |= {"smallest": sizes.min() if len(sizes) else np.nan}
        rows.append({**about, "largest_tested": part["size"].max(), "n_sizes": len(part)})
    columns = ["method", "kind", "place", "unit", "smallest", "largest_tested", "n_sizes"]
    table = pd.DataFrame(rows, columns=columns)
    relative = (table["smallest"] / table["largest_tested"]).fillna(2.0)
    table = table.assign(order=relative.groupby([table["kind"], table["method"]]).transform("mean"))
    kinds = {"network": 0, "method": 1, "baseline": 2}
    table = table.assign(first=table["kind"].map(kinds)).sort_values(
        ["first", "order", "method"], kind="stable"
    )
    return table[columns].reset_index(drop=True)

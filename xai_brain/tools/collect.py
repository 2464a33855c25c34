"""Collect all jobs of a sweep in one table, rank and plot them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from xai_brain.config.inputs import PLAN
from xai_brain.io.atomic import write_atomic
from xai_brain.metrics.detection import detection_curve, found_effects, mask_name, smallest_effects
from xai_brain.metrics.ranking import ranking
from xai_brain.parallel.progress import log, track
from xai_brain.reporting.figures.style import style
from xai_brain.reporting.figures.sweeps import curves_figure, ranking_figure, smallest_figure
from xai_brain.reporting.wording import fixed, interval
from xai_brain.runs.directory import read_json, write_tsv
from xai_brain.statistics.sweeps import COMPLETE, REPLICATES, SweepError, is_whole, read_sweep

DPI = 130
PLACE_AND_SIZE = (  # of a planted effect; other random states are replicates
    "planted",
    "planted.kind",
    "planted.size",
    "planted.absolute",
    "planted.center_mm",
    "planted.region",
    "planted.random_state",
)


def collect(arguments: list[str]) -> int:
    """Write sweep.tsv, ranking.tsv and figures; for planted effects also the detection curve.

    Parameters
    ----------
    arguments : list of str
        The folder of the sweep; ``metric=<name>,...`` are the metrics of the ranking.

    Returns
    -------
    int
        1 if a job failed or is missing, else 0.
    """
    given = dict(text.split("=", 1) for text in arguments if text.startswith("metric="))
    words = [text for text in arguments if not text.startswith("metric=")]
    if len(words) != 1:
        raise SweepError("usage: xai-brain collect <sweep_dir> [metric=<name>,...]")
    folder = Path(words[0]).expanduser()
    table = read_sweep(folder)
    plan = read_json(folder / PLAN) if (folder / PLAN).exists() else {}
    table.attrs["direction"] = str(plan.get("direction", "")).rpartition(".")[2]
    write_tsv(table, folder / "sweep.tsv")
    for row in table[table["state"] != COMPLETE].itertuples():
        log(f"job {row.job} {row.state}{f': {row.error}' if row.error else ''}")
    if strays := table.attrs["strays"]:
        log(f"excluded, because they do not belong to this sweep: {', '.join(strays)}")
    complete = table[table["state"] == COMPLETE]
    log(f"{folder / 'sweep.tsv'}: {len(complete)} of {len(table)} jobs complete")
    if len(complete):
        ranks = ranking(table, given["metric"].split(",") if "metric" in given else None)
        if len(ranks):
            write_tsv(ranks, folder / "ranking.tsv")
            log_ranks(ranks)
            if len(ranked := ranks.dropna(subset=["rank"])):
                save_figure(ranking_figure, folder / "figures" / "ranking.png", ranked)
        complete = table[is_whole(table)]
        others = [key for key in table.attrs["parameters"] if not _in_place_or_size(key, complete)]
        about = [", ".join(f"{key}={row[key]}" for key in others) for _, row in complete.iterrows()]
        collect_detection(folder, dict(zip(complete["job"], about, strict=True)))
    return int(len(complete) < len(table))


def _in_place_or_size(key: str, jobs: pd.DataFrame) -> bool:
    """Whether a swept setting is a replicate, or part of the location and size of the planted effect.

    Masks are identified by file names, unless files in different folders have the same name.
    """
    if key == "planted.mask_img":
        masks = jobs[key].dropna().drop_duplicates()
        return masks.map(mask_name).is_unique
    return key in REPLICATES or key in PLACE_AND_SIZE


def log_ranks(ranks: pd.DataFrame) -> None:
    """Log the best setting by the first ranked metric, and settings without a rank."""
    about = list(ranks.columns[2 : ranks.columns.get_loc("value")])
    first = ranks[ranks["metric"] == ranks["metric"].iloc[0]]
    for row in first[first["rank"].isna()].to_dict("records"):
        named = ", ".join(f"{key}={row[key]}" for key in about) or "this sweep"
        log(f"{named}: no rank, because {row['n_jobs']} of {row['n_planned']} jobs are complete")
    if (ranked := first.dropna(subset=["rank"])).empty:
        return
    best = ranked.iloc[0]
    named = ", ".join(f"{key}={best[key]}" for key in about) or "all jobs"
    limits = f", 95 % CI {interval(best['ci_low'], best['ci_high'])}" if best["n_jobs"] > 1 else ""
    jobs = f"{best['n_jobs']} job{'s' if best['n_jobs'] > 1 else ''}"
    log(f"best by {best['metric']}: {named} ({fixed(best['value'])}{limits}, {jobs})")


def collect_detection(folder: Path, jobs: dict[str, str]) -> None:
    """Write tables and figures of the detection curve, if effects of several sizes or locations were planted.

    Parameters
    ----------
    folder : Path
    jobs : dict
        By job, for settings whose jobs are all complete: the swept settings other than effect and seed.
    """
    tracked = track(list(jobs.items()), "read maps", "jobs", brief=True)
    read = (found_effects(folder / job, about) for job, about in tracked)
    rows = [found for found in read if found is not None]
    if not rows:
        return
    found = pd.concat(rows, ignore_index=True)
    if len(found.drop_duplicates(["place", "size"])) < 2:
        return
    bootstrap = partial(track, description="detection curve, bootstrap", unit="effects", brief=True)
    curve = detection_curve(found, progress=bootstrap)
    smallest = smallest_effects(curve)
    write_tsv(curve, folder / "detection.tsv")
    write_tsv(smallest, folder / "detection_smallest.tsv")
    save_figure(curves_figure, folder / "figures" / "detection_curves.png", curve, smallest)
    save_figure(smallest_figure, folder / "figures" / "detection_smallest.png", curve, smallest)
    for row in smallest[smallest["kind"] == "method"].itertuples():
        size = f"from {row.unit} {row.smallest:g} on" if pd.notna(row.smallest) else "at no size tested"
        log(f"{row.method}, {row.place}: finds the effect {size}")
    log(f"detection curve: {folder / 'figures' / 'detection_smallest.png'}")


def save_figure(draw: Callable[..., Figure], path: Path, *tables: pd.DataFrame) -> None:
    """Draw in the style of the report and write a PNG file."""
    with style():
        figure = draw(*tables)
        write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=DPI, format="png"))

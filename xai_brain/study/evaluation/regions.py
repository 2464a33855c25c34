"""Maps of a run in the regions of an atlas: evaluation/regions.tsv, region_groups.tsv, region_top.tsv."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.atlas.atlas import Atlas, load_atlas, tables_beside
from xai_brain.atlas.lookup_tables import AtlasError
from xai_brain.config.schema import Config
from xai_brain.io.nifti import load_img
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import SPACE, RunDirectory, read_json, read_tsv, sidecar, write_tsv
from xai_brain.runs.group_maps import find_group_maps, write_group_map
from xai_brain.statistics.continuous.regions import associate_regions
from xai_brain.statistics.group_design import GroupError, common_output, contrast_name
from xai_brain.statistics.regions import compare_classes, region_values, top_regions
from xai_brain.study.confounds import chosen_confounds, group_participants
from xai_brain.study.evaluation.found_maps import EVERYONE
from xai_brain.study.evaluation.group_records import DIFFERENCE, REGION_MEAN, SLOPE
from xai_brain.study.participants import task_of
from xai_brain.study.run_images import brain_share, map_values
from xai_brain.task.protocol import Task

TABLES = ("regions", "region_groups", "region_top")
MIN_INSIDE = 0.5  # smallest share of atlas voxels in the brain; far lower if the atlas is misaligned


def atlas_of(config: Config) -> Atlas | None:
    """Atlas of the settings; None without one."""
    if not config.evaluation.atlas:
        return None
    return load_atlas(config.evaluation.atlas, config.evaluation.atlas_table, space=SPACE)


def atlas_files(config: Config) -> list[str]:
    """Size and modification time of the files of the atlas."""
    paths = [
        Path(name).expanduser() for name in (config.evaluation.atlas, config.evaluation.atlas_table) if name
    ]
    if paths and not config.evaluation.atlas_table:
        paths += tables_beside(paths[0])
    return [f"{path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths if path.is_file()]


def evaluate_regions(config: Config, run: RunDirectory, maps: list[dict[str, Any]]) -> None:
    """Write the tables and, for every method and contrast, a map of the effects in the regions.

    Effects (differences of classes, slopes of a number) have the direction and the confounds of the
    voxel-wise test.

    Parameters
    ----------
    maps : rows of `xai_brain.study.evaluation.found_maps.find_maps`
    """
    for name in TABLES:
        run.evaluation(name).unlink(missing_ok=True)
    for each in find_group_maps(run, statistic=REGION_MEAN):
        each.remove()
    if (atlas := atlas_of(config)) is None:
        return
    settings = config.evaluation
    first = load_img(maps[0]["path"])
    labels = atlas.on_grid(first)
    table = region_table(run, maps, atlas, settings.atlas or "")
    write_tsv(table, run.evaluation("regions"))
    _log_empty_regions(table, atlas)

    task = task_of(config, read_tsv(run.participants))
    names = task.names if task.has_classes else (EVERYONE,)
    explained = {
        method: explained_output(rows, task)
        for method, rows in pd.DataFrame(maps).groupby("method", sort=False)
    }
    groups = region_tests(config, run, table)
    groups["explained"] = groups["method"].map(lambda method: explained[method][0])
    groups["common_output"] = groups["method"].map(lambda method: explained[method][1])
    _log_incomparable_methods(explained)
    write_tsv(groups, run.evaluation("region_groups"))
    top = top_regions(
        table,
        names,
        settings.top_regions,
        n_bootstrap=settings.n_bootstrap,
        random_state=settings.random_state,
    )
    write_tsv(top, run.evaluation("region_top"))
    if len(groups):
        write_region_maps(run, groups[groups["measure"] == "mean"], task, labels, first.affine, atlas.name)


def region_tests(config: Config, run: RunDirectory, table: pd.DataFrame) -> pd.DataFrame:
    """Compare the classes, or test the association with a number, in every region of `region_table`.

    Parameters
    ----------
    config : Config
        With the confounds and ``evaluation.n_perm``.
    run : RunDirectory
    table : pandas.DataFrame

    Returns
    -------
    pandas.DataFrame
        As from `xai_brain.statistics.regions.compare_classes` or, of a number, from
        `xai_brain.statistics.continuous.regions.associate_regions`.
    """
    every, settings = read_tsv(run.participants), config.evaluation
    task = task_of(config, every)
    participants = group_participants(task, every)
    known = table[table["participant_id"].isin(participants["participant_id"])]
    options: dict[str, Any] = {
        "participants": participants,
        "confounds": chosen_confounds(config, task, participants),
        "n_bootstrap": settings.n_bootstrap,
        "n_perm": settings.n_perm,
        "random_state": settings.random_state,
        "report": lambda text: log(f"evaluate: {text}"),
        "progress": partial(track, description="compare regions", unit="methods", brief=True),
    }
    if task.has_classes:
        return compare_classes(known, task.names, **options)
    return associate_regions(known, task.names[0], **options)


def region_table(run: RunDirectory, maps: list[dict[str, Any]], atlas: Atlas, where: str) -> pd.DataFrame:
    """Summarise every map in every region: rows of regions.tsv.

    Parameters
    ----------
    run : RunDirectory
    maps : rows of `xai_brain.study.evaluation.found_maps.find_maps`
    atlas : Atlas
    where : str
        File of the atlas, for messages.

    Raises
    ------
    AtlasError
        Most of the atlas lies outside the brain, as for an atlas in another space.
    """
    labels = atlas.on_grid(load_img(maps[0]["path"]))
    # voxels in most brains, so that a region has one size for every participant
    brain_mask = brain_share(run, pd.DataFrame(maps))[0] > 0.5
    _check_place(atlas, labels, brain_mask, where)
    tables = []
    for row in track(maps, "regions", "maps"):
        values = map_values(row["path"])
        about = {key: row[key] for key in ("participant_id", "session_id", "seed", "fold")}
        about |= {"class": row["label"], "method": row["method"]}
        tables.append(region_values(values, labels, atlas.lut, brain_mask).assign(**about))
    table = pd.concat(tables, ignore_index=True)
    return table[[*about, *(column for column in table if column not in about)]]


def _check_place(atlas: Atlas, labels: np.ndarray, brain_mask: np.ndarray, where: str) -> None:
    share = (brain_mask & (labels > 0)).sum() / max((labels > 0).sum(), 1)
    if share < MIN_INSIDE:
        raise AtlasError(
            f"{where}: {share:.0%} of atlas {atlas.name} on the grid of the maps lies in the brain; is it in "
            f"{SPACE}, with a correct affine?"
        )


def _log_empty_regions(table: pd.DataFrame, atlas: Atlas) -> None:
    empty = table.loc[table["n_voxels"] == 0, "region"].drop_duplicates().tolist()
    if empty:
        some = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        log(f"evaluate: {len(empty)} of {len(atlas.lut)} regions have no voxel in the brain: {some}")


def explained_output(rows: pd.DataFrame, task: Task) -> tuple[str, bool]:
    """Output that the maps of a method explain, or why it is not a common one; and whether it is."""
    try:
        target = common_output((read_json(sidecar(path)) for path in rows["path"]), task.group_output)
    except GroupError as error:
        return str(error), False
    return f"{task.group_output} of {target}", True


def _log_incomparable_methods(explained: dict[str, tuple[str, bool]]) -> None:
    methods: dict[str, list[str]] = {}
    for method, (reason, common) in explained.items():
        if not common:
            methods.setdefault(reason, []).append(method)
    for reason, names in methods.items():
        log(
            f"evaluate: {', '.join(names)}: region_groups.tsv (common_output = False) is not a comparison: "
            f"{reason}"
        )


def write_region_maps(
    run: RunDirectory, groups: pd.DataFrame, task: Task, labels: np.ndarray, affine: np.ndarray, atlas: str
) -> None:
    """Save the effect in each region, a difference or a slope, at all of its voxels, 0 elsewhere."""
    codes, place = np.unique(labels, return_inverse=True)
    for method, of_method in groups.groupby("method", sort=False):
        for contrast in task.contrasts():
            about: dict[str, Any] = {}
            if len(contrast) == 1:
                rows, effect = of_method, SLOPE
                about |= {
                    "Association": contrast[0],
                    "Description": "adjusted slope of the mean of each region",
                }
            else:
                a, b = contrast
                rows, effect = (
                    of_method[(of_method["class_a"] == a) & (of_method["class_b"] == b)],
                    DIFFERENCE,
                )
                about |= {
                    "Difference": f"{b} minus {a}",
                    "Description": "adjusted difference of the means in each region",
                }
            if rows.empty:
                continue
            first = rows.iloc[0]
            counts = {a: int(first["n_a"]), b: int(first["n_b"])} if len(contrast) == 2 else int(first["n"])
            values = rows.set_index("index")[effect].reindex(codes).fillna(0).to_numpy()
            about |= {
                "Confounds": str(first["confounds"]).split(", "),
                "NumberOfSubjects": counts,
                "Atlas": atlas,
                "Table": "evaluation/region_groups.tsv",
            }
            volume, name = values[place].reshape(labels.shape).astype(np.float32), contrast_name(contrast)
            write_group_map(run, str(method), name, REGION_MEAN, volume, affine, about)

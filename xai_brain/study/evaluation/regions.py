"""Maps of a run in the regions of an atlas: evaluation/regions.tsv, region_groups.tsv, region_top.tsv."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xai_brain.atlas.atlas import Atlas, AtlasError, load_atlas, tables_beside
from xai_brain.config.schema import Config
from xai_brain.io.nifti import load_img, save_img
from xai_brain.parallel.progress import log, track
from xai_brain.runs.directory import SPACE, RunDirectory, read_json, read_tsv, sidecar, write_json, write_tsv
from xai_brain.statistics.group_design import GroupError, common_output
from xai_brain.statistics.regions import compare_classes, region_values, top_regions
from xai_brain.study.evaluation.group_records import REGION_MEAN, chosen_confounds
from xai_brain.study.participants import of_one_class
from xai_brain.study.run_images import brain_share, map_values

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


def evaluate_regions(config: Config, run: RunDirectory, maps: list[dict[str, Any]], names: list[str]) -> None:
    """Write the tables and, for every method and pair of classes, a map of the differences of the regions.

    Differences have the direction and the confounds of the voxel-wise test.

    Parameters
    ----------
    maps : rows of `xai_brain.study.evaluation.found_maps.find_maps`
    names : classes in their order
    """
    for name in TABLES:
        run.evaluation(name).unlink(missing_ok=True)
    for path in (run.path / "group").glob(f"*_stat-{REGION_MEAN}_statmap.*"):
        path.unlink()
    if (atlas := atlas_of(config)) is None:
        return
    settings = config.evaluation
    first = load_img(maps[0]["path"])
    labels = atlas.on_grid(first)
    table = region_table(run, maps, atlas, settings.atlas or "")
    write_tsv(table, run.evaluation("regions"))
    _log_empty_regions(table, atlas)

    explained = {
        method: explained_output(rows) for method, rows in pd.DataFrame(maps).groupby("method", sort=False)
    }
    participants = of_one_class(read_tsv(run.participants))
    groups = compare_classes(
        table[table["participant_id"].isin(participants["participant_id"])],
        names,
        participants=participants,
        confounds=chosen_confounds(config, participants),
        n_bootstrap=settings.n_bootstrap,
        n_perm=settings.n_perm,
        random_state=settings.random_state,
        report=lambda text: log(f"evaluate: {text}"),
        progress=partial(track, description="compare regions", unit="methods", brief=True),
    )
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
        write_difference_maps(run, groups[groups["measure"] == "mean"], labels, first.affine, atlas.name)


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


def explained_output(rows: pd.DataFrame) -> tuple[str, bool]:
    """Output that the maps of a method explain, or why it is not a common one; and whether it is."""
    try:
        target = common_output(read_json(sidecar(path)) for path in rows["path"])
    except GroupError as error:
        return str(error), False
    return f"logit_difference of {target}", True


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


def write_difference_maps(
    run: RunDirectory, groups: pd.DataFrame, labels: np.ndarray, affine: np.ndarray, atlas: str
) -> None:
    """Save the difference (later minus earlier class) of each region at all of its voxels, 0 elsewhere."""
    for (method, a, b), rows in groups.groupby(["method", "class_a", "class_b"], sort=False):
        codes, place = np.unique(labels, return_inverse=True)
        differences = rows.set_index("index")["difference"].reindex(codes).fillna(0).to_numpy()
        path = run.group_map(str(method), f"{b}-minus-{a}", REGION_MEAN)
        save_img(differences[place].reshape(labels.shape).astype(np.float32), affine, path, space=SPACE)
        about = {
            "Method": method,
            "Difference": f"{b} minus {a}",
            "Statistic": "adjusted difference of the means in each region",
            "Confounds": str(rows["confounds"].iloc[0]).split(", "),
            "NumberOfSubjects": {a: int(rows["n_a"].iloc[0]), b: int(rows["n_b"].iloc[0])},
            "Atlas": atlas,
            "Table": "evaluation/region_groups.tsv",
        }
        write_json(about, sidecar(path))

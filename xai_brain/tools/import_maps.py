"""Import maps of other software into a run directory, for evaluate, report and view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from xai_brain.config.checks import read_config
from xai_brain.config.compose import compose
from xai_brain.config.inputs import require_folder
from xai_brain.config.saved import stage_settings
from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.spaces.space_check import check_mni152
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import (
    Grid,
    get_grid,
    is_mni152,
    load_img,
    parse_entities,
    resample_to_grid,
    same_grid,
    save_img,
)
from xai_brain.io.problems import named
from xai_brain.io.twin_files import without_equal_twins
from xai_brain.parallel.progress import log, track
from xai_brain.runs.derivatives import COHORT, bids_uri, map_record, write_map_datasets
from xai_brain.runs.directory import SPACE, RunDirectory, read_json, read_tsv, sidecar, write_json, write_tsv
from xai_brain.runs.provenance import provenance
from xai_brain.study.participants import cohort_root, input_hashes, portable, prepared_cohort, same_cohort
from xai_brain.study.run_images import brain_of, write_images
from xai_brain.study.settings import open_run

LEAST_COVERED = 0.9  # share of the brain that the field of view of a map must contain
OUTLINE_CORRELATION = (
    0.9  # with the template, above which the non-zero voxels of a map have the outline of a brain
)


@dataclass(frozen=True)
class ExternalMap:
    """A map file of other software."""

    path: Path
    participant_id: str
    session_id: str
    method: str


def import_maps(arguments: list[str]) -> int:
    """Import maps into a run, or into a new directory for participants without a network.

    Parameters
    ----------
    arguments : list of str
        ``maps=<folder>`` of NIfTI files whose names begin with ``sub-<id>``; ``method=<Name>`` if the
        names have no ``desc-<Name>``; ``run_dir=<folder>``; for a new one also ``data=... data.root=...``.

    Returns
    -------
    int
        0.

    Raises
    ------
    ConfigError
        No map belongs to a participant of the cohort, two maps belong to the same image, or a map is in
        another space.
    """
    given = dict(text.split("=", 1) for text in arguments if text.startswith(("maps=", "method=")))
    overrides = [text for text in arguments if not text.startswith(("maps=", "method="))]
    if not given.get("maps"):
        raise ConfigError("no value for maps; give the folder of the maps, maps=/path/to/folder")
    require_folder("maps", given["maps"])
    folder = Path(given["maps"]).expanduser()
    found = list(find_external_maps(folder, given.get("method")))
    config, run, participants = _open_run(overrides)
    maps, unknown_ids = _match_cohort(found, participants, folder)
    taken = {label for label in config.attribution if _has_maps(run, label)} & {
        found.method for found in maps
    }
    if taken:
        raise ConfigError(
            f"maps={folder}: {run.path} has maps named {named(sorted(taken))}; give another name with method="
        )
    config.imported_methods = sorted({*config.imported_methods, *(each.method for each in maps)})
    run = open_run(config)
    grid = get_grid(config.preprocessing.grid)
    for each in track(maps, "import maps", "maps"):
        target = run.attribution(each.participant_id, each.session_id, each.method, config.seeds[0])
        brain_mask = brain_of(run, each.participant_id, each.session_id)
        source = bids_uri(each.method, each.path.relative_to(folder))
        _write(each, target, brain_mask, grid, config.data.orientation, source)
    write_map_datasets(run, {COHORT: cohort_root(config), **{each.method: folder for each in maps}})
    left_out = f"; {named(unknown_ids)} not in the cohort, excluded" if unknown_ids else ""
    methods = named(sorted({each.method for each in maps}))
    log(f"import-maps: {len(maps)} maps of {methods}{left_out}; next: xai-brain evaluate run_dir={run.path}")
    return 0


def find_external_maps(folder: Path, method: str | None) -> Iterator[ExternalMap]:
    """NIfTI files below a folder with the participant, session and method in their names.

    Raises
    ------
    ConfigError
        A name contains no method and none is given, or it contains another space than MNI152.
    """
    files = [path for path in sorted(folder.rglob("*.nii*")) if path.name.endswith((".nii", ".nii.gz"))]
    for path in without_equal_twins(path for path in files if "sub" in parse_entities(path)):
        entities = parse_entities(path)
        space = entities.get("space", SPACE)
        if not is_mni152(space):
            raise ConfigError(
                f"{path}: space-{space} is not an MNI152 template; transform the map to MNI152 first"
            )
        label = method or entities.get("desc")
        if not label:
            raise ConfigError(f"{path}: its name has no desc-<Method>; give the method with method=<Name>")
        if not (label.isascii() and label.isalnum()):
            raise ConfigError(
                f"{path}: method {label!r}: use letters and digits only, as it is part of file names"
            )
        session = f"ses-{entities['ses']}" if "ses" in entities else ""
        yield ExternalMap(path, f"sub-{entities['sub']}", session, label)


def _open_run(overrides: list[str]) -> tuple[Config, RunDirectory, pd.DataFrame]:
    """Settings, directory and participants. Participants and images of a new directory are written here."""
    run = RunDirectory(Path(compose("run", ["data=synthetic", *overrides], checked=False).run_dir))
    if run.config.exists():
        where = [f"run_dir={run.path}", *(text for text in overrides if text.startswith("data.root="))]
        config = stage_settings("evaluate", where)
    else:
        config = read_config(compose("run", ["attribution=[]", *overrides]))
    run = open_run(config)
    if not run.participants.exists():
        cohort = prepared_cohort(config, run)
        root = cohort_root(config)
        write_images(run, cohort, get_grid(config.preprocessing.grid), config.data.orientation)
        inputs = input_hashes(cohort, root)
        write_tsv(portable(cohort, root), run.participants)
        tables = {run.participants.name: file_hash(run.participants)}
        write_json({**provenance(list(config.seeds), inputs), "tables_sha256": tables}, run.provenance)
    participants = read_tsv(run.participants)
    rows = zip(participants["participant_id"], participants["session_id"], strict=True)
    if not all(run.image(*row).exists() for row in rows):  # trained, but not explained yet
        cohort = same_cohort(prepared_cohort(config, run), run)
        write_images(run, cohort, get_grid(config.preprocessing.grid), config.data.orientation)
    return config, run, participants


def _match_cohort(
    found: list[ExternalMap], participants: pd.DataFrame, folder: Path
) -> tuple[list[ExternalMap], list[str]]:
    """Maps of participants of the cohort, and ids that are not in it."""
    known = set(zip(participants["participant_id"], participants["session_id"], strict=True))
    sessions = participants.groupby("participant_id")["session_id"].unique()
    maps: dict[tuple[str, str, str], ExternalMap] = {}
    unknown_ids = []
    for each in found:
        session = each.session_id
        if not session and len(sessions.get(each.participant_id, ())) == 1:
            session = sessions[each.participant_id][0]  # the participant has one session only
        if (each.participant_id, session) not in known:
            unknown_ids.append(each.participant_id)
            continue
        key = (each.participant_id, session, each.method)
        if key in maps:
            raise ConfigError(
                f"{each.path}: a second map of {each.participant_id} by {each.method}; keep one"
            )
        maps[key] = ExternalMap(each.path, each.participant_id, session, each.method)
    if not maps:
        raise ConfigError(
            f"maps={folder}: no NIfTI file whose name begins with the id of a participant of the cohort "
            f"(sub-<id>_..., as {participants['participant_id'].iloc[0]})"
        )
    return list(maps.values()), sorted(set(unknown_ids))


def _has_maps(run: RunDirectory, label: str) -> bool:
    return any((run.path / "attributions").rglob(f"*_desc-{label}_attribution.nii.gz"))


def _write(
    external: ExternalMap,
    target: Path,
    brain_mask: np.ndarray,
    grid: Grid,
    orientation: str | None,
    uri: str,
) -> None:
    """Write the map on the grid of the run, and its source in the sidecar."""
    source = file_hash(external.path)
    if target.exists() and sidecar(target).exists() and read_json(sidecar(target))["SourceSHA256"] == source:
        return
    img = load_img(external.path, orientation)
    if (covered := field_of_view(img, brain_mask, grid)) < LEAST_COVERED:
        raise ConfigError(
            f"{external.path}: its field of view contains {covered:.0%} of the brain of "
            f"{external.participant_id}: its affine does not lead to MNI152; correct it"
        )
    data = np.asanyarray(img.dataobj)
    if not np.isfinite(data).all():
        raise ConfigError(
            f"{external.path}: contains NaN or infinities; set them to 0 where there is no value"
        )
    _require_outline(external, img)
    values = data if same_grid(img, grid) else resample_to_grid(img, grid)
    about: dict[str, Any] = {
        **map_record(SPACE, [uri], f"Imported map of {external.method}"),
        "ParticipantId": external.participant_id,
        "Method": external.method,
        "ValueMeaning": "as defined by the software that made the map",
        "Adopted": True,
        "SourceSHA256": source,
        "Resampled": not same_grid(img, grid),
        "Empty": not values.any(),
    }
    beside = sidecar(external.path)
    if beside.exists():
        about = {**read_json(beside), **about}
    save_img(values.astype(np.float32), grid.affine, target, space=SPACE)
    write_json({**about, "MapSHA256": file_hash(target)}, sidecar(target))


def _require_outline(external: ExternalMap, img: nib.Nifti1Image) -> None:
    """Raise an error for a map that is 0 outside a brain whose location is not that of MNI152.

    Only the outline can be checked; a map without zeros around the brain passes.
    """
    check = check_mni152(nib.Nifti1Image((np.asanyarray(img.dataobj) != 0).astype(np.float32), img.affine))
    if not check.passed and check.changed_correlation >= OUTLINE_CORRELATION:
        raise ConfigError(
            f"{external.path}: its voxels that are not 0 have the outline of a brain that is not in MNI152 "
            f"({check.reason}); correct its affine"
        )


def field_of_view(img: nib.Nifti1Image, brain_mask: np.ndarray, grid: Grid) -> float:
    """Share of the voxels of the brain whose centres lie inside an image."""
    mm = nib.affines.apply_affine(grid.affine, np.argwhere(brain_mask))
    voxels = nib.affines.apply_affine(np.linalg.inv(img.affine), mm)
    return float(((voxels > -0.5) & (voxels < np.array(img.shape[:3]) - 0.5)).all(1).mean())

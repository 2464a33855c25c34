"""Maps in the native space of each participant: ``xai-brain explain explain.output_space=native``."""

from __future__ import annotations

import numpy as np
import pandas as pd

from xai_brain.config.schema import Config
from xai_brain.config.setting import ConfigError
from xai_brain.data.raw.heads import in_native
from xai_brain.io.atomic import file_hash
from xai_brain.io.nifti import Grid, load_img, save_img
from xai_brain.parallel.progress import log, track
from xai_brain.runs.derivatives import spatial_reference, uris_of_maps, write_native_datasets
from xai_brain.runs.directory import RunDirectory, read_json, sidecar, write_json
from xai_brain.study.explanation.batches import map_path

NATIVE = "T1w"  # BIDS: the native space of a T1-weighted image


def write_native_maps(config: Config, run: RunDirectory, predictions: pd.DataFrame) -> None:
    """Resample the maps of all aligned participants to native space; existing newer files are kept.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    predictions : pandas.DataFrame
        Rows of predictions.tsv.

    Raises
    ------
    ConfigError
        No image of the run was aligned.
    """
    n_written = n_there = 0
    for row in track(list(predictions.itertuples()), "resample to native space", "images"):
        alignment = run.alignment(row.participant_id, row.session_id)
        if not alignment.exists():
            continue
        about = read_json(alignment)
        grid = Grid(NATIVE, tuple(about["NativeShape"]), np.array(about["NativeAffine"]))
        matrix = np.array(about["MNI152ToNative"])
        for label in config.attribution:
            path = map_path(config, run, row, label)
            target = run.native(path, NATIVE)
            if target.exists() and target.stat().st_mtime_ns >= path.stat().st_mtime_ns:
                n_there += 1
                continue
            save_img(in_native(load_img(path), matrix, grid), grid.affine, target, space=NATIVE)
            of_map = read_json(sidecar(path))
            own = {
                "Sources": uris_of_maps(run, [path]),
                **spatial_reference(NATIVE, next(iter(of_map.get("Sources", ())), "orig")),
                "MapSHA256": file_hash(target),
            }
            write_json({**of_map, **own}, sidecar(target))
            n_written += 1
    if not n_written + n_there:
        raise ConfigError(
            "explain.output_space=native: no image of this run was aligned to MNI152 by xai_brain "
            "(preprocessing.raw=true), so that the transformation to native space is not known"
        )
    write_native_datasets(run)
    log(f"explain: {n_written} maps resampled to native space, in {run.path / 'native'}")

"""Preparation of all images of a cohort, from the cache or in parallel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from xai_brain.config.data import PreprocessingConfig
from xai_brain.data.cache import Source, default_cache_dir, find, prepare
from xai_brain.io.atomic import remove_partial_files
from xai_brain.io.nifti import ImageError
from xai_brain.io.problems import Problems
from xai_brain.parallel.threads import available_cores

WORKERS_AFTER_SECONDS = 2.0  # about the time to start them
IDLE_WORKERS_END_AFTER_SECONDS = 5


def prepare_cohort(
    participants: pd.DataFrame,
    settings: PreprocessingConfig,
    *,
    cache_dir: str | Path | None = None,
    space: str | None = None,
    orientation: str | None = None,
    space_check: str = "error",
    problems: Problems | None = None,
    num_workers: int | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> pd.DataFrame:
    """Prepare all images of a cohort, or take them from the cache.

    Each prepared image is stored immediately, so that an interrupted preparation can be continued.

    Parameters
    ----------
    participants : pandas.DataFrame
        From `load_participants`.
    settings : PreprocessingConfig
    cache_dir : str or Path, optional
        Default: ``$XAI_BRAIN_CACHE``, else ``~/.cache/xai_brain``.
    space : str, optional
        Space of images whose names do not state it.
    orientation : str, optional
        Directions of the voxel axes, such as ``LAS``, of files that do not contain them.
    space_check : {"error", "warn"}, default "error"
        Whether images that should be in MNI152 but do not agree with the template are refused or used.
    problems : Problems, optional
    num_workers : int, optional
        Processes; default: one per core that this process may use. The result is the same.
    progress : function that wraps an iterable
        It receives only images that are not in the cache.

    Returns
    -------
    pandas.DataFrame
        The rows that could be prepared, with ``volume_path`` and ``volume_mask_path`` (memory-mappable
        .npy on the grid of the settings), ``alignment_path`` (JSON with the transform from MNI152 to the mm
        of the image; empty if it was not aligned), ``space_warning`` (disagreement with the MNI152 template;
        usually empty) and ``sha256`` of the image file.
    """
    problems = problems or Problems()
    folder = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    rows = participants.to_dict("records")
    sources = [_source(row, space, orientation, space_check) for row in rows]
    found: list[dict[str, str] | ImageError | None] = [find(source, settings, folder) for source in sources]
    missing = [i for i, columns in enumerate(found) if columns is None]
    made = _prepare_all([sources[i] for i in missing], settings, folder, num_workers or available_cores())

    def keep(i: int, outcome: dict[str, str] | ImageError | None) -> None:
        found[i] = outcome
        if isinstance(outcome, ImageError):
            problems.add(rows[i]["participant_id"], outcome.path, outcome.reason)

    if missing:
        remove_partial_files(folder / "volumes")
    for i in progress(missing) if missing else ():
        keep(i, next(made))
    for i in missing:
        if found[i] is None:  # another process was at it
            keep(i, _outcome(sources[i], settings, folder, wait=True))
    table = [
        {**row, **columns} for row, columns in zip(rows, found, strict=True) if isinstance(columns, dict)
    ]
    made_here = ["volume_path", "volume_mask_path", "alignment_path", "space_warning", "sha256"]
    return pd.DataFrame(table, columns=[*participants.columns, *made_here])


def _source(row: dict[str, Any], space: str | None, orientation: str | None, space_check: str) -> Source:
    mask_path = row.get("brain_mask_path")
    mask_path = None if mask_path is None or pd.isna(mask_path) else str(mask_path)
    return Source(str(row["t1w_path"]), mask_path, row.get("space") or space, orientation, space_check)


def _prepare_all(
    sources: list[Source], settings: PreprocessingConfig, folder: Path, num_workers: int
) -> Iterator[dict[str, str] | ImageError | None]:
    """Prepare in the order of the sources; workers are started only if the work takes long enough."""
    start = time.monotonic()
    for done, source in enumerate(sources):
        rest = sources[done:]
        if num_workers > 1 and len(rest) > 1 and time.monotonic() - start > WORKERS_AFTER_SECONDS:
            yield from _in_parallel(rest, settings, folder, min(num_workers, len(rest)))
            return
        yield _outcome(source, settings, folder)


def _in_parallel(
    sources: list[Source], settings: PreprocessingConfig, folder: Path, num_workers: int
) -> Iterator[dict[str, str] | ImageError | None]:
    from joblib import Parallel, delayed

    workers = Parallel(
        num_workers,
        backend="loky",
        return_as="generator",
        pre_dispatch="2 * n_jobs",
        batch_size=1,
        idle_worker_timeout=IDLE_WORKERS_END_AFTER_SECONDS,
    )
    yield from workers(delayed(_outcome)(source, settings, folder) for source in sources)


def _outcome(
    source: Source, settings: PreprocessingConfig, folder: Path, wait: bool = False
) -> dict[str, str] | ImageError | None:
    """Prepare one image; errors are returned. None if another process prepares the image."""
    from threadpoolctl import threadpool_limits

    try:
        with threadpool_limits(1):  # the last digits must not depend on the number of threads
            return prepare(source, settings, folder, wait=wait)
    except ImageError as error:
        return error
